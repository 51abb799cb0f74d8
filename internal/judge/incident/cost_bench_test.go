package incident_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/adapter/etcd"
	"fettle/internal/adapter/filesystem"
	"fettle/internal/adapter/firewall"
	"fettle/internal/adapter/systemd"
	"fettle/internal/fettle"
	"fettle/internal/fleet/server"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
	"fettle/runbooks"
)

// costs are what an open incident can be waiting for in BenchmarkInput.
var costs = []string{"proposed", "held", "verifying", "escalated", "unseen"}

// crowd is a mind with many incidents that wait, each on a host of its own.
type crowd struct {
	*incident.Mind
	at time.Time
}

func newCrowd(b testing.TB) *crowd {
	b.Helper()
	m, err := incident.New(incident.Options{
		Catalogues: []fettle.Catalogue{etcd.Catalogue(), filesystem.Catalogue(), firewall.Catalogue(), systemd.Catalogue(), server.Catalogue()},
		Policy: fettle.Policy{
			Rules: []fettle.PolicyRule{
				{Runbook: "*", Rung: "*", Subject: "*", Level: fettle.Automatic},
				{Runbook: "*", Rung: "*", Subject: "unit:proposed*", Level: fettle.Approve},
			},
			Rate: fettle.Rate{PerSubject: 10, PerFleet: 1 << 30},
		},
		Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
			return runbook.Load(runbooks.FS(), env, cats)
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	return &crowd{Mind: m, at: start}
}

func service(host, state string, at time.Time) fettle.Observation {
	unit := fettle.NewSubject(fettle.KindUnit, host, "web.service")
	return fettle.Observation{
		Subject: unit, Host: fettle.HostSubject(host), Probe: "systemd.unit", Asked: at,
		Edges: []fettle.Edge{{From: unit, Rel: fettle.RunsOn, To: fettle.HostSubject(host)}},
		Facts: fettle.Facts{
			"load_state": "loaded", "active_state": state, "sub_state": state, "result": "signal", "invocation_id": "a", "restart": "no",
			"enabled": true, "was_active": true, "stopped_by": "", "starts_10m": int64(1),
		},
	}
}

// fill opens n incidents, shared evenly among what they are to wait for.
func (c *crowd) fill(n int, kinds ...string) {
	var lost, ill, blind []fettle.Observation
	var closed []fettle.Subject
	for i := range n {
		kind := kinds[i%len(kinds)]
		h := fmt.Sprintf("%s-%05d", kind, i)
		switch kind {
		case "escalated": // nobody mends it
			lost = append(lost, fettle.Observation{Subject: fettle.HostSubject(h), Host: "fettle-server:s", Probe: server.AgentProbe, Facts: fettle.Facts{"connected": false, "label": h}})
			continue
		case "unseen":
			o := service(h, "", c.at)
			o.Facts, o.Reason = nil, fettle.TimedOut
			blind = append(blind, o)
		case "held": // people work there
			closed = append(closed, fettle.HostSubject(h))
		}
		ill = append(ill, service(h, "failed", c.at))
	}
	see := func(list []fettle.Observation) {
		for i := range list {
			list[i].Asked = c.at
		}
		c.take(incident.Input{At: c.at, Observations: list})
	}
	if len(lost) > 0 {
		see(slices.Clone(lost))
		c.at = c.at.Add(time.Minute)
		see(lost)
	}
	if len(closed) > 0 {
		slices.Sort(closed)
		c.take(incident.Input{At: c.at, Window: &guard.Window{ID: "w", By: "ann", Hosts: closed, From: c.at.Add(-time.Hour)}})
	}
	see(ill)
	if len(blind) > 0 {
		c.at = c.at.Add(time.Second)
		see(blind)
		for range 12 { // until nobody's word is waited for any more
			c.at = c.at.Add(5 * time.Second)
			c.take(incident.Input{At: c.at})
		}
	}
}

// take feeds an input and carries out what follows: looks find the services as they
// were, and each step is said to be done at once.
func (c *crowd) take(in incident.Input) {
	queue := c.Take(in)
	for len(queue) > 0 {
		d := queue[0]
		queue = queue[1:]
		next := incident.Input{At: c.at}
		switch d.Kind {
		case incident.Gather:
			if strings.HasSuffix(d.Key, "!") || strings.HasPrefix(d.Looks[0].Subject.Root(), "unseen") {
				continue
			}
			next.Gathered = d.Key
			for _, l := range d.Looks {
				if l.Subject.Kind() == fettle.KindUnit && l.Probe == "systemd.unit" {
					next.Observations = append(next.Observations, service(l.Subject.Root(), "failed", c.at))
				}
			}
		case incident.Intend:
			next.Outcome = &fettle.Outcome{Schema: 1, Key: d.Key, Fate: fettle.Done}
		case incident.Recover, incident.Look, incident.Save, incident.Call:
			continue
		}
		queue = append(queue, c.Take(next)...)
	}
}

// BenchmarkInput is what one input costs that is about none of the incidents: a healthy
// service of another host is seen once more. It must not grow with the incidents that
// are open.
func BenchmarkInput(b *testing.B) {
	for _, kind := range append(slices.Clone(costs), "mixed") {
		for _, n := range []int{10, 100, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				kinds := []string{kind}
				if kind == "mixed" {
					kinds = costs[:4]
				}
				c := newCrowd(b)
				for i := range n {
					c.Take(incident.Input{At: c.at, Observations: []fettle.Observation{service(fmt.Sprintf("well-%05d", i), "active", c.at)}})
				}
				c.fill(n, kinds...)
				for range 3 { // what was still to be looked at once more
					c.Take(incident.Input{At: c.at})
				}
				states := map[fettle.IncidentState]int{}
				for _, in := range c.Incidents() {
					states[in.State]++
				}
				saved := 0
				for b.Loop() {
					saved = len(c.Take(incident.Input{At: c.at, Observations: []fettle.Observation{service("well-00003", "active", c.at)}}))
				}
				b.ReportMetric(float64(saved), "saved/op")
				if kind != "mixed" && len(states) != 1 || kind == "mixed" && len(states) != 4 {
					b.Errorf("the incidents are %v", states)
				}
			})
		}
	}
}
