package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/machine"
)

const memoryName = "raised"

// memorySchema is the version of the file that this package writes, and the
// newest that it reads.
const memorySchema = 1

// memoryAgain is how long what could not be written waits for the next try.
const memoryAgain = 10 * time.Second

// memory keeps which conditions are raised over a restart of the agent: one whose
// clear rule is not the reverse of its raise rule (a filesystem that was full and
// is not yet half-way empty; a member that was set aside to be replaced) cannot be
// told from what is seen alone. It is written when that changes, not before it is
// told: what is told of at once is seen again at once.
//
// It keeps what is raised, not what is clear or unknown: a condition that is lost
// sight of stays here as it was.
type memory struct {
	file  executor.Spare
	boot  string
	clock machine.Clock
	log   *slog.Logger
	dirty chan struct{} // has a value when there is something to keep

	mu     sync.Mutex
	raised map[fettle.ConditionKey]fettle.Condition
}

// remembered is the file.
type remembered struct {
	Schema int                `json:"schema"`
	Boot   string             `json:"boot_id"` // of the machine when it was written
	Raised []fettle.Condition `json:"raised"`
}

// parseRemembered reads the file. Fields that are not known here are passed over.
func parseRemembered(data []byte) (remembered, error) {
	var r remembered
	if err := json.Unmarshal(data, &r); err != nil {
		return remembered{}, err
	}
	if r.Schema != memorySchema {
		return remembered{}, fmt.Errorf("schema %d; this version reads schema %d", r.Schema, memorySchema)
	}
	for _, c := range r.Raised {
		if _, err := fettle.ParseSubject(string(c.Subject)); err != nil {
			return remembered{}, err
		}
		if c.Code == "" || c.State != fettle.Yes {
			return remembered{}, fmt.Errorf("condition %q of %s is %s, not raised", c.Code, c.Subject, c.State)
		}
	}
	return r, nil
}

// recall reads what was raised when the agent last ran. What cannot be read is
// told to the log and forgotten: then everything is judged as if seen for the
// first time.
//
// Across a boot of the machine the episode goes on, since nobody saw its end; but
// not the time since when it is raised: nobody looked for as long as the machine
// was off, and by which clock it was set then is not known.
func recall(stateDir, boot string, clock machine.Clock, log *slog.Logger) *memory {
	m := &memory{
		file: executor.Spare{Path: filepath.Join(stateDir, memoryName)}, boot: boot, clock: clock, log: log,
		dirty: make(chan struct{}, 1), raised: map[fettle.ConditionKey]fettle.Condition{},
	}
	data, err := os.ReadFile(m.file.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return m
	}
	var r remembered
	if err == nil {
		r, err = parseRemembered(data)
	}
	if err != nil {
		log.Warn("what was raised when the agent last ran is not known: all is judged as if seen for the first time", "file", m.file.Path, "error", err)
		return m
	}
	for _, c := range r.Raised {
		if r.Boot != boot {
			c.Since = time.Time{}
		}
		m.raised[c.ConditionKey] = c
	}
	return m
}

// list returns what is raised, sorted.
func (m *memory) list() []fettle.Condition {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]fettle.Condition, 0, len(m.raised))
	for _, c := range m.raised {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b fettle.Condition) int { return a.Compare(b.ConditionKey) })
	return list
}

// note takes in how a condition stands. One that is lost sight of stays as it was.
func (m *memory) note(c fettle.Condition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was, had := m.raised[c.ConditionKey]
	switch {
	case c.State == fettle.Yes && !(had && was.Since.Equal(c.Since)):
		m.raised[c.ConditionKey] = c
	case c.State == fettle.No && had:
		delete(m.raised, c.ConditionKey)
	default:
		return
	}
	signal(m.dirty)
}

// run keeps what changes until ctx ends.
func (m *memory) run(ctx context.Context) error {
	for said := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-m.dirty:
		}
		err := m.keep()
		if err == nil {
			said = false
			continue
		}
		if !said { // not with every try
			said = true
			m.log.Warn("what is raised could not be kept for a restart; it is tried again", "error", err)
		}
		signal(m.dirty)
		due, stop := m.clock.After(memoryAgain)
		select {
		case <-ctx.Done():
		case <-due:
		}
		stop()
	}
}

// last keeps what still waits, when nothing changes any more.
func (m *memory) last() {
	select {
	case <-m.dirty:
	default:
		return
	}
	if err := m.keep(); err != nil {
		m.log.Warn("what is raised could not be kept for the next start", "error", err)
	}
}

func (m *memory) keep() error {
	data, err := json.Marshal(remembered{Schema: memorySchema, Boot: m.boot, Raised: m.list()})
	if err != nil {
		return err
	}
	return m.file.Write(data)
}
