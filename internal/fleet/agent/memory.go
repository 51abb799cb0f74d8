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

	"fettle/internal/fettle"
)

const memoryName = "raised"

// memory keeps which conditions are raised over a restart of the agent: one whose
// clear rule is not the reverse of its raise rule (a member that was set aside to
// be replaced is ill until it votes again) cannot be told from what is seen alone.
// It is written when that changes, not before it is told: what is told of at once
// is seen again at once.
type memory struct {
	path  string
	log   *slog.Logger
	dirty chan struct{} // has a value when there is something to keep

	mu     sync.Mutex
	raised map[fettle.ConditionKey]fettle.Condition
}

// remembered is the file.
type remembered struct {
	Schema int                `json:"schema"`
	Raised []fettle.Condition `json:"raised"`
}

// recall reads what was raised when the agent last ran. What cannot be read is
// told to the log and forgotten: then everything is judged as if seen for the
// first time.
func recall(stateDir string, log *slog.Logger) *memory {
	m := &memory{path: filepath.Join(stateDir, memoryName), log: log, dirty: make(chan struct{}, 1), raised: map[fettle.ConditionKey]fettle.Condition{}}
	data, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return m
	}
	var r remembered
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil && r.Schema != 1 {
		err = fmt.Errorf("schema %d; this version reads schema 1", r.Schema)
	}
	if err != nil {
		log.Warn("what was raised when the agent last ran is not known", "file", m.path, "error", err)
		return m
	}
	for _, c := range r.Raised {
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
	_, had := m.raised[c.ConditionKey]
	switch {
	case c.State == fettle.Yes && !had:
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
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.dirty:
		}
		if err := m.keep(); err != nil {
			m.log.Warn("what is raised could not be kept for a restart", "error", err)
		}
	}
}

func (m *memory) keep() error {
	data, err := json.Marshal(remembered{Schema: 1, Raised: m.list()})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(m.path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(m.path+".new", m.path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(m.path))
}
