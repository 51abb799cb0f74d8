package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
)

// cellar is an executor that sees what needs root, until it is away.
type cellar struct {
	executor.Hands
	away bool
	told chan uint64
}

func (c *cellar) Look(_ context.Context, from executor.Outlook, subjects ...fettle.Subject) ([]fettle.Observation, error) {
	if c.away {
		return nil, fmt.Errorf("%w: connection refused", executor.ErrAway)
	}
	if len(subjects) == 0 {
		subjects = []fettle.Subject{"cellar:h1/a", "cellar:h1/b"}
	}
	var out []fettle.Observation
	for _, s := range subjects { // asked for in the past, on a clock of its own
		out = append(out, fettle.Observation{Subject: s, Asked: time.Now().Add(-time.Hour), Took: time.Hour, Facts: fettle.Facts{"of": from.Conf + " " + from.Probe}})
	}
	return out, nil
}

func (c *cellar) Changed(ctx context.Context, _ executor.Outlook, known uint64) (uint64, error) {
	select {
	case n := <-c.told:
		if n == 0 {
			return 0, errors.New("the pipe burst")
		}
		return n, nil
	case <-time.After(time.Second):
		return known, nil
	case <-ctx.Done():
		return known, ctx.Err()
	}
}

type stairs struct{ fettle.Instance }

func (stairs) Probes() []fettle.Probe {
	return []fettle.Probe{step{fettle.ProbeSpec{Name: "cellar.damp", Root: true}}, step{fettle.ProbeSpec{Name: "cellar.door"}}}
}

func (stairs) Watchers() []fettle.Watcher {
	return []fettle.Watcher{step{fettle.ProbeSpec{Name: "cellar.damp", Root: true}}}
}

type step struct{ spec fettle.ProbeSpec }

func (s step) Spec() fettle.ProbeSpec { return s.spec }
func (step) Observe(context.Context, ...fettle.Subject) []fettle.Observation {
	return []fettle.Observation{{Subject: "cellar:h1/door"}}
}

func (step) Watch(context.Context, func(fettle.Observation)) error {
	return errors.New("there is no root here")
}

// An agent without root has its executor look at what needs it, and takes only its own
// clock's word on when that was asked for. An executor that is away makes nothing gone.
func TestAsksTheExecutor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cellar{told: make(chan uint64)}
		in := rooted{stairs{}, "cellar-1", c, bubble{}}
		list := in.Probes()
		if got := list[1].Observe(t.Context()); len(got) != 1 || got[0].Subject != "cellar:h1/door" {
			t.Errorf("a probe that needs no root was asked elsewhere: %+v", got)
		}
		damp := list[0]
		for _, o := range damp.Observe(t.Context()) {
			if !o.Known() || !o.Asked.Equal(time.Now()) || o.Took != 0 || o.Facts["of"] != "cellar-1 cellar.damp" {
				t.Errorf("%+v", o)
			}
		}
		c.away = true
		for _, of := range [][]fettle.Subject{nil, {"cellar:h1/a", "cellar:h1/b"}} {
			got := damp.Observe(t.Context(), of...)
			if len(got) != 2 || slices.ContainsFunc(got, func(o fettle.Observation) bool { return o.Known() || o.Reason != fettle.Failed }) {
				t.Errorf("the executor is away, and of %v it says %+v", of, got)
			}
		}
		c.away = false
		var seen []fettle.Subject
		ended := make(chan error, 1)
		go func() {
			ended <- in.Watchers()[0].Watch(t.Context(), func(o fettle.Observation) { seen = append(seen, o.Subject) })
		}()
		c.told <- 7
		synctest.Wait()
		<-time.After(10 * time.Second) // of the bubble; nothing is told meanwhile
		c.told <- 8
		synctest.Wait()
		if want := []fettle.Subject{"cellar:h1/a", "cellar:h1/b", "cellar:h1/a", "cellar:h1/b"}; !slices.Equal(seen, want) {
			t.Errorf("told twice, it emitted %v", seen)
		}
		c.told <- 0
		if err := <-ended; err == nil {
			t.Error("the watcher broke, and nobody was told")
		}
	})
}
