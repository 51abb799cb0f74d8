package diagnose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"fettle/internal/fettle"
)

// diagnose states the diagnosis of a group.
func (d *Diagnoser) diagnose(g int32) Group {
	r := &d.groups[g]
	r.knots = r.knots[:0]
	own := d.tie(r)
	chosen := make([]int32, 0, len(own)+4*len(r.knots))
	for _, e := range own {
		chosen = append(chosen, e.first)
	}
	var stopped []string
	for i := range r.knots {
		k := &r.knots[i]
		chosen = k.causes(chosen, k.answer.choices[0])
		if k.answer.stopped {
			stopped = append(stopped, k.stopped(d.weights.Work))
		}
	}
	d.sortByPlace(chosen)
	out := Group{Members: make([]fettle.ConditionKey, len(r.order))}
	for i, n := range r.order {
		out.Members[i] = d.key(n)
		if out.Key == (fettle.ConditionKey{}) && d.nodes[n].state == raised {
			out.Key = out.Members[i]
		}
	}
	dg := &out.Diagnosis
	dg.Causes = make([]fettle.Cause, len(chosen))
	for i, n := range chosen {
		dg.Causes[i] = d.causeOf(g, n)
		dg.Cost += dg.Causes[i].Cost
	}
	dg.Stopped = strings.Join(stopped, "; ")
	swaps := d.swapsOf(r, own)
	for _, s := range swaps {
		dg.Unsettled = append(dg.Unsettled, d.alternative(dg.Cost, chosen, s))
	}
	dg.Look = d.looksOf(r, chosen, swaps)
	return out
}

func (d *Diagnoser) sortByPlace(nodes []int32) {
	slices.SortFunc(nodes, func(a, b int32) int { return cmp.Compare(d.place[a], d.place[b]) })
}

// causes appends the causes that a choice stands for.
func (k *knot) causes(to []int32, c choice) []int32 {
	for _, s := range c.sets {
		to = k.sets[s].causes(to)
	}
	return to
}

func (s *set) causes(to []int32) []int32 {
	if len(s.twins) > 0 {
		return append(to, s.twins[0])
	}
	for _, e := range s.elements {
		to = append(to, e.first)
	}
	return to
}

func (k *knot) stopped(work int) string {
	shared := 0
	for i := range k.sets {
		if len(k.sets[i].twins) > 0 {
			shared++
		}
	}
	return fmt.Sprintf("the search among %d shared causes stopped after %d steps: what was found costs %d, and nothing can cost less than %d",
		shared, work, k.answer.choices[0].cost, k.answer.least)
}

// causeOf states one chosen cause, or says again what was said of it before if
// nothing that goes into it has changed.
func (d *Diagnoser) causeOf(g, n int32) fettle.Cause {
	r := d.candOf(n)
	if r.said != nil && d.nodes[n].state == raised {
		return *r.said
	}
	explained := d.explainedBy(g, n)
	if r.said != nil && d.sameKeys(r.said.Explains, explained) {
		return *r.said
	}
	c := fettle.Cause{ConditionKey: d.key(n), Observed: d.nodes[n].state == raised, Cost: d.price(r)}
	if len(explained) > 0 {
		c.Explains = make([]fettle.ConditionKey, len(explained))
		for i, m := range explained {
			c.Explains[i] = d.key(m)
		}
	}
	c.For, c.Against = d.evidence(n, explained)
	d.candOf(n).said = &c
	return c
}

func (d *Diagnoser) sameKeys(keys []fettle.ConditionKey, nodes []int32) bool {
	return slices.EqualFunc(keys, nodes, func(k fettle.ConditionKey, n int32) bool { return k == d.key(n) })
}

// explainedBy returns the raised members of the group that follow from n, over
// as many steps as it takes, in order.
func (d *Diagnoser) explainedBy(g, n int32) []int32 {
	d.newMark()
	d.marked(n)
	found := append(d.chain[:0], n)
	for i := 0; i < len(found); i++ {
		for _, m := range d.candOf(found[i]).explains {
			if d.groupOf(m) == g && !d.marked(m) {
				found = append(found, m)
			}
		}
	}
	d.chain = found
	found = found[1:]
	if order := d.groups[g].order; len(found) > len(order)/8 {
		// Cheaper to go through all than to sort.
		at := 0
		for _, m := range order {
			if d.marks[m] == d.mark && m != n {
				found[at] = m
				at++
			}
		}
		return found
	}
	d.sortByPlace(found)
	return found
}
