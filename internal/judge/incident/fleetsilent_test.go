package incident_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/server"
	"fettle/internal/judge/incident"
)

// silence is a mind that is told as a server tells it which hosts are connected.
type silence struct {
	*incident.Mind
	t     *testing.T
	at    time.Time
	hosts []fettle.Subject
	away  map[fettle.Subject]bool
	back  map[fettle.Subject]time.Time
	rack  int // so many of them, the first, stand in one rack
	calls []string
	saved int // bytes of records, as a store keeps them
}

const leads fettle.Subject = "fettle-server:s1"

func newSilence(t *testing.T, hosts, rack int) *silence {
	t.Helper()
	s := &silence{Mind: serverMind(t), t: t, at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), away: map[fettle.Subject]bool{}, back: map[fettle.Subject]time.Time{}, rack: rack}
	for i := range hosts {
		s.hosts = append(s.hosts, fettle.HostSubject(fmt.Sprintf("h%05d", i)))
	}
	s.pass(0)
	return s
}

// pass lets time pass, and tells everything then.
func (s *silence) pass(d time.Duration) {
	s.t.Helper()
	for end := s.at.Add(d); ; {
		s.tell()
		if !s.at.Before(end) {
			return
		}
		s.at = s.at.Add(min(time.Second, end.Sub(s.at)))
	}
}

func (s *silence) tell() {
	s.t.Helper()
	var in incident.Input
	count := func(of fettle.Subject, hosts []fettle.Subject) {
		silent, returned := int64(0), int64(0)
		for _, h := range hosts {
			switch at, was := s.back[h]; {
			case s.away[h]:
				silent++
			case was && s.at.Sub(at) < 15*time.Second:
				returned++
			}
		}
		n := int64(len(hosts))
		in.Observations = append(in.Observations, fettle.Observation{Subject: of, Host: leads, Probe: server.DomainProbe + "." + string(of.Kind()), Asked: s.at,
			Facts: fettle.Facts{"hosts": n, "connected": n - silent, "returned": returned, "silent": silent, "recent": int64(0)}})
	}
	for i, h := range s.hosts {
		in.Observations = append(in.Observations, fettle.Observation{Subject: h, Host: leads, Probe: server.AgentProbe, Asked: s.at,
			Facts: fettle.Facts{"connected": !s.away[h], "label": h.Name()}, Edges: []fettle.Edge{{From: h, Rel: fettle.Uses, To: leads}}})
		if i < s.rack {
			in.Observations = append(in.Observations, fettle.Observation{Subject: h, Host: leads, Probe: server.PlaceProbe, Asked: s.at,
				Facts: fettle.Facts{"rack": "r1"}, Edges: []fettle.Edge{{From: h, Rel: fettle.In, To: "rack:r1"}}})
		}
	}
	count(leads, s.hosts)
	if s.rack > 0 {
		count("rack:r1", s.hosts[:s.rack])
	}
	s.take(in)
}

func (s *silence) take(in incident.Input) {
	s.t.Helper()
	in.At = s.at
	for _, d := range s.Take(in) {
		switch d.Kind {
		case incident.Call:
			s.calls = append(s.calls, d.Text)
		case incident.Save:
			data, err := json.Marshal(d.Record)
			if err != nil {
				s.t.Fatal(err)
			}
			s.saved += len(data)
		case incident.Gather: // nobody knows more
			s.take(incident.Input{Gathered: d.Key})
		case incident.Intend, incident.Recover, incident.Look:
		}
	}
}

// causes are those of the incidents that have not ended.
func (s *silence) causes() []string {
	var list []string
	for _, in := range s.Incidents() {
		if !in.State.Ended() {
			list = append(list, in.Cause.String())
		}
	}
	slices.Sort(list)
	return list
}

func (s *silence) leave(hosts []fettle.Subject) {
	for _, h := range hosts {
		s.away[h] = true
	}
}

func (s *silence) come(hosts []fettle.Subject) {
	for _, h := range hosts {
		delete(s.away, h)
		s.back[h] = s.at
	}
}

// TestFleetSilent: when most of a fleet is silent at once people are told of that, once,
// and not of each host; where it is known what the silent ones share, of that; and of each
// where they are few.
func TestFleetSilent(t *testing.T) {
	for name, c := range map[string]struct {
		hosts, rack, away int
		want              []string
	}{
		"all":                 {30, 0, 30, []string{"fettle.fleet_silent on fettle-server:s1"}},
		"most":                {30, 0, 16, []string{"fettle.fleet_silent on fettle-server:s1"}},
		"half":                {20, 0, 10, nil},
		"all of a small one":  {9, 0, 9, nil},
		"a rack, most of all": {30, 16, 16, []string{"fettle.rack_silent on rack:r1"}},
		"a rack":              {30, 5, 5, []string{"fettle.rack_silent on rack:r1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSilence(t, c.hosts, c.rack)
			s.leave(s.hosts[:c.away])
			s.pass(time.Minute)
			want := c.want
			if want == nil {
				for _, h := range s.hosts[:c.away] {
					want = append(want, "fettle.agent_lost on "+string(h))
				}
			}
			if got := s.causes(); !slices.Equal(got, want) || len(s.calls) != len(want) {
				t.Errorf("incidents about %q, and %d calls; want %q, and as many", got, len(s.calls), want)
			}
			s.come(s.hosts)
			s.pass(time.Minute)
			if got := s.causes(); len(got) > 0 {
				t.Errorf("all are back, and there are incidents about %q", got)
			}
		})
	}
}

// TestFleetReturns: what the store is given while a large fleet goes and comes back, a
// few hosts at a time, grows with the fleet and not with its square.
func TestFleetReturns(t *testing.T) {
	const hosts, step = 2000, 20
	s := newSilence(t, hosts, 0)
	s.leave(s.hosts)
	s.pass(20 * time.Second)
	if got := s.causes(); len(got) != 1 {
		t.Fatalf("%d incidents: %.200q", len(got), got)
	}
	for i := 0; i < hosts; i += step {
		s.come(s.hosts[i : i+step])
		s.at = s.at.Add(100 * time.Millisecond)
		s.tell()
	}
	s.pass(time.Minute)
	if got := s.causes(); len(got) > 0 || len(s.calls) != 1 {
		t.Errorf("all are back: incidents %.200q, %d calls", got, len(s.calls))
	}
	t.Logf("%d KiB were saved", s.saved>>10)
	// A record has each host twice, with a code: 210 KiB for all of them.
	if s.saved > 1<<20 {
		t.Errorf("%d KiB were saved, more than a MiB", s.saved>>10)
	}
}
