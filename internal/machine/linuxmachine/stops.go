package linuxmachine

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"fettle/internal/machine"
)

// stops knows which invocations of units were stopped on request, and by whom.
type stops struct {
	file string // "": nothing is remembered over a restart of this program
	boot string

	mu   sync.Mutex
	mine map[string]bool
	by   map[string]string
}

// stopsFile is in the state directory: lines "+ boot unit invocation" and, where
// the stop was refused after all, "-". Lines of earlier boots mean nothing.
const stopsFile = "own-stops"

func newStops(dir, boot string) *stops {
	s := &stops{boot: boot, mine: map[string]bool{}, by: map[string]string{}}
	if dir == "" {
		return s
	}
	s.file = filepath.Join(dir, stopsFile)
	data, err := os.ReadFile(s.file)
	if err != nil {
		return s // the first time; or unreadable: then own stops look like a person's, the safe way
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 4 && f[1] == boot {
			s.mine[f[2]+" "+f[3]] = f[0] == "+"
		}
	}
	return s
}

func (s *stops) own(unit, invocation string)    { s.note("+", unit, invocation) }
func (s *stops) disown(unit, invocation string) { s.note("-", unit, invocation) }

func (s *stops) note(sign, unit, invocation string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mine[unit+" "+invocation] = sign == "+"
	if s.file == "" {
		return
	}
	// Not synced: it has to outlive this program, and after a power cut it means
	// nothing. Not written: the stop will look like a person's, the safe way.
	f, err := os.OpenFile(s.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.WriteString(sign + " " + s.boot + " " + unit + " " + invocation + "\n")
}

// asked is who asked for the stop of an invocation that a stop job ended.
func (s *stops) asked(unit, invocation string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mine[unit+" "+invocation] {
		return machine.BySelf
	}
	return machine.ByPerson
}

func (s *stops) record(unit, invocation, by string) {
	if invocation == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by[unit+" "+invocation] = by
}

func (s *stops) recorded(unit, invocation string) (by string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	by, ok = s.by[unit+" "+invocation]
	return by, ok
}

// whoStopped says who asked for the stop of a unit that does not run. Where no
// Watch has seen it go down, the journal is asked, once for each invocation.
func (s *services) whoStopped(ctx context.Context, st *unitState) string {
	u := st.unit
	// A one-shot service ends by itself. A unit without an invocation never ran
	// while it was loaded; enabled units stay loaded.
	if up(u) || u.InvocationID == "" || st.kind == "oneshot" || !strings.HasSuffix(u.Name, ".service") {
		return ""
	}
	if by, ok := s.stops.recorded(u.Name, u.InvocationID); ok {
		return by
	}
	by := machine.ByUnknown
	// systemd logs each job's end with its type. The last one decides.
	entries, err := s.journal(ctx, 1, "JOB_TYPE,INVOCATION_ID",
		"_PID=1", "UNIT="+u.Name, "JOB_TYPE=stop", "JOB_TYPE=start", "JOB_TYPE=restart")
	switch {
	case err != nil && ctx.Err() != nil:
		return machine.ByUnknown // another time
	case err != nil || len(entries) == 0:
	case entries[0]["JOB_TYPE"] == "stop":
		by = s.stops.asked(u.Name, u.InvocationID)
	default:
		by = ""
	}
	s.stops.record(u.Name, u.InvocationID, by)
	return by
}
