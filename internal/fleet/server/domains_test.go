package server_test

import (
	"slices"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/topology"
)

const racks = `hosts:
  - {match: ["a*"], zone: east, rack: r1, switch: [s1], power: [f1]}
  - {match: ["b*"], zone: east, rack: r2, switch: [s2], power: [f1]}
`

func placing(t testing.TB) func(*server.Options) {
	t.Helper()
	top, err := topology.Parse("racks.yaml", []byte(racks))
	if err != nil {
		t.Fatal(err)
	}
	return func(o *server.Options) { o.Topology = top }
}

// A server that begins to lead knows where every host of the register stands, also
// of those that it has not heard of: budgets are counted by rack from its first step.
func TestPlacesHostsNotHeardOf(t *testing.T) {
	f := newFleet(t, placing(t))
	a, _ := f.join("a1")
	b, _ := f.join("b1")
	lone, _ := f.join("c1") // nothing is known of it
	f.stop()
	from := f.brain.mark()
	f.start("")
	for id, rack := range map[fettle.Subject]fettle.Subject{a.Name.Host(): "rack:east/r1", b.Name.Host(): "rack:east/r2"} {
		o := f.brain.await(t, from, "place", func(o fettle.Observation) bool { return o.Probe == server.PlaceProbe && o.Subject == id })
		if !slices.Contains(o.Edges, fettle.Edge{From: id, Rel: fettle.In, To: rack}) || !slices.Contains(o.Edges, fettle.Edge{From: rack, Rel: fettle.In, To: "zone:east"}) {
			t.Errorf("%s: edges %v", id, o.Edges)
		}
	}
	f.brain.await(t, from, "the feed that all share", func(o fettle.Observation) bool {
		n, _ := o.Facts.Int("hosts")
		return o.Subject == "power:f1" && n == 2
	})
	f.brain.mu.Lock()
	defer f.brain.mu.Unlock()
	for _, in := range f.brain.fed[from:] {
		for _, o := range in.Observations {
			if o.Probe == server.PlaceProbe && o.Subject == lone.Name.Host() {
				t.Errorf("%s stands nowhere, and was placed: %v", o.Subject, o.Edges)
			}
		}
	}
}

// Who is heard of, and who went silent, is counted for each thing that hosts share.
// That nobody was heard of yet at the beginning of a term is not silence.
func TestCountsTheSilent(t *testing.T) {
	f := newFleet(t, placing(t), func(o *server.Options) { o.LostAfter = 3 * time.Second })
	counted := func(from int, what string, of fettle.Subject, connected, silent, recent int64) {
		t.Helper()
		f.brain.await(t, from, what, func(o fettle.Observation) bool {
			c, _ := o.Facts.Int("connected")
			s, _ := o.Facts.Int("silent")
			r, _ := o.Facts.Int("recent")
			return o.Subject == of && o.Probe == server.DomainProbe+"."+string(of.Kind()) && c == connected && s == silent && r == recent
		})
	}
	var boxes []*box
	for _, label := range []string{"a1", "a2", "b1"} {
		b := f.box(label)
		b.stop()
		b.start(func(o *agent.Options) { o.Machine.Identity.Hostname = label })
		boxes = append(boxes, b)
	}
	from := f.brain.mark()
	counted(from, "both of the rack", "rack:east/r1", 2, 0, 0)
	boxes[0].stop()
	boxes[1].stop()
	counted(from, "the rack is silent", "rack:east/r1", 0, 2, 2)
	counted(from, "the other is not", "rack:east/r2", 1, 0, 0)
	counted(from, "of the zone, two of three", "zone:east", 1, 2, 2)
	counted(from, "which is not new for ever", "zone:east", 1, 2, 0)
	got := f.server.Look(t.Context(), []fettle.Look{{Subject: "switch:s1", Probe: server.DomainProbe + ".switch"}, {Subject: "switch:none", Probe: server.DomainProbe + ".switch"}})
	if n, _ := got[0].Facts.Int("silent"); len(got) != 1 || n != 2 {
		t.Errorf("asked about a switch, and one that nobody uses: %+v", got)
	}
	boxes[0].start(func(o *agent.Options) { o.Machine.Identity.Hostname = "a1" })
	returned := func(what string, n int64) {
		t.Helper()
		f.brain.await(t, from, what, func(o fettle.Observation) bool {
			c, _ := o.Facts.Int("connected")
			r, _ := o.Facts.Int("returned")
			return o.Subject == "rack:east/r1" && o.Probe == server.DomainProbe+".rack" && c == 1 && r == n
		})
	}
	returned("one of the rack is back, so the other may be on its way", 1)
	from = f.brain.mark()
	returned("not for ever", 0)
}

// All hosts share the server that leads, also those of which nothing else is known: in
// the graph, and in what is counted.
func TestCountsTheFleet(t *testing.T) {
	f := newFleet(t)
	f.box("here").connected(0, true)
	away, _ := f.join("away")
	self := f.server.Subject()
	f.brain.await(t, 0, "one of two is silent", func(o fettle.Observation) bool {
		n, _ := o.Facts.Int("hosts")
		silent, _ := o.Facts.Int("silent")
		return o.Subject == self && o.Probe == server.DomainProbe+"."+string(server.KindServer) && n == 2 && silent == 1
	})
	f.brain.await(t, 0, "the one that is not there is the server's", func(o fettle.Observation) bool {
		return o.Subject == away.Name.Host() && o.Probe == server.AgentProbe && slices.Equal(o.Edges, []fettle.Edge{{From: o.Subject, Rel: fettle.Uses, To: self}})
	})
}
