package world

import (
	"maps"
	"time"

	"fettle/internal/fettle"
)

// Overlay is a View that predicts: what it was told overrides what is known.
type Overlay struct {
	View
	facts  map[fettle.Subject]fettle.Facts
	quorum map[fettle.Subject]fettle.QuorumGroup
	set    map[fettle.Subject]fettle.Facts // those of facts that were predicted, not taken over
	hidden map[fettle.Subject]map[string]bool
	extra  []fettle.Claim
}

// Over returns an overlay that predicts nothing yet.
func Over(v View) *Overlay {
	return &Overlay{View: v, facts: map[fettle.Subject]fettle.Facts{}, quorum: map[fettle.Subject]fettle.QuorumGroup{},
		set: map[fettle.Subject]fettle.Facts{}, hidden: map[fettle.Subject]map[string]bool{}}
}

// SetFact predicts one fact.
func (o *Overlay) SetFact(s fettle.Subject, name string, v fettle.Value) {
	o.own(s)[name] = v
	if o.set[s] == nil {
		o.set[s] = fettle.Facts{}
	}
	o.set[s][name] = v
	delete(o.hidden[s], name)
}

// HideFact predicts that a fact will change, to what is not known yet.
func (o *Overlay) HideFact(s fettle.Subject, name string) {
	delete(o.own(s), name)
	if o.hidden[s] == nil {
		o.hidden[s] = map[string]bool{}
	}
	o.hidden[s][name] = true
}

func (o *Overlay) own(s fettle.Subject) fettle.Facts {
	f, ok := o.facts[s]
	if !ok {
		f = o.View.Facts(s).Clone()
		if f == nil {
			f = fettle.Facts{}
		}
		o.facts[s] = f
	}
	return f
}

// SetQuorum predicts a group.
func (o *Overlay) SetQuorum(s fettle.Subject, g fettle.QuorumGroup) { o.quorum[s] = g.Clone() }

// Claim adds a claim.
func (o *Overlay) Claim(c ...fettle.Claim) { o.extra = append(o.extra, c...) }

// Facts implements View.
func (o *Overlay) Facts(s fettle.Subject) fettle.Facts {
	if f, ok := o.facts[s]; ok {
		return f
	}
	return o.View.Facts(s)
}

// FactsBy implements View. A predicted fact counts for every probe.
func (o *Overlay) FactsBy(s fettle.Subject, probe string) fettle.Facts {
	f := o.View.FactsBy(s, probe)
	if len(o.set[s])+len(o.hidden[s]) == 0 {
		return f
	}
	if f = f.Clone(); f == nil {
		f = fettle.Facts{}
	}
	maps.Insert(f, maps.All(o.set[s]))
	// any order: each is taken out by itself
	for k := range o.hidden[s] {
		delete(f, k)
	}
	return f
}

// Asked implements View. What is hidden is not known.
func (o *Overlay) Asked(s fettle.Subject, names ...string) (time.Time, bool) {
	for _, name := range names {
		if o.hidden[s][name] {
			return time.Time{}, false
		}
	}
	return o.View.Asked(s, names...)
}

// Quorum implements View. A predicted group is as fresh as any.
func (o *Overlay) Quorum(s fettle.Subject, since time.Time) (fettle.QuorumGroup, bool) {
	if g, ok := o.quorum[s]; ok {
		return g.Clone(), true
	}
	return o.View.Quorum(s, since)
}

// Claims implements View.
func (o *Overlay) Claims() []fettle.Claim {
	return append(o.View.Claims(), o.extra...)
}
