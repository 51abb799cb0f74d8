// Package topology says where the hosts of a fleet stand: in which rack and zone,
// on which switches and power feeds. It is read from one file of the servers, so
// that a server knows it of every host in the register, also of one that it has not
// heard of yet: budgets count by rack from the first moment of a term, and a host
// that is silent is silent somewhere.
//
// It is data, and does not observe: that a host stands in a rack is a person's
// word. Its invariants: what a file cannot mean is an error with its place, and the
// answer for a host depends on the file and the host's label alone.
package topology

import (
	"path"
	"slices"

	"fettle/internal/fettle"
)

// Topology is what a file says. The zero Topology places no host.
type Topology struct {
	entries []entry
}

type entry struct {
	hosts []string // patterns of path.Match
	place Place
}

// Place is where one host stands. What is not known is empty.
type Place struct {
	Zone, Rack string
	Switches   []string // sorted
	Power      []string // feeds, sorted
}

// Of returns where the host with this label stands. Each thing is taken from the last
// entry that matches the host and says something of it.
func (t Topology) Of(label string) Place {
	var p Place
	for _, e := range t.entries {
		if !slices.ContainsFunc(e.hosts, func(pattern string) bool { ok, _ := path.Match(pattern, label); return ok }) {
			continue
		}
		if e.place.Zone != "" {
			p.Zone = e.place.Zone
		}
		if e.place.Rack != "" {
			p.Rack = e.place.Rack
		}
		if e.place.Switches != nil {
			p.Switches = e.place.Switches
		}
		if e.place.Power != nil {
			p.Power = e.place.Power
		}
	}
	return p
}

// Empty reports whether nothing is known of the place.
func (p Place) Empty() bool {
	return p.Zone == "" && p.Rack == "" && len(p.Switches) == 0 && len(p.Power) == 0
}

// RackSubject is the rack, "" where none is known. Racks of two zones that have one
// name are two.
func (p Place) RackSubject() fettle.Subject {
	switch {
	case p.Rack == "":
		return ""
	case p.Zone == "":
		return fettle.NewSubject(fettle.KindRack, p.Rack)
	}
	return fettle.NewSubject(fettle.KindRack, p.Zone, p.Rack)
}

// ZoneSubject is the zone, "" where none is known.
func (p Place) ZoneSubject() fettle.Subject {
	if p.Zone == "" {
		return ""
	}
	return fettle.NewSubject(fettle.KindZone, p.Zone)
}

// Edges places a host in the graph: in its rack, or in its zone where no rack is
// known, the rack in its zone, and the host on its switches and feeds. A host is not
// in its zone directly where it is in a rack: its failure domain, for budgets, is
// the smallest one.
func (p Place) Edges(host fettle.Subject) []fettle.Edge {
	var edges []fettle.Edge
	rack, zone := p.RackSubject(), p.ZoneSubject()
	switch {
	case rack != "":
		edges = append(edges, fettle.Edge{From: host, Rel: fettle.In, To: rack})
		if zone != "" {
			edges = append(edges, fettle.Edge{From: rack, Rel: fettle.In, To: zone})
		}
	case zone != "":
		edges = append(edges, fettle.Edge{From: host, Rel: fettle.In, To: zone})
	}
	for _, s := range p.Switches {
		edges = append(edges, fettle.Edge{From: host, Rel: fettle.Uses, To: fettle.NewSubject(fettle.KindSwitch, s)})
	}
	for _, s := range p.Power {
		edges = append(edges, fettle.Edge{From: host, Rel: fettle.Uses, To: fettle.NewSubject(fettle.KindPower, s)})
	}
	return edges
}

// Shared lists everything that a host at this place shares with others: rack, zone,
// switches and feeds, sorted.
func (p Place) Shared() []fettle.Subject {
	var list []fettle.Subject
	for _, s := range []fettle.Subject{p.RackSubject(), p.ZoneSubject()} {
		if s != "" {
			list = append(list, s)
		}
	}
	for _, s := range p.Switches {
		list = append(list, fettle.NewSubject(fettle.KindSwitch, s))
	}
	for _, s := range p.Power {
		list = append(list, fettle.NewSubject(fettle.KindPower, s))
	}
	slices.Sort(list)
	return slices.Compact(list)
}
