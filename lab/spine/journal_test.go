//go:build lab

package spine_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"fettle/internal/act/execute"
	"fettle/internal/act/journal"
	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// start starts a fleet, and at the end of the test looks into every agent's own
// journal: no step may have been begun twice, and none have been left undone. A step that
// is under way when the test ends gets the time that it needs.
func start(t *testing.T, hosts int, o spine.Options) *spine.Fleet {
	t.Helper()
	if o.Binary == "" {
		o.Binary = binary
	}
	f := spine.Start(t, hosts, o)
	t.Cleanup(func() {
		end := time.Now().Add(stepsEnd)
		for _, h := range f.Hosts() {
			done := readDone(t, h)
			for len(done.open()) > 0 && time.Now().Before(end) {
				<-time.After(100 * time.Millisecond) // the test's context has ended: Until does not wait
				done = readDone(t, h)
			}
			for _, key := range done.twice {
				t.Errorf("%s: %s was begun twice", h.Name(), key)
			}
			for _, key := range done.open() {
				t.Errorf("%s: what became of %s is %q", h.Name(), key, done.ended[key])
			}
		}
	})
	return f
}

// stepsEnd bounds the steps that are under way when a test ends.
const stepsEnd = 30 * time.Second

// done is what an agent's journal says of the steps that it was given.
type done struct {
	begun map[string]bool
	ended map[string]fettle.Fate
	twice []string // begun more than once
}

// open are the steps of which the journal does not say what became of them.
func (d done) open() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(d.begun)), func(key string) bool {
		return d.ended[key] == fettle.Done || d.ended[key] == fettle.NeverWillBe
	})
}

// readDone reads what a host's agent has done.
func readDone(t *testing.T, h *lab.Host) done {
	t.Helper()
	d := done{begun: map[string]bool{}, ended: map[string]fettle.Fate{}}
	readJournal(t, h, func(r journal.Record) {
		var rec struct {
			Dispatch fettle.Dispatch
			Outcome  fettle.Outcome
		}
		if err := r.Decode(&rec); err != nil {
			t.Error(err)
		}
		switch r.Kind {
		case execute.KindIntent:
			if d.begun[rec.Dispatch.Key] {
				d.twice = append(d.twice, rec.Dispatch.Key)
			}
			d.begun[rec.Dispatch.Key] = true
		case execute.KindOutcome:
			d.ended[rec.Outcome.Key] = rec.Outcome.Fate
		}
	})
	return d
}

// readJournal reads the journal of a host's agent.
func readJournal(t *testing.T, h *lab.Host, each func(journal.Record)) {
	t.Helper()
	data, err := h.ReadFile(spine.StateDir + "/executor/journal")
	if err != nil { // its agent does the steps itself
		data, err = h.ReadFile(spine.StateDir + "/agent/journal")
	}
	if err != nil {
		t.Error(err)
		return
	}
	copied := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(copied, data, 0o600); err != nil {
		t.Error(err)
		return
	}
	ctx := context.WithoutCancel(t.Context()) // which has ended in a test's clean-up
	j, err := journal.Open(ctx, copied, journal.Options{ReadOnly: true})
	if err == nil {
		defer j.Close()
		err = j.Read(ctx, 0, func(r journal.Record) error { each(r); return nil })
	}
	if err != nil {
		t.Errorf("the journal of %s: %v", h.Name(), err)
	}
}
