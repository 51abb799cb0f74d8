package loop_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/loop"
)

// TestSurveyLooksAgain: what must hold for three seconds is raised by a patient
// survey, which goes on looking; one look alone, or an ill that has gone by the
// next, does not raise it. However long the patience, what was seen does not
// grow too old to be known.
func TestSurveyLooksAgain(t *testing.T) {
	down := fettle.ConditionKey{Code: "etcd.member_down", Subject: "etcd-member:sys/a"}
	for _, c := range []struct {
		name     string
		patience time.Duration
		answers  func(look int) bool
		want     fettle.Tri
	}{
		{"one look", 0, func(int) bool { return false }, fettle.Unknown},
		{"patient", 5 * time.Second, func(int) bool { return false }, fettle.Yes},
		{"very patient", time.Minute, func(int) bool { return false }, fettle.Yes},
		{"it came back", time.Minute, func(look int) bool { return look > 1 }, fettle.No},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMind(t, fettle.Policy{})
				begin, looks := time.Now(), 0
				look := func(context.Context) []fettle.Observation {
					looks++
					return []fettle.Observation{{
						Subject: down.Subject, Host: "host:h1", Probe: "etcd.member", Asked: time.Now(), Facts: fettle.Facts{"answers": c.answers(looks)},
						Edges: []fettle.Edge{{From: down.Subject, Rel: fettle.PartOf, To: "etcd:sys"}},
					}}
				}
				wait := func(ctx context.Context, d time.Duration) error {
					select {
					case <-time.After(d):
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				seen, err := loop.Survey(t.Context(), m, newPretend(t, ""), time.Now, wait, look, c.patience)
				if err != nil {
					t.Fatal(err)
				}
				if got, _ := m.View().Condition(down); got.State != c.want {
					t.Errorf("after %d looks in %v it is raised: %v, want %v", looks, time.Since(begin), got.State, c.want)
				}
				if age := time.Since(seen[0].Asked); age > c.patience {
					t.Errorf("what it returns is %v old", age)
				}
				if c.patience == 0 && looks != 1 || c.patience > 0 && looks < 2 || looks > 100 {
					t.Errorf("it looked %d times", looks)
				}
			})
		})
	}
}
