package incident_test

import (
	"testing"
	"time"

	"fettle/internal/adapter/all"
	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
	"fettle/internal/sim"
	"fettle/runbooks"
)

// TestOnlyWhatIsTouched: a fleet goes the same way, event by event, whether its minds
// look at all open incidents with every input, or only at those that it can have moved.
func TestOnlyWhatIsTouched(t *testing.T) {
	var cats []fettle.Catalogue
	for _, a := range all.Adapters() {
		cats = append(cats, a.Catalogue())
	}
	know := func(prepare func(*incident.Mind)) *sim.Knowledge {
		lib, err := sim.Know(cats, runbooks.FS(), prepare)
		if err != nil {
			t.Fatal(err)
		}
		return lib
	}
	few, every := know(nil), know(func(m *incident.Mind) { m.LookAtAll() })
	steps := 0
	for seed := uint64(1); seed <= 3; seed++ {
		a, b := sim.Run(t, few, sim.Options{Seed: seed}), sim.Run(t, every, sim.Options{Seed: seed})
		steps += a.Steps
		if a.Hash != b.Hash {
			for i := range a.Story {
				if i >= len(b.Story) || a.Story[i] != b.Story[i] {
					t.Errorf("seed %d: looking only at what was touched it goes another way, from:\n%s\n%s", seed, a.Story[i], b.Story[min(i, len(b.Story)-1)])
					break
				}
			}
			t.Errorf("seed %d: hash %.16s, and looking at everything %.16s", seed, a.Hash, b.Hash)
		}
	}
	if steps == 0 {
		t.Error("nothing was done: this proves nothing")
	}
}

// TestUnseenCostsNothing: an incident whose cause nobody can see, and about which a person
// was called, is saved no more by what happens elsewhere: with thousands of them, every
// input would write the whole list anew.
func TestUnseenCostsNothing(t *testing.T) {
	c := newCrowd(t)
	c.fill(20, "unseen")
	unseen, called := map[string]bool{}, 0
	for _, in := range c.Incidents() {
		unseen[in.ID] = true
		if in.State == fettle.Escalated {
			called++
		}
	}
	if called != 20 {
		t.Fatalf("of 20 incidents whose cause cannot be seen a person was called about %d", called)
	}
	for i, state := range []string{"active", "failed", "active", "failed"} {
		c.at = c.at.Add(time.Second)
		for _, d := range c.Take(incident.Input{At: c.at, Observations: []fettle.Observation{service("other", state, c.at)}}) {
			if unseen[d.Incident] {
				t.Fatalf("input %d, a service of another host is %s: %s of an incident that it is not about", i, state, d.Kind)
			}
		}
	}
}
