package whole_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// told is what a run comes to, as far as a seed decides it: which faults came when, what
// was done to each machine in which order, and how each incident ended. Names that are
// minted anew in each run are left out, and so is the order of what happened on two
// machines in one instant, which is the scheduler's.
func (o result) told() []string {
	var out []string
	for _, line := range o.Story {
		if strings.Contains(line, "FAULT") {
			out = append(out, line)
		}
	}
	byHost := map[string][]string{}
	for _, e := range o.Effects {
		byHost[e.host] = append(byHost[e.host], fmt.Sprintf("%s on %s, undo %v, alone %v", e.action, e.target, e.undo, e.alone))
	}
	var done []string
	for host, list := range byHost {
		done = append(done, host+": "+strings.Join(list, "; "))
	}
	var ends []string
	for _, rec := range o.Board {
		// Of a host that was imaged anew the name is minted.
		if _, found := o.Names[rec.Cause.Subject.Root()]; found && len(rec.Progress.Attempts) > 0 {
			ends = append(ends, fmt.Sprintf("%s is %s", rec.Cause, rec.State))
		}
	}
	slices.Sort(done)
	slices.Sort(ends)
	return append(append(out, done...), ends...)
}

// TestReplays: a seed does the same again, where each fault is over before the next one:
// which of two that happen at once comes first is not the seed's to say.
func TestReplays(t *testing.T) {
	lib := know(t)
	done := 0
	for seed := *from; seed < *from+*twice; seed++ {
		o := options{Seed: seed, Apart: 50 * time.Second}
		once := broken(t, lib, o)
		done += len(once.Effects)
		first, again := once.told(), broken(t, lib, o).told()
		for i, line := range first {
			if i >= len(again) || again[i] != line {
				t.Errorf("seed %d: %s\nthe second time: %s", seed, line, append(again, "nothing")[min(i, len(again))])
			}
		}
		if len(again) > len(first) {
			t.Errorf("seed %d: only the second time: %s", seed, again[len(first)])
		}
	}
	if done == 0 {
		t.Error("nothing was done: this proves nothing")
	}
}
