package world_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

// randomly changes something in a small world.
func randomly(w *world.World, rng *rand.Rand, at time.Time) {
	unit := func() fettle.Subject {
		return fettle.NewSubject(fettle.KindUnit, fmt.Sprint("h", rng.IntN(2)), fmt.Sprint("u", rng.IntN(3)))
	}
	host := func() fettle.Subject { return fettle.HostSubject(fmt.Sprint("h", rng.IntN(2))) }
	key := fettle.ConditionKey{Code: fettle.Code(fmt.Sprint("c", rng.IntN(2))), Subject: unit()}
	switch rng.IntN(6) {
	case 0:
		w.SetCondition(fettle.Condition{ConditionKey: key, State: fettle.Tri(rng.IntN(3) - 1), FirstSeen: at.Add(-time.Duration(rng.IntN(2)) * time.Second)})
	case 1:
		w.DropCondition(key)
	default:
		s := unit()
		o := fettle.Observation{Subject: s, Host: host(), Probe: "p", Asked: at, Gone: rng.IntN(6) == 0}
		if rng.IntN(5) == 0 {
			o.Reason = fettle.TimedOut
		} else {
			o.Facts = fettle.Facts{"x": int64(rng.IntN(3))}
			o.Quorum = &fettle.QuorumGroup{Members: []fettle.QuorumMember{{Subject: unit(), Serving: fettle.Yes, Voter: true}}}
		}
		for range rng.IntN(3) {
			o.Edges = append(o.Edges, fettle.Edge{From: s, Rel: []fettle.Relation{fettle.Uses, fettle.RunsOn}[rng.IntN(2)], To: unit()})
		}
		w.Observe(o)
	}
}

// TestTraceKnowsWhatItReads: an answer is another only where one of those that it was
// said to hang on is among what moved; and what turned, or rose, is told.
func TestTraceKnowsWhatItReads(t *testing.T) {
	changed := 0
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := world.New()
		w.Follow()
		start := time.Unix(1_800_000_000, 0)
		type question func(world.View) any
		var ask []question
		for h := range 2 {
			for u := range 3 {
				s := fettle.NewSubject(fettle.KindUnit, fmt.Sprint("h", h), fmt.Sprint("u", u))
				ask = append(ask,
					func(v world.View) any { return []any{v.Facts(s), v.FactsBy(s, "p"), v.Observations(s)} },
					func(v world.View) any { at, ok := v.Asked(s, "x"); return []any{at, ok} },
					func(v world.View) any { return v.Related(s, ">uses <runs-on") },
					func(v world.View) any { return v.Related(s, "<uses") },
					func(v world.View) any { g, ok := v.Quorum(s, start.Add(5*time.Second)); return []any{g, ok} },
					func(v world.View) any {
						c, ok := v.Condition(fettle.ConditionKey{Code: "c0", Subject: s})
						return []any{c, ok, v.ConditionsOf(s)}
					},
				)
			}
		}
		answer := func(q question) (any, []fettle.Subject) {
			tr := w.Traced()
			got := q(tr)
			read, only := tr.Read()
			if !only {
				t.Fatal("it hangs on more than subjects")
			}
			return got, slices.Clone(read)
		}
		for i := range 60 {
			var before []any
			var reads [][]fettle.Subject
			for _, q := range ask {
				a, read := answer(q)
				before, reads = append(before, a), append(reads, read)
			}
			raised := w.Raised()
			w.Moves()
			randomly(w, rng, start.Add(time.Duration(i)*time.Second))
			m := w.Moves()
			for n, q := range ask {
				now, _ := answer(q)
				if reflect.DeepEqual(before[n], now) {
					continue
				}
				changed++
				if !slices.ContainsFunc(reads[n], func(s fettle.Subject) bool { return slices.Contains(m.Subjects, s) }) {
					t.Fatalf("seed %d, change %d: question %d was %v, is %v; it read %v, and what moved is %v", seed, i, n, before[n], now, reads[n], m.Subjects)
				}
			}
			for _, c := range w.Raised() {
				known := slices.ContainsFunc(raised, func(was fettle.Condition) bool {
					return was.ConditionKey == c.ConditionKey && was.FirstSeen.Equal(c.FirstSeen)
				})
				if !known && !slices.Contains(m.Risen, c.ConditionKey) {
					t.Fatalf("seed %d, change %d: %s rose, and is not among %v", seed, i, c, m.Risen)
				}
			}
		}
	}
	if changed < 500 {
		t.Errorf("%d answers changed: this proves nothing", changed)
	}
}

func TestTraceOfAll(t *testing.T) {
	tr := world.New().Traced()
	tr.Subjects(fettle.KindHost)
	if _, only := tr.Read(); only {
		t.Error("which hosts there are hangs on no subject")
	}
}
