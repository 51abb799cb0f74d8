package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// evidence says in sentences what speaks for a chosen cause and what against it.
// explained are the raised conditions that it explains, in order.
func (d *Diagnoser) evidence(n int32, explained []int32) (pro, against []string) {
	if d.nodes[n].state == raised {
		pro, against = d.seenEvidence(n, explained)
	} else {
		pro = append(pro, fmt.Sprintf("it would account for %s at once", d.countSubjects(explained)))
		against = append(against, "nobody sees it: it is supposed")
	}
	if c := d.candOf(n); c.always+c.often > 0 {
		if c.absent == nil {
			c.absent = d.sayAbsent(d.nodes[n].cand)
		}
		against = append(against, c.absent...)
	}
	return pro, against
}

// sayAbsent says which effects of a candidate were seen to be absent.
func (d *Diagnoser) sayAbsent(c int32) (against []string) {
	var byAlways, byOften []int32
	d.count(c, func(z int32, a absence) {
		if a == alwaysAbsent {
			byAlways = append(byAlways, z)
		} else {
			byOften = append(byOften, z)
		}
	})
	against = d.say(against, byAlways, "%s should always follow and was seen to be absent", "%s should always follow and were seen to be absent")
	return d.say(against, byOften, "%s should often follow and was seen to be absent", "%s should often follow and were seen to be absent")
}

// seenEvidence is the evidence about a cause that is raised.
func (d *Diagnoser) seenEvidence(n int32, explained []int32) (pro, against []string) {
	pro = append(pro, "it is raised"+d.seenBy(n))
	if len(explained) > 0 {
		pro = append(pro, "it explains "+d.countSubjects(explained))
		began := ever
		for _, m := range explained {
			began = min(began, d.nodes[m].after)
		}
		if before := d.nodes[n].before; began != never && before < began {
			pro = append(pro, fmt.Sprintf("it was there at least %v before the first of them", time.Duration(began-before)))
		}
	}
	cleared, younger := d.ruledOut(n)
	pro = d.say(pro, cleared, "%s could have brought it about and is known to be clear", "%s could have brought it about and are known to be clear")
	pro = d.say(pro, younger, "%s could have brought it about and began after it", "%s could have brought it about and began after it")
	early, late := d.untimely(n)
	against = d.say(against, early, "%s could follow from it and began before it", "%s could follow from it and began before it")
	against = d.say(against, late, "%s follows from it and began later than it should", "%s follow from it and began later than they should")
	return pro, against
}

func (d *Diagnoser) seenBy(n int32) string {
	var hosts []string
	own := false
	for _, h := range d.nodes[n].yes {
		if o := &d.watch.hosts[h]; d.standsOn(d.nodes[n].subj, o.root) {
			own = true
		} else {
			hosts = append(hosts, string(o.host))
		}
	}
	slices.Sort(hosts)
	if own {
		hosts = append([]string{"its own machine"}, hosts...)
	}
	switch len(hosts) {
	case 0:
		return ""
	case 1, 2, 3:
		return ", seen by " + strings.Join(hosts, ", ")
	}
	return fmt.Sprintf(", seen by %s and %d others", strings.Join(hosts[:2], ", "), len(hosts)-2)
}

// ruledOut returns the conditions that could have brought n about by one edge,
// but are clear, or began surely later.
func (d *Diagnoser) ruledOut(n int32) (cleared, younger []int32) {
	for _, e := range d.specs[d.nodes[n].spec].causes {
		for _, s := range d.walk(nil, d.nodes[n].subj, e.hops) {
			u := d.find(s, e.spec)
			if u == none || u == n || d.subjects[s].kind != d.specs[e.spec].kind {
				continue
			}
			switch d.nodes[u].state {
			case clear_:
				cleared = append(cleared, u)
			case raised:
				if !d.mayPrecede(&d.nodes[u], &d.nodes[n]) {
					younger = append(younger, u)
				}
			case unknown:
			}
		}
	}
	return cleared, younger
}

// untimely returns the raised conditions that n could bring about by one edge,
// but that began before it, or later than the edge allows.
func (d *Diagnoser) untimely(n int32) (early, late []int32) {
	c := &d.nodes[n]
	for _, e := range d.specs[c.spec].effects {
		d.walked = d.walk(d.walked[:0], c.subj, e.hops)
		for _, s := range d.walked {
			z := d.find(s, e.spec)
			if z == none || z == n || d.nodes[z].state != raised || d.subjects[s].kind != d.specs[e.spec].kind {
				continue
			}
			if !d.mayPrecede(c, &d.nodes[z]) {
				early = append(early, z)
			} else if c.before != ever && e.within > 0 && d.nodes[z].after > later(later(c.before, e.within), d.slack) {
				late = append(late, z)
			}
		}
	}
	return early, late
}

// say appends a sentence about some conditions, naming the first three.
func (d *Diagnoser) say(to []string, nodes []int32, oneSays, manySay string) []string {
	slices.SortFunc(nodes, d.compare)
	nodes = slices.Compact(nodes)
	if len(nodes) == 0 {
		return to
	}
	names := make([]string, 0, 3)
	for _, n := range nodes[:min(3, len(nodes))] {
		names = append(names, d.key(n).String())
	}
	text := strings.Join(names, ", ")
	if more := len(nodes) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if len(nodes) == 1 {
		return append(to, fmt.Sprintf(oneSays, text))
	}
	return append(to, fmt.Sprintf(manySay, text))
}

// countSubjects says how many conditions these are, on how many subjects.
func (d *Diagnoser) countSubjects(nodes []int32) string {
	subjects := 0
	last := none
	for _, n := range nodes { // sorted by subject
		if at := d.nodes[n].subj; at != last {
			last = at
			subjects++
		}
	}
	return fmt.Sprintf("%s on %s", plural(len(nodes), "other condition"), plural(subjects, "subject"))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
