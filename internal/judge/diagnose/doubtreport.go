package diagnose

import (
	"fmt"
	"maps"
	"slices"

	"fettle/internal/fettle"
)

// doubtGroups states which observers are ill, together with the conditions that
// rest on their word alone: each of those that share one is in one group. Their
// causes are the observers, under the empty code, since that an observer is ill
// is nothing that a catalogue declares. Their conditions are causes nowhere.
func (d *Diagnoser) doubtGroups() []Group {
	joined := map[int32]int32{} // ill observers, to one of their group
	var root func(h int32) int32
	root = func(h int32) int32 {
		if joined[h] == h {
			return h
		}
		return root(joined[h])
	}
	var ill []int32
	for h := range d.watch.hosts {
		if d.watch.hosts[h].ill {
			ill = append(ill, int32(h))
			joined[int32(h)] = int32(h)
		}
	}
	nodes := slices.Sorted(maps.Keys(d.watch.doubts))
	slices.SortFunc(nodes, d.compare)
	for _, n := range nodes {
		yes := d.nodes[n].yes
		for _, h := range yes[1:] {
			joined[root(h)] = root(yes[0])
		}
	}
	slices.SortFunc(ill, func(a, b int32) int {
		return observerKey(&d.watch.hosts[a]).Compare(observerKey(&d.watch.hosts[b]))
	})
	byRoot := map[int32]int{}
	var groups []Group
	members := map[int32][]int32{}
	for _, n := range nodes {
		r := root(d.nodes[n].yes[0])
		members[r] = append(members[r], n)
	}
	for _, h := range ill {
		r := root(h)
		i, ok := byRoot[r]
		if !ok {
			i = len(groups)
			byRoot[r] = i
			groups = append(groups, Group{Key: observerKey(&d.watch.hosts[h])})
			for _, n := range members[r] {
				groups[i].Members = append(groups[i].Members, d.key(n))
			}
			groups[i].Diagnosis.Look = d.looksAt(members[r], false)
		}
		g := &groups[i]
		g.Diagnosis.Ill = append(g.Diagnosis.Ill, observerKey(&d.watch.hosts[h]))
		g.Diagnosis.Causes = append(g.Diagnosis.Causes, d.illObserver(h, members[r]))
		g.Diagnosis.Cost += d.weights.Cause
	}
	return groups
}

func observerKey(h *observer) fettle.ConditionKey { return fettle.ConditionKey{Subject: h.host} }

func (d *Diagnoser) illObserver(h int32, doubted []int32) fettle.Cause {
	o := &d.watch.hosts[h]
	c := fettle.Cause{
		ConditionKey: observerKey(o), Observed: true, Cost: d.weights.Cause,
		For: []string{fmt.Sprintf("of the %d things that %s looks at elsewhere, %d seem dead to it, and of these nobody else says so",
			o.looked, o.host, o.alone)},
	}
	for _, n := range doubted {
		if slices.Contains(d.nodes[n].yes, h) {
			c.Explains = append(c.Explains, d.key(n))
		}
	}
	if len(c.Explains) > 0 {
		c.For = append(c.For, plural(len(c.Explains), "condition")+" rest on nothing but the word of observers in this state")
	}
	return c
}
