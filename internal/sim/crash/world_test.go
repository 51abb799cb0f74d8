package crash

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"fettle/internal/fettle"
)

// machines are the external systems of a run: one file, outside of all processes
// that die. Its first line is what every probe saw at the beginning; each further
// line is one effect, with all that it changed. A line is written in one piece and
// synced; one that a SIGKILL cut off is none. Safe for concurrent use, also by
// several processes.
type machines struct {
	path string

	mu   sync.Mutex
	size int64 // of the file when it was last read
	past history
}

// sight is one subject as one probe of one host sees it.
type sight struct {
	host    fettle.Subject
	probe   string
	subject fettle.Subject
}

func sightOf(o fettle.Observation) sight { return sight{o.Host, o.Probe, o.Subject} }

// effect is one line.
type effect struct {
	Key     string               `json:"key,omitempty"`
	Step    string               `json:"step,omitempty"`
	Action  string               `json:"action,omitempty"`
	Target  fettle.Subject       `json:"target,omitempty"`
	Undo    bool                 `json:"undo,omitempty"`
	Outputs fettle.Facts         `json:"outputs,omitempty"`
	Now     []fettle.Observation `json:"now"`           // what changed, as it is from then on
	Was     []fettle.Observation `json:"was,omitempty"` // and as it was
}

// what names an effect without its key: done twice under two keys it is the same.
func (e effect) what() string {
	verb := ""
	if e.Undo {
		verb = "undo "
	}
	return fmt.Sprintf("%s: %s%s on %s", e.Step, verb, e.Action, e.Target)
}

// history is what a file says.
type history struct {
	effects []effect // without the first line
	present map[sight]fettle.Observation
}

// sorted returns the present, in order.
func (h history) sorted() []fettle.Observation {
	return slices.SortedFunc(maps.Values(h.present), func(a, b fettle.Observation) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Probe, b.Probe), cmp.Compare(a.Subject, b.Subject))
	})
}

// found returns the effect of a key.
func (h history) found(key string) (effect, bool) {
	i := slices.IndexFunc(h.effects, func(e effect) bool { return e.Key == key })
	if i < 0 {
		return effect{}, false
	}
	return h.effects[i], true
}

// read returns what the file says. The result is shared: read only.
func (m *machines) read() (history, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	info, err := os.Stat(m.path)
	if err != nil {
		return history{}, err
	}
	if info.Size() == m.size {
		return m.past, nil // it only grows
	}
	data, err := os.ReadFile(m.path)
	if err != nil {
		return history{}, err
	}
	h, err := parse(data)
	if err != nil {
		return history{}, fmt.Errorf("%s: %w", m.path, err)
	}
	m.past, m.size = h, int64(len(data))
	return h, nil
}

func parse(data []byte) (history, error) {
	h := history{present: map[sight]fettle.Observation{}}
	first := true
	for line := range bytes.Lines(data) {
		var e effect
		if !bytes.HasSuffix(line, []byte("\n")) || json.Unmarshal(line, &e) != nil {
			continue // cut off
		}
		for _, o := range e.Now {
			h.present[sightOf(o)] = o
		}
		if !first {
			h.effects = append(h.effects, e)
		}
		first = false
	}
	if first {
		return history{}, errors.New("it has no first line")
	}
	return h, nil
}

// append writes the line that make makes of what was before. Nobody else writes
// meanwhile.
func (m *machines) append(create func(history) (effect, error)) (effect, error) {
	f, err := os.OpenFile(m.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return effect{}, err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return effect{}, err
	}
	data, err := os.ReadFile(m.path)
	if err != nil {
		return effect{}, err
	}
	var before history
	if len(data) > 0 {
		if before, err = parse(data); err != nil {
			return effect{}, err
		}
	}
	e, err := create(before)
	if err != nil {
		return effect{}, err
	}
	line, err := json.Marshal(e)
	if err != nil {
		return effect{}, err
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		line = append([]byte("\n"), line...) // somebody died while writing
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return effect{}, err
	}
	return e, f.Sync()
}

// watch calls changed at once and whenever the file may have changed (inotify(7)),
// until ctx ends.
func (m *machines) watch(ctx context.Context, changed func()) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify") // it ends reads when it is closed
	defer f.Close()
	if _, err := unix.InotifyAddWatch(fd, m.path, unix.IN_MODIFY); err != nil {
		return fmt.Errorf("inotify %s: %w", m.path, err)
	}
	defer context.AfterFunc(ctx, func() { _ = f.Close() })()
	events := make([]byte, 4096)
	for {
		changed()
		if _, err := f.Read(events); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("inotify %s: %w", m.path, err)
		}
	}
}
