//go:build lab

package spine_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fettle/internal/act/execute"
	"fettle/internal/act/journal"
	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// start starts a fleet, and at the end of the test looks into every agent's own
// journal: no step may have been begun twice, and none have been left undone.
func start(t *testing.T, hosts int, o spine.Options) *spine.Fleet {
	t.Helper()
	o.Binary = binary
	f := spine.Start(t, hosts, o)
	t.Cleanup(func() {
		for _, h := range f.Hosts() {
			begun, ended := map[string]time.Time{}, map[string]fettle.Fate{}
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
					if _, twice := begun[rec.Dispatch.Key]; twice {
						t.Errorf("%s: %s was begun twice", h.Name(), rec.Dispatch.Key)
					}
					begun[rec.Dispatch.Key] = r.At
				case execute.KindOutcome:
					ended[rec.Outcome.Key] = rec.Outcome.Fate
				}
			})
			for key := range begun {
				if fate := ended[key]; fate != fettle.Done && fate != fettle.NeverWillBe {
					t.Errorf("%s: what became of %s is %q", h.Name(), key, fate)
				}
			}
		}
	})
	return f
}

// readJournal reads the journal of a host's agent.
func readJournal(t *testing.T, h *lab.Host, each func(journal.Record)) {
	t.Helper()
	data, err := h.ReadFile(spine.StateDir + "/agent/journal")
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
