package diagnose

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

// epoch is when every test's story begins.
var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }

var (
	allSure = []fettle.Surely{fettle.Always, fettle.Often, fettle.Sometimes}
	// Mostly one relation, or the paths drawn would lead nowhere.
	allRels = []fettle.Relation{fettle.Uses, fettle.Uses, fettle.Uses, fettle.RunsOn, fettle.PartOf, fettle.In}
)

// check checks a property of a thousand worlds.
func check(t *testing.T, property func(*rapid.T)) {
	for range 10 {
		rapid.Check(t, property)
	}
}

// number draws from a range evenly: rapid's own ranges and samples prefer what
// is small, and small worlds have nothing in common. It draws bits, so that
// shrinking still finds small ones.
func number(t *rapid.T, least, most int, label string) int {
	n := 0
	for span := 1; span <= 4*(most-least); span *= 2 {
		n *= 2
		if rapid.Bool().Draw(t, label) {
			n++
		}
	}
	return least + n%(most-least+1)
}

// pick draws one of a list evenly.
func pick[T any](t *rapid.T, list []T, label string) T {
	return list[number(t, 0, len(list)-1, label)]
}

// drawCatalogue draws causal knowledge: a few kinds, a few conditions of each,
// any edges between them, loops among them.
func drawCatalogue(t *rapid.T, kinds, codes, edges int) fettle.Catalogue {
	c := fettle.Catalogue{Adapter: "x"}
	for i := range codes {
		probe := ""
		if i%3 != 2 {
			probe = fmt.Sprintf("x.p%d", i)
		}
		c.Conditions = append(c.Conditions, fettle.ConditionSpec{
			Code: fettle.Code(fmt.Sprintf("x.c%d", i)),
			Kind: fettle.Kind(fmt.Sprintf("k%d", i%kinds)), Probe: probe,
			Layer:    fettle.Layer(number(t, 1, 7, "layer")),
			Severity: pick(t, []fettle.Severity{fettle.Critical, fettle.Warning}, "severity"),
		})
	}
	paths := []fettle.Path{fettle.Self, ">uses", "<uses", "<uses", ">runs-on", "<uses <uses", "<uses >in", ">part-of <part-of <uses"}
	for range number(t, edges/2, edges, "edges") {
		from := number(t, 0, codes-1, "from")
		e := fettle.EffectOn{
			Condition: c.Conditions[number(t, 0, codes-1, "to")].Code,
			Path:      pick(t, paths, "path"),
			Surely:    pick(t, allSure, "surely"),
			Within:    time.Duration(number(t, 0, 20, "within")) * time.Second,
		}
		if e.Condition == c.Conditions[from].Code && e.Path == fettle.Self {
			continue
		}
		if rapid.Bool().Draw(t, "other end") {
			to, _ := c.FindCondition(e.Condition)
			to.CausedBy = append(to.CausedBy, fettle.EffectOn{Condition: c.Conditions[from].Code, Path: e.Path.Reverse(), Surely: e.Surely, Within: e.Within})
		} else {
			c.Conditions[from].Effects = append(c.Conditions[from].Effects, e)
		}
	}
	return c
}

// drawSubjects names some subjects of each kind.
func drawSubjects(t *rapid.T, kinds, most int) []fettle.Subject {
	var list []fettle.Subject
	for k := range kinds {
		for i := range number(t, 1+most/2, most, "subjects") {
			list = append(list, fettle.NewSubject(fettle.Kind(fmt.Sprintf("k%d", k)), fmt.Sprintf("r%d", i%2), fmt.Sprintf("s%d", i)))
		}
	}
	return list
}

func drawHost(t *rapid.T) fettle.Subject {
	return fettle.HostSubject(pick(t, []string{"r0", "h1", "h2", "h3"}, "host"))
}

// drawObservation draws what one host sees of a subject, with some edges.
func drawObservation(t *rapid.T, s fettle.Subject, subjects []fettle.Subject, when time.Time) fettle.Observation {
	o := fettle.Observation{Subject: s, Host: drawHost(t), Probe: "x.p", Asked: when}
	o.Reason = pick(t, []fettle.Reason{"", "", "", fettle.Unreachable, fettle.TimedOut, fettle.PermissionDenied}, "reason")
	o.Gone = number(t, 0, 9, "gone") == 0
	for range number(t, 0, 4, "edges") {
		e := fettle.Edge{
			From: s, To: pick(t, subjects[:number(t, 1, len(subjects), "hub")], "to"), // some are shared by most
			Rel: pick(t, allRels, "rel"),
		}
		if number(t, 0, 4, "turned") == 0 {
			e.From, e.To = e.To, e.From
		}
		o.Edges = append(o.Edges, e)
	}
	return o
}

// drawCondition draws a condition's state.
func drawCondition(t *rapid.T, spec *fettle.ConditionSpec, s fettle.Subject) fettle.Condition {
	c := fettle.Condition{
		ConditionKey: fettle.ConditionKey{Code: spec.Code, Subject: s},
		State:        pick(t, []fettle.Tri{fettle.Yes, fettle.Yes, fettle.Yes, fettle.No, fettle.No, fettle.Unknown}, "state"),
	}
	lastClear := number(t, 0, 40, "last clear")
	if lastClear%3 == 0 || c.State == fettle.No {
		c.LastClear = at(lastClear)
	}
	if c.State == fettle.Yes {
		c.FirstSeen = at(lastClear + number(t, 0, 20, "first seen"))
		c.Since = c.FirstSeen
	}
	for range number(t, 0, 2, "observers") {
		c.Evidence = append(c.Evidence, fettle.Evidence{Observer: fettle.Observer{Host: drawHost(t), Probe: spec.Probe}, Asked: c.LastClear, Says: c.State})
	}
	return c
}

// specsOf returns the conditions that can befall a subject.
func specsOf(c *fettle.Catalogue, s fettle.Subject) []*fettle.ConditionSpec {
	var list []*fettle.ConditionSpec
	for i := range c.Conditions {
		if c.Conditions[i].Kind == s.Kind() {
			list = append(list, &c.Conditions[i])
		}
	}
	return list
}

// drawWorld draws a small world.
func drawWorld(t *rapid.T, c *fettle.Catalogue, subjects []fettle.Subject) *world.World {
	w := world.New()
	for _, s := range subjects {
		w.Observe(drawObservation(t, s, subjects, epoch))
		for _, spec := range specsOf(c, s) {
			if number(t, 0, 3, "judged") > 0 {
				w.SetCondition(drawCondition(t, spec, s))
			}
		}
	}
	return w
}
