package server

import (
	"context"
	"slices"

	"fettle/internal/fettle"
	"fettle/internal/fleet/member"
	"fettle/internal/judge/incident"
)

// serviceKey is one observer of one thing that runs on a host.
type serviceKey struct {
	service, by string
}

// askServices asks now and then what the peers of services say of hosts in doubt, until
// ctx ends. It asks the mind, which may be busy with the disk, so it is beside the judging.
func (w *witness) askServices(ctx context.Context) {
	for {
		due, stop := w.s.o.Clock.After(witnessServices)
		select {
		case <-due:
		case <-ctx.Done():
			stop()
			return
		}
		doubted := w.doubted()
		if len(doubted) == 0 {
			continue
		}
		seen := map[string]map[serviceKey]fettle.Observation{}
		err := w.s.ask(ctx, func(m *incident.Mind) {
			for _, host := range doubted {
				seen[host.Root()] = elsewhere(m.View(), host)
			}
		})
		if err == nil {
			w.served(seen)
		}
	}
}

// doubted are the hosts that are not simply alive, sorted.
func (w *witness) doubted() []fettle.Subject {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []fettle.Subject
	for _, h := range w.hosts { // any order: they are sorted below
		if h.verdict.Life != member.Alive || len(h.by) > 0 {
			list = append(list, h.subject)
		} else {
			clear(h.service)
		}
	}
	slices.Sort(list)
	return list
}

// graph is what is asked of the world.
type graph interface {
	Related(fettle.Subject, fettle.Path) []fettle.Subject
	Observations(fettle.Subject) []fettle.Observation
}

// elsewhere is what other hosts see of what runs on a host. Whatever that is: what asked
// it and got an answer has reached it, and what asked and got none has not.
func elsewhere(g graph, host fettle.Subject) map[serviceKey]fettle.Observation {
	out := map[serviceKey]fettle.Observation{}
	for _, s := range g.Related(host, "<runs-on") {
		for _, o := range g.Observations(s) {
			if o.Host == host || o.Host.Kind() != fettle.KindHost || !o.Known() && o.Reason != fettle.Unreachable {
				continue
			}
			out[serviceKey{string(s), o.Host.Root()}] = o
		}
	}
	return out
}

// served takes in what was asked.
func (w *witness) served(seen map[string]map[serviceKey]fettle.Observation) {
	w.mu.Lock()
	defer poke(w.wake)
	defer w.mu.Unlock()
	for id, list := range seen { // any order: each host is its own
		h := w.hosts[id]
		if h == nil {
			continue
		}
		for key := range h.service {
			if _, still := list[key]; !still {
				delete(h.service, key)
			}
		}
		for key, o := range list { // any order, as above
			s := member.ServiceSighting{Service: key.service, By: key.by, Reaches: member.Yes, Since: o.Asked, At: o.Asked}
			if by := w.hosts[key.by]; by != nil {
				s.Domain = by.place.Domain()
			}
			if !o.Known() {
				s.Reaches, s.At = member.No, o.Asked.Add(max(0, o.Took)) // it was waited for so long
			}
			if before := h.service[key]; before.Reaches == s.Reaches && !before.At.After(s.At) {
				s.Since = before.Since
			}
			h.service[key] = s
		}
	}
}
