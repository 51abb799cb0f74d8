package incident_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/server"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
)

const (
	benchHosts = 1000
	benchRacks = 60
)

// rackFleet is a fleet in racks, each on a switch, on four feeds and in four zones,
// as a server sees it.
type rackFleet struct {
	mind *incident.Mind
	at   time.Time
}

func benchRack(i int) (rack, zone, sw, power fettle.Subject) {
	r := i % benchRacks
	return fettle.NewSubject(fettle.KindRack, fmt.Sprint("z", r%4), fmt.Sprint("r", r)), fettle.NewSubject(fettle.KindZone, fmt.Sprint("z", r%4)),
		fettle.NewSubject(fettle.KindSwitch, fmt.Sprint("s", r)), fettle.NewSubject(fettle.KindPower, fmt.Sprint("f", r%4))
}

// serverMind is one that knows nothing but what a server itself observes.
func serverMind(tb testing.TB) *incident.Mind {
	tb.Helper()
	m, err := incident.New(incident.Options{
		Catalogues: []fettle.Catalogue{server.Catalogue()}, Evaluates: []fettle.Scope{fettle.ClusterScope},
		Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
			return runbook.Load(fstest.MapFS{}, env, cats)
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func newRackFleet(b testing.TB) *rackFleet {
	b.Helper()
	m := serverMind(b)
	f := &rackFleet{mind: m, at: start}
	for i := range benchHosts {
		h := fettle.HostSubject(fmt.Sprintf("h%04d", i))
		rack, zone, sw, power := benchRack(i)
		m.Take(incident.Input{At: f.at, Observations: []fettle.Observation{{Subject: h, Host: "fettle-server:s1", Probe: server.PlaceProbe, Asked: f.at, Facts: fettle.Facts{}, Edges: []fettle.Edge{
			{From: h, Rel: fettle.In, To: rack}, {From: rack, Rel: fettle.In, To: zone}, {From: h, Rel: fettle.Uses, To: sw}, {From: h, Rel: fettle.Uses, To: power},
		}}}})
	}
	return f
}

// tick says of every host whether it is heard, and counts them by what they share, as
// a server does every five seconds. down says which racks are silent.
func (f *rackFleet) tick(down func(rack int) bool) (worst time.Duration) {
	take := func(list ...fettle.Observation) {
		began := time.Now()
		f.mind.Take(incident.Input{At: f.at, Observations: list})
		worst = max(worst, time.Since(began))
	}
	f.at = f.at.Add(5 * time.Second)
	hosts, silent := map[fettle.Subject]int64{}, map[fettle.Subject]int64{}
	for i := range benchHosts {
		is := down(i % benchRacks)
		rack, zone, sw, power := benchRack(i)
		for _, s := range []fettle.Subject{rack, zone, sw, power} {
			hosts[s]++
			if is {
				silent[s]++
			}
		}
		take(fettle.Observation{Subject: fettle.HostSubject(fmt.Sprintf("h%04d", i)), Host: "fettle-server:s1", Probe: server.AgentProbe, Asked: f.at, Facts: fettle.Facts{"connected": !is, "label": "h"}})
	}
	var domains []fettle.Observation
	for _, s := range slices.Sorted(maps.Keys(hosts)) {
		domains = append(domains, fettle.Observation{Subject: s, Host: "fettle-server:s1", Probe: server.DomainProbe + "." + string(s.Kind()), Asked: f.at,
			Facts: fettle.Facts{"hosts": hosts[s], "connected": hosts[s] - silent[s], "silent": silent[s], "recent": int64(0)}})
	}
	take(domains...)
	return worst
}

// BenchmarkRackDown is a rack of a thousand hosts in sixty, or a feed of four, that
// falls silent: what a
// round of the server's own observations costs while all is well and while it is down,
// the longest that one input took, and how many incidents are open at the end.
func BenchmarkRackDown(b *testing.B) {
	for _, c := range []struct {
		name string
		down func(rack int) bool
		want int
	}{
		{"well", func(int) bool { return false }, 0},
		{"rack", func(r int) bool { return r == 7 }, 1},
		{"feed", func(r int) bool { return r%4 == 1 }, 1}, // and all that it feeds: 15 racks, 15 switches, a zone
	} {
		b.Run(c.name, func(b *testing.B) {
			f := newRackFleet(b)
			for range 4 {
				f.tick(func(int) bool { return false })
			}
			var worst time.Duration
			n := 0
			for b.Loop() {
				worst = max(worst, f.tick(c.down))
				n++
			}
			for ; n < 6; n++ {
				f.tick(c.down)
			}
			open, causes := 0, ""
			for _, in := range f.mind.Incidents() {
				if !in.State.Ended() {
					open++
					causes = in.Cause.String()
				}
			}
			if open != c.want {
				b.Errorf("%d incidents are open, want %d: %s", open, c.want, causes)
			}
			b.ReportMetric(float64(worst.Microseconds())/1000, "worst-ms")
			b.ReportMetric(float64(open), "open")
			b.ReportMetric(float64(len(f.mind.Incidents())), "incidents")
		})
	}
}
