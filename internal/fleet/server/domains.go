package server

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/member"
	"fettle/internal/fleet/topology"
)

// PlaceProbe is the probe under which the server says where hosts stand, and
// DomainProbe that under which it counts whom of a rack, zone, switch or feed it
// hears.
const (
	PlaceProbe  = "fettle.place"
	DomainProbe = "fettle.domain"
)

// placed is where a host stands and under which label that was found.
type placed struct {
	label string
	place topology.Place
}

// place is the observation of where the host stands, the first time in a term and
// when its label changed: the graph is read anew from it, which costs more than the
// rest. None where nothing is known of it. mu is held.
func (h *host) place() []fettle.Observation {
	now := placed{h.label, h.s.o.Topology.Of(h.label)}
	if h.placed != nil && reflect.DeepEqual(*h.placed, now) || h.placed == nil && now.place.Empty() {
		return nil
	}
	h.placed = &now
	p := now.place
	facts := fettle.Facts{"zone": p.Zone, "rack": p.Rack, "switches": list(p.Switches), "power": list(p.Power)}
	return []fettle.Observation{{Subject: h.subject, Host: h.s.self, Probe: PlaceProbe, Asked: h.s.o.Clock.Now(), Facts: facts, Edges: p.Edges(h.subject)}}
}

func list(names []string) []string { return append([]string{}, names...) }

// tally counts the hosts of each shared thing. The zero tally is empty.
type tally struct {
	of map[fettle.Subject]*census
}

type census struct {
	hosts, connected, returned, silent, recent int64
}

// count adds a host. One that was not heard of in this term is neither connected nor
// silent until it had the time to call: a leader that just took over knows of nobody.
// The host's mu is held.
func (t *tally) count(h *host) {
	term := h.s.term.Load()
	early := h.lost.IsZero() && (term == nil || h.s.gathering() || h.s.o.Clock.Now().Sub(term.began) < h.s.o.LostAfter)
	dead := false
	h.s.witness(func(w *witness) {
		v, _, ok := w.life(h.subject)
		dead = ok && v.Life == member.Dead
	})
	for _, s := range h.shares() {
		c := t.of[s]
		if c == nil {
			if t.of == nil {
				t.of = map[fettle.Subject]*census{}
			}
			c = &census{}
			t.of[s] = c
		}
		c.hosts++
		switch {
		case h.session != nil && dead: // its session has not noticed yet
			c.silent++
			c.recent++
		case h.session != nil:
			c.connected++
			// Longer than an agent takes from one attempt to the next (wire.Dial).
			if h.s.o.Clock.Now().Sub(h.returned) < h.s.o.LostAfter*3/2 {
				c.returned++
			}
		case !early:
			c.silent++
			if h.s.o.Clock.Now().Sub(h.lost) < h.s.o.LostAfter {
				c.recent++
			}
		}
	}
}

// shares are the things that the host shares with others. All share the server that leads.
// mu is held.
func (h *host) shares() []fettle.Subject {
	if h.placed == nil {
		return h.s.shared
	}
	return append(h.placed.place.Shared(), h.s.self)
}

// count counts all hosts that are known.
func (s *Server) count() *tally {
	var t tally
	for _, h := range s.known() {
		h.mu.Lock()
		t.count(h)
		h.mu.Unlock()
	}
	return &t
}

func (t *tally) observations(by fettle.Subject, now time.Time) []fettle.Observation {
	var out []fettle.Observation
	for _, s := range slices.Sorted(maps.Keys(t.of)) {
		out = append(out, t.observationsOf(s, by, now)...)
	}
	return out
}

// observationsOf is what was counted of one shared thing; none where no host shares it.
func (t *tally) observationsOf(s, by fettle.Subject, now time.Time) []fettle.Observation {
	c := t.of[s]
	if c == nil {
		return nil
	}
	return []fettle.Observation{{Subject: s, Host: by, Probe: DomainProbe + "." + string(s.Kind()), Asked: now, Facts: fettle.Facts{
		"hosts": c.hosts, "connected": c.connected, "returned": c.returned, "silent": c.silent, "recent": c.recent,
	}}}
}

// few is how many hosts of a domain must be silent at once before that is more than
// chance: as many as a burst has (diagnose.DefaultWeights). Where nothing is known that
// they share but the server it takes some more, so that in a small fleet people are told
// of each.
const (
	few  = 3
	some = 10
)

// domainDelay is shorter than lostAfter, so that what hosts share is known to be
// silent before the first of them is called lost, and longer than a restart of the
// agents by a tool that goes from one to the next.
const domainDelay = 4 * time.Second

// domains are the kinds of things that hosts share, with the way from one to its
// hosts.
func domains() []domain {
	return []domain{
		{fettle.KindPower, "<uses", fettle.Hardware, "a feed that failed, or what hangs on it", wide, few},
		{fettle.KindRack, "<in", fettle.Hardware, "its power, its switch, or whatever else stands in it", narrow, few},
		{fettle.KindSwitch, "<uses", fettle.Network, "the switch, its uplink, or its configuration", narrow, few},
		{fettle.KindZone, "<in <in", fettle.Network, "the way to it, before all that stands in it", wide, few},
		{KindServer, "<uses", fettle.Network, "the network of the server that leads, and what else all of them share", whole, some},
	}
}

type domain struct {
	kind  fettle.Kind
	hosts fettle.Path
	layer fettle.Layer
	look  string
	width int
	least int // hosts that are silent
}

// What spans many of the others is wide. A rack does not silence the whole zone. But
// whatever else hosts share is a better cause than that it is the whole fleet.
const (
	whole = iota - 1
	narrow
	wide
)

func (d domain) code() fettle.Code { return fettle.Code("fettle." + d.name() + "_silent") }

func (d domain) title() string {
	if d.width == whole {
		return "{silent} of the {hosts} hosts of the fleet are silent at once"
	}
	return "{silent} of {hosts} hosts on one " + d.name() + " are silent at once"
}

func (d domain) name() string {
	if d.kind == KindServer {
		return "fleet"
	}
	return string(d.kind)
}

// domainProbes and domainConditions are the server's catalogue of what hosts share.
func domainProbes() []fettle.ProbeSpec {
	list := []fettle.ProbeSpec{{
		Name: PlaceProbe, Kind: fettle.KindHost, Interval: agentEvery, Timeout: time.Second, Told: true,
		Facts: []fettle.FactSpec{
			{Name: "zone", Type: fettle.StringFact, Doc: "empty where none is known"},
			{Name: "rack", Type: fettle.StringFact, Doc: "empty where none is known"},
			{Name: "switches", Type: fettle.ListFact, Doc: "whose ports it uses"},
			{Name: "power", Type: fettle.ListFact, Doc: "the feeds that it draws from"},
		},
		Doc: "Where the topology file of the server that leads says that the host stands.",
	}}
	for _, d := range domains() {
		list = append(list, fettle.ProbeSpec{
			Name: DomainProbe + "." + string(d.kind), Kind: d.kind, Interval: agentEvery, Timeout: time.Second,
			Facts: []fettle.FactSpec{
				{Name: "hosts", Type: fettle.IntFact, Doc: "how many of the fleet's hosts share it"},
				{Name: "connected", Type: fettle.IntFact, Doc: "of these, how many agents hold a session with the server"},
				{Name: "returned", Type: fettle.IntFact, Doc: "how many of the connected have returned in the last fifteen seconds after more than ten without a session"},
				{Name: "silent", Type: fettle.IntFact, Doc: "and how many do not; one that the server has not heard of since it leads is counted after ten seconds"},
				{Name: "recent", Type: fettle.IntFact, Doc: "how many of the silent fell silent in the last ten seconds"},
			},
			Doc: "Counted by the server from its sessions.",
		})
	}
	return list
}

func domainConditions() []fettle.ConditionSpec {
	var list []fettle.ConditionSpec
	for _, d := range domains() {
		spec := fettle.ConditionSpec{
			Code: d.code(), Title: d.title(),
			Kind: d.kind, Layer: d.layer, Severity: fettle.Critical, Scope: fettle.ClusterScope, Probe: DomainProbe + "." + string(d.kind),
			Raise: fmt.Sprintf("self.silent >= %d && self.silent * 2 > self.hosts", d.least),
			// Once its first host fell silent nobody knows for a while whether the others
			// follow: it was last seen clear before that, so what it brings about on the
			// first does not seem to have begun before it.
			// And while its hosts return, one after the other as they try, those that have not
			// yet are no incidents of their own.
			Clear: "self.silent == 0 || self.connected * 2 >= self.hosts && self.recent == 0 && self.returned == 0",
			Delay: domainDelay, Expiry: 6 * agentEvery,
			Effects:   d.silences(d.hosts),
			NotMended: "it is none of its hosts' faults, and there are no hands on it: look at " + d.look,
			Doc:       fmt.Sprintf("More than half of the hosts that share it, and at least %d, have no contact with the server. What they share is asked before any of them is touched. By hand: fettle hosts, then %s.", d.least, d.look),
		}
		if d.kind == fettle.KindZone { // hosts whose rack is not known stand in it directly
			spec.Effects = append(spec.Effects, d.silences("<in")...)
		}
		// Where the same hosts share several things, all of them are silent at once. What
		// is wider can be the cause of what is narrower; of two that are alike nobody can
		// tell from that which is the other's.
		for _, o := range domains() {
			if o.kind == d.kind || o.width > d.width {
				continue
			}
			for _, path := range d.others(o) {
				spec.Effects = append(spec.Effects, fettle.EffectOn{Condition: o.code(), Path: path, Surely: fettle.Sometimes, Within: time.Minute})
			}
		}
		list = append(list, spec)
	}
	return list
}

// silences is what a domain that went silent brings about on its hosts: nobody hears
// their agents, and, where the witnesses are elsewhere, nor them. That the server hears
// nobody makes no host dead: two kinds of witness say that.
func (d domain) silences(hosts fettle.Path) []fettle.EffectOn {
	effects := []fettle.EffectOn{{Condition: "fettle.agent_lost", Path: hosts, Surely: fettle.Often, Within: time.Minute}}
	if d.width != whole {
		effects = append(effects, fettle.EffectOn{Condition: "fettle.host_dead", Path: hosts, Surely: fettle.Sometimes, Within: time.Minute})
	}
	return effects
}

// others are the ways from one shared thing to others of another kind: through the
// hosts that share both.
func (d domain) others(o domain) []fettle.Path {
	ways := []fettle.Path{d.hosts + " " + o.hosts.Reverse()}
	if d.kind == fettle.KindZone {
		ways = append(ways, "<in "+o.hosts.Reverse())
	}
	if o.kind == fettle.KindZone {
		ways = append(ways, d.hosts+" >in")
	}
	return ways
}
