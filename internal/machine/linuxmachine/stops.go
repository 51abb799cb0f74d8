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
	of   string // the file of another process, which is read anew whenever it has grown
	boot string

	mu   sync.Mutex
	read os.FileInfo // of that file, when it was read last
	mine map[string]bool
	by   map[string]string
}

// stopsFile is in the state directory: lines "+ boot unit invocation" and, where
// the stop was refused after all, "-". Lines of earlier boots mean nothing.
const stopsFile = "own-stops"

func newStops(dir, of, boot string) *stops {
	s := &stops{boot: boot, mine: map[string]bool{}, by: map[string]string{}}
	if of != "" {
		s.of = filepath.Join(of, stopsFile)
	}
	if dir == "" {
		return s
	}
	s.file = filepath.Join(dir, stopsFile)
	s.take(s.file)
	return s
}

// take reads a file. The first time there is none; of one that cannot be read, own stops
// look like a person's, the safe way.
func (s *stops) take(file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		return
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 4 && f[1] == s.boot {
			s.mine[f[2]+" "+f[3]] = f[0] == "+"
		}
	}
}

// theirs takes in what the other process has stopped since. It writes that before it
// stops anything. mu is held.
func (s *stops) theirs() {
	info, err := os.Stat(s.of)
	if err != nil || s.read != nil && os.SameFile(info, s.read) && info.Size() == s.read.Size() {
		return
	}
	s.take(s.of)
	s.read = info
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
	if s.of != "" {
		s.theirs()
	}
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

// jobLines is how many of the newest job entries are read for several units at
// once; a unit whose last job is older is asked for alone.
const jobLines = 2000

// whoStoppedAll sets StoppedBy of units. Where no Watch has seen a unit go down,
// the journal is asked, once for each invocation.
func (s *services) whoStoppedAll(ctx context.Context, states []*unitState) {
	var open []*unitState
	for _, st := range states {
		by, known := s.knownStop(st)
		st.unit.StoppedBy = by
		if !known {
			open = append(open, st)
		}
	}
	if len(open) > 1 {
		open = s.fromJournal(ctx, open, jobLines)
	}
	for _, st := range open {
		if left := s.fromJournal(ctx, []*unitState{st}, 1); len(left) > 0 && ctx.Err() == nil {
			s.stops.record(st.unit.Name, st.unit.InvocationID, machine.ByUnknown)
		}
	}
}

// knownStop answers without the journal, where that can be.
func (s *services) knownStop(st *unitState) (by string, known bool) {
	u := st.unit
	// A one-shot service ends by itself. A unit without an invocation never ran
	// while it was loaded; enabled units stay loaded.
	if up(u) || u.InvocationID == "" || st.kind == "oneshot" || !strings.HasSuffix(u.Name, ".service") {
		return "", true
	}
	switch u.Job { // still under way: the journal has not heard of it yet
	case "":
		return s.stops.recorded(u.Name, u.InvocationID)
	case "stop":
		return s.stops.asked(u.Name, u.InvocationID), true
	}
	return "", true
}

// fromJournal finds the last job of each unit: systemd logs each job's end with
// its type, before the job is gone. It returns those that it did not find, with
// StoppedBy unknown.
func (s *services) fromJournal(ctx context.Context, states []*unitState, lines int) (left []*unitState) {
	match := []string{"_PID=1", "JOB_TYPE=stop", "JOB_TYPE=start", "JOB_TYPE=restart"}
	for _, st := range states {
		match = append(match, "UNIT="+st.unit.Name)
	}
	last := map[string]string{}
	entries, err := s.journal(ctx, lines, "JOB_TYPE,UNIT", match...)
	if err == nil {
		for _, e := range entries {
			last[e["UNIT"]] = e["JOB_TYPE"]
		}
	}
	for _, st := range states {
		u := &st.unit
		job, found := last[u.Name]
		switch {
		case !found:
			u.StoppedBy = machine.ByUnknown
			left = append(left, st)
			continue
		case job == "stop":
			u.StoppedBy = s.stops.asked(u.Name, u.InvocationID)
		default:
			u.StoppedBy = ""
		}
		s.stops.record(u.Name, u.InvocationID, u.StoppedBy)
	}
	return left
}
