package diagnose

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

// TestIncrementalEqualsScratch changes worlds step by step and compares what an
// old diagnoser makes of each step with what a new one makes of the whole; and
// what Update returned with what Groups shows.
func TestIncrementalEqualsScratch(t *testing.T) {
	check(t, func(t *rapid.T) {
		kinds := number(t, 1, 4, "kinds")
		c := drawCatalogue(t, kinds, number(t, kinds, 7, "codes"), 12)
		subjects := drawSubjects(t, kinds, 5)
		w := drawWorld(t, &c, subjects)
		weights := DefaultWeights()
		weights.Supposed = pick(t, []int{2, 15}, "supposed")
		weights.DoubtLeast = pick(t, []int{2, 3}, "doubt")
		weights.DoubtPermille = 300
		weights.Work = pick(t, []int{30, 200_000}, "work")
		cats := []fettle.Catalogue{c}
		d, err := New(cats, weights)
		if err != nil {
			t.Fatal(err)
		}
		told := map[fettle.ConditionKey]Group{}
		take := func(groups []Group) {
			for i, g := range groups {
				if i > 0 && groups[i-1].Key.Compare(g.Key) >= 0 {
					t.Fatalf("Update returned %v after %v", g.Key, groups[i-1].Key)
				}
				if g.Gone {
					delete(told, g.Key)
				} else {
					told[g.Key] = g
				}
			}
		}
		take(d.Load(w, at(60)))
		for step := range number(t, 1, 12, "steps") {
			var changed []fettle.Subject
			for range number(t, 1, 4, "changes") {
				s := pick(t, subjects, "subject")
				changed = append(changed, s)
				specs := specsOf(&c, s)
				switch k := number(t, 0, 5, "what"); {
				case k == 0:
					w.Observe(drawObservation(t, s, subjects, at(60+step)))
				case k == 1 && len(specs) > 0:
					w.DropCondition(fettle.ConditionKey{Code: pick(t, specs, "code").Code, Subject: s})
				case len(specs) > 0:
					w.SetCondition(drawCondition(t, pick(t, specs, "code"), s))
				}
			}
			if number(t, 0, 5, "load") == 0 {
				take(d.Load(w, at(60+step)))
			} else {
				take(d.Update(w, at(60+step), changed...))
			}
			checkAgainstScratch(t, d, cats, weights, w, told)
		}
	})
}

func checkAgainstScratch(t *rapid.T, d *Diagnoser, cats []fettle.Catalogue, weights Weights, w *world.World, told map[fettle.ConditionKey]Group) {
	t.Helper()
	fresh, err := New(cats, weights)
	if err != nil {
		t.Fatal(err)
	}
	fresh.Load(w, at(1000))
	got, want := printGroups(d.Groups()), printGroups(fresh.Groups())
	if got != want {
		t.Fatalf("step by step:\n%s\nfrom scratch:\n%s", got, want)
	}
	var kept []Group
	for _, g := range told {
		kept = append(kept, g)
	}
	slices.SortFunc(kept, func(a, b Group) int { return a.Key.Compare(b.Key) })
	if got := printGroups(kept); got != want {
		t.Fatalf("what Update told:\n%s\nGroups:\n%s", got, want)
	}
	for i, g := range d.Groups() {
		if !slices.Equal(g.Members, fresh.Groups()[i].Members) {
			t.Fatalf("members of %v: %v, from scratch %v", g.Key, g.Members, fresh.Groups()[i].Members)
		}
	}
	checkInside(t, d)
}

// TestForgets: subjects that come and go leave nothing behind.
func TestForgets(t *testing.T) {
	f := bigSwitchFleet(true)
	d := mustNew(t, f.catalogue)
	d.Load(f.w, epoch)
	before := printGroups(d.Groups())
	subjects, nodes, cands := len(d.subjects), len(d.nodes), len(d.cands)
	for i := range 2000 {
		s := fettle.NewSubject(fettle.KindUnit, "h0001", fmt.Sprintf("run-%d.scope", i))
		o := fettle.Observation{
			Subject: s, Host: "host:h0001", Probe: "f.unit", Asked: at(i),
			Edges: []fettle.Edge{{From: s, Rel: fettle.RunsOn, To: "host:h0001"}, {From: s, Rel: fettle.PartOf, To: "service:service1"}},
		}
		k := fettle.ConditionKey{Code: "f.unit_failed", Subject: s}
		f.w.Observe(o)
		f.w.SetCondition(fettle.Condition{ConditionKey: k, State: fettle.Yes, FirstSeen: at(i)})
		if got := d.Update(f.w, at(i), s); len(got) != 1 || !slices.Contains(got[0].Members, k) {
			t.Fatalf("Update returned:\n%s", printGroups(got))
		}
		o.Gone, o.Edges = true, nil
		f.w.DropCondition(k)
		f.w.Observe(o)
		d.Update(f.w, at(i), s)
	}
	if got := printGroups(d.Groups()); got != before {
		t.Errorf("the diagnosis is another:\n%s", got)
	}
	if s, n, c := len(d.subjects)-subjects, len(d.nodes)-nodes, len(d.cands)-cands; s > 2 || n > 10 || c > 10 {
		t.Errorf("after 2000 units came and went there is room for %d subjects, %d conditions and %d candidates more", s, n, c)
	}
}

// checkInside checks what must hold between the parts of a Diagnoser.
func checkInside(t *rapid.T, d *Diagnoser) {
	t.Helper()
	for i := range d.groups {
		for j, n := range d.groups[i].order {
			if j > 0 && d.compare(d.groups[i].order[j-1], n) >= 0 {
				t.Fatalf("group %d is not in order at %v", i, d.key(n))
			}
		}
	}
	for s, id := range d.ids {
		if d.subjects[id].name != s {
			t.Fatalf("subject %s has number %d of %s", s, id, d.subjects[id].name)
		}
	}
}
