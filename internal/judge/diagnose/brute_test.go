package diagnose

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

// brute is the definition of a diagnosis, written a second time as plainly as
// possible: it looks at the world only, follows every path, and tries every set
// of candidates.
type brute struct {
	w       *world.World
	weights Weights
	specs   map[fettle.Code]*fettle.ConditionSpec
	known   []fettle.Subject
}

func newBrute(w *world.World, weights Weights, c fettle.Catalogue) *brute {
	b := &brute{w: w, weights: weights, specs: map[fettle.Code]*fettle.ConditionSpec{}}
	joined := fettle.Join([]fettle.Catalogue{c})[0]
	kinds := map[fettle.Kind]bool{}
	for i := range joined.Conditions {
		s := &joined.Conditions[i]
		b.specs[s.Code] = s
		kinds[s.Kind] = true
	}
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		b.known = append(b.known, w.Subjects(k)...)
	}
	return b
}

type key = fettle.ConditionKey

func (b *brute) cond(k key) fettle.Condition {
	c, _ := b.w.Condition(k)
	return c
}

// all lists every condition that is not known to be clear.
func (b *brute) all() (raised, supposed []key) {
	for _, s := range b.known {
		for _, code := range slices.Sorted(maps.Keys(b.specs)) {
			k := key{Code: code, Subject: s}
			if b.specs[code].Kind != s.Kind() {
				continue
			}
			switch b.cond(k).State {
			case fettle.Yes:
				raised = append(raised, k)
			case fettle.Unknown:
				supposed = append(supposed, k)
			}
		}
	}
	return raised, supposed
}

type bruteEdge struct {
	fettle.EffectOn
	to key
}

func (b *brute) effects(k key) []bruteEdge {
	var list []bruteEdge
	for _, e := range b.specs[k.Code].Effects {
		for _, s := range b.w.Related(k.Subject, e.Path) {
			to := key{Code: e.Condition, Subject: s}
			if s.Kind() == b.specs[e.Condition].Kind && to != k {
				list = append(list, bruteEdge{e, to})
			}
		}
	}
	return list
}

// soleHost is the one host behind a condition's evidence.
func soleHost(c fettle.Condition) fettle.Subject {
	hosts := map[fettle.Subject]bool{}
	for _, e := range c.Evidence {
		hosts[e.Observer.Host] = true
	}
	if len(hosts) != 1 {
		return ""
	}
	for h := range hosts {
		return h
	}
	return ""
}

// before reports whether u can have begun before w.
func (b *brute) before(u, w key) bool {
	cu, cw := b.cond(u), b.cond(w)
	if cu.LastClear.IsZero() {
		return true
	}
	end := cw.FirstSeen
	if h := soleHost(cu); h == "" || h != soleHost(cw) {
		end = end.Add(b.weights.ClockError)
	}
	return !cu.LastClear.After(end)
}

// brings reports whether a chain leads from u to the raised w with nothing but
// unseen links between.
func (b *brute) brings(u, w key) bool {
	if u == w || !b.before(u, w) {
		return false
	}
	seen := map[key]bool{u: true}
	todo := []key{u}
	for len(todo) > 0 {
		k := todo[0]
		todo = todo[1:]
		for _, e := range b.effects(k) {
			if e.to == w {
				return true
			}
			if seen[e.to] || e.Surely == fettle.Sometimes || b.cond(e.to).State != fettle.Unknown || !b.before(e.to, w) {
				continue
			}
			seen[e.to] = true
			todo = append(todo, e.to)
		}
	}
	return false
}

// absent counts the effects of u that were seen to be absent, over every path.
func (b *brute) absent(u key, onset time.Time) (alwaysAbsent, oftenAbsent int) {
	worst := map[key]fettle.Surely{}
	var follow func(k key, path []key, sure fettle.Surely, within time.Duration)
	follow = func(k key, path []key, sure fettle.Surely, within time.Duration) {
		for _, e := range b.effects(k) {
			if e.Surely == fettle.Sometimes || slices.Contains(path, e.to) {
				continue
			}
			s := sure
			if e.Surely == fettle.Often {
				s = fettle.Often
			}
			c := b.cond(e.to)
			switch c.State {
			case fettle.No:
				seen := c.LastClear
				for _, ev := range c.Evidence {
					if ev.Asked.After(seen) {
						seen = ev.Asked
					}
				}
				if !seen.IsZero() && !seen.Before(onset.Add(within+e.Within+b.weights.ClockError)) && worst[e.to] != fettle.Always {
					worst[e.to] = s
				}
			case fettle.Unknown:
				follow(e.to, append(slices.Clone(path), e.to), s, within+e.Within)
			}
		}
	}
	follow(u, []key{u}, fettle.Always, 0)
	for _, s := range worst {
		if s == fettle.Always {
			alwaysAbsent++
		} else {
			oftenAbsent++
		}
	}
	return alwaysAbsent, oftenAbsent
}

// solution is one explanation.
type solution struct {
	causes []key
	cost   int
}

// compareSolutions is the published order.
func compareSolutions(a, b solution) int {
	if a.cost != b.cost {
		return a.cost - b.cost
	}
	if len(a.causes) != len(b.causes) {
		return len(a.causes) - len(b.causes)
	}
	return slices.CompareFunc(a.causes, b.causes, key.Compare)
}

// solve tries every set of candidates, and returns those explanations that are
// within the margin of the best, in order; false when there are too many
// candidates to try.
func (b *brute) solve(most int) ([]solution, bool) {
	raised, unknown := b.all()
	brings := map[key][]key{}
	var candidates []key
	for _, u := range slices.Concat(raised, unknown) {
		for _, w := range raised {
			if b.brings(u, w) {
				brings[u] = append(brings[u], w)
			}
		}
		if len(brings[u]) > 0 || b.cond(u).Raised() {
			candidates = append(candidates, u)
		}
	}
	if len(candidates) > most {
		return nil, false
	}
	slices.SortFunc(candidates, key.Compare)
	price := make([]int, len(candidates))
	for i, u := range candidates {
		onset := b.cond(u).FirstSeen
		if !b.cond(u).Raised() {
			onset = time.Time{}
			for _, w := range brings[u] {
				if f := b.cond(w).FirstSeen; onset.IsZero() || f.Before(onset) {
					onset = f
				}
			}
		}
		always, often := b.absent(u, onset)
		against := b.weights.AbsentAlways*always + b.weights.AbsentOften*often
		price[i] = b.weights.Cause + b.weights.Layer*int(b.specs[u.Code].Layer-1)
		if b.cond(u).Raised() {
			price[i] += min(against, b.weights.AbsentObserved)
		} else {
			price[i] += b.weights.Supposed + against
		}
	}
	var found []solution
	best := -1
	for set := range 1 << len(candidates) {
		s := solution{}
		explained := map[key]bool{}
		var todo []key
		for i, u := range candidates {
			if set&(1<<i) != 0 {
				s.causes = append(s.causes, u)
				s.cost += price[i]
				todo = append(todo, u)
				explained[u] = true
			}
		}
		for len(todo) > 0 {
			for _, w := range brings[todo[0]] {
				if !explained[w] {
					explained[w] = true
					todo = append(todo, w)
				}
			}
			todo = todo[1:]
		}
		whole := true
		for _, w := range raised {
			whole = whole && explained[w]
		}
		if !whole {
			continue
		}
		found = append(found, s)
		if best < 0 || s.cost < best {
			best = s.cost
		}
	}
	found = slices.DeleteFunc(found, func(s solution) bool { return s.cost > best+b.weights.Margin })
	slices.SortFunc(found, compareSolutions)
	return found, true
}

// TestBruteForce compares small diagnoses with those of trying everything, in
// worlds with unknowns, loops, chains, onsets and clock errors.
func TestBruteForce(t *testing.T) {
	tried, unsettled, shared := 0, 0, 0
	check(t, func(t *rapid.T) {
		c := drawCatalogue(t, 2, number(t, 2, 6, "codes"), 10)
		subjects := drawSubjects(t, 2, number(t, 2, 4, "most"))
		w := drawWorld(t, &c, subjects)
		weights := DefaultWeights()
		weights.DoubtLeast = 1000 // nobody is doubted here
		weights.Alternatives = 1000
		weights.Supposed = pick(t, []int{1, 5, 15}, "supposed")
		weights.AbsentAlways = pick(t, []int{4, 16}, "absent")
		want, ok := newBrute(w, weights, c).solve(12)
		if !ok {
			return
		}
		d, err := New([]fettle.Catalogue{c}, weights)
		if err != nil {
			t.Fatal(err)
		}
		d.Load(w, at(100))
		got := solution{}
		listed := map[key]bool{}
		open := false
		for _, g := range d.Groups() {
			for _, cause := range g.Diagnosis.Causes {
				got.causes = append(got.causes, cause.ConditionKey)
				got.cost += cause.Cost
				listed[cause.ConditionKey] = true
				if !cause.Observed {
					shared++
				}
			}
			for _, a := range g.Diagnosis.Unsettled {
				open = true
				for _, k := range a.Causes {
					listed[k] = true
				}
			}
			if g.Diagnosis.Stopped != "" {
				t.Fatalf("stopped: %s", g.Diagnosis.Stopped)
			}
		}
		slices.SortFunc(got.causes, key.Compare)
		if compareSolutions(got, want[0]) != 0 {
			t.Fatalf("got  %v\nwant %v\n%s", got, want[0], printGroups(d.Groups()))
		}
		tried++
		if len(want) > 1 {
			unsettled++
		}
		if open != (len(want) > 1) {
			t.Fatalf("unsettled %v, but %d explanations are within the margin: %v\n%s", open, len(want), want, printGroups(d.Groups()))
		}
		// Whatever is in an explanation within the margin is named.
		for _, s := range want {
			for _, k := range s.causes {
				if !listed[k] {
					t.Fatalf("%v is in %v and is not listed\n%s", k, s, printGroups(d.Groups()))
				}
			}
		}
		checkAlternatives(t, d.Groups(), want)
	})
	t.Logf("%d worlds compared, %d of them unsettled, %d supposed causes", tried, unsettled, shared)
	if tried < 50 || unsettled < 10 || shared < 10 {
		t.Errorf("only %d worlds compared, %d unsettled, %d supposed causes: the worlds drawn are too plain", tried, unsettled, shared)
	}
}

// checkAlternatives puts each alternative of each group in the place of that
// group's causes: the whole must be one of the explanations that are wanted.
func checkAlternatives(t *rapid.T, groups []Group, want []solution) {
	for i, g := range groups {
		for _, a := range g.Diagnosis.Unsettled {
			s := solution{cost: a.Cost, causes: slices.Clone(a.Causes)}
			for j, other := range groups {
				if i == j {
					continue
				}
				s.cost += other.Diagnosis.Cost
				for _, c := range other.Diagnosis.Causes {
					s.causes = append(s.causes, c.ConditionKey)
				}
			}
			slices.SortFunc(s.causes, key.Compare)
			if !slices.ContainsFunc(want, func(x solution) bool { return compareSolutions(x, s) == 0 }) {
				t.Fatalf("alternative %v is no explanation within the margin of %v", s, want[0])
			}
		}
	}
}

func printGroups(groups []Group) string {
	out := ""
	for _, g := range groups {
		out += render(g)
	}
	return out
}

// render writes a group as people and fixtures read it.
func render(g Group) string {
	out := fmt.Sprintf("group %s, %d members, cost %d\n", g.Key, len(g.Members), g.Diagnosis.Cost)
	for _, c := range g.Diagnosis.Causes {
		what := "cause"
		if !c.Observed {
			what = "supposed cause"
		}
		if c.Code == "" {
			out += fmt.Sprintf("  %s: the observer %s, cost %d\n", what, c.Subject, c.Cost)
		} else {
			out += fmt.Sprintf("  %s: %s, cost %d\n", what, c.ConditionKey, c.Cost)
		}
		for _, s := range c.For {
			out += "    + " + s + "\n"
		}
		for _, s := range c.Against {
			out += "    - " + s + "\n"
		}
		for _, k := range c.Explains {
			out += "    > " + k.String() + "\n"
		}
	}
	for _, a := range g.Diagnosis.Unsettled {
		out += fmt.Sprintf("  or, cost %d: %v\n", a.Cost, a.Causes)
	}
	for _, l := range g.Diagnosis.Look {
		out += fmt.Sprintf("  look: %s %s\n", l.Probe, l.Subject)
	}
	for _, k := range g.Diagnosis.Ill {
		out += fmt.Sprintf("  ill: %s\n", k.Subject)
	}
	if g.Diagnosis.Stopped != "" {
		out += "  stopped: " + g.Diagnosis.Stopped + "\n"
	}
	return out
}
