package condition

import (
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

// The paths along which rules read.
const (
	toWhole   fettle.Path = ">part-of"
	toParts   fettle.Path = "<part-of"
	toHost    fettle.Path = ">runs-on"
	toTenants fettle.Path = "<runs-on" // what runs on a host
)

// TooOld is the Reason of an observation that is older than the condition's
// Expiry: it was made, and is no longer known.
const TooOld fettle.Reason = "too old"

// fresh reports whether an observation is still known, given a condition's
// Expiry.
func fresh(o *fettle.Observation, expiry time.Duration, now time.Time) bool {
	return expiry == 0 || now.Before(o.Asked.Add(expiry))
}

// surroundings gathers facts of related subjects for one call of Touch or Tick,
// each once however many rules read it.
type surroundings struct {
	w     *world.World
	now   time.Time
	cache map[question]answer
	picks picks
}

// question is whose facts are asked for: by one probe or, "", all; by one
// observer's host or, "", all; no older than expiry.
type question struct {
	of     fettle.Subject
	probe  string
	by     fettle.Subject
	expiry time.Duration
}

// answer has the subject under "subject". It stands until the first of the
// observations that it was taken from is too old; zero: until they change.
type answer struct {
	facts fettle.Facts
	until time.Time
}

func (s *surroundings) ask(q question) answer {
	if a, ok := s.cache[q]; ok {
		return a
	}
	a := answer{facts: fettle.Facts{"subject": string(q.of)}}
	asked := map[string]time.Time{}
	for _, o := range s.w.Observations(q.of) {
		if !o.Known() || q.probe != "" && o.Probe != q.probe || q.by != "" && o.Host != q.by || !fresh(&o, q.expiry, s.now) {
			continue
		}
		// any order: each fact is put under its own name
		for name, v := range o.Facts {
			if at, ok := asked[name]; !ok || o.Asked.After(at) {
				a.facts[name], asked[name] = v, o.Asked
			}
		}
		if q.expiry > 0 {
			a.until = earliest(a.until, o.Asked.Add(q.expiry))
		}
	}
	if s.cache == nil {
		s.cache = map[question]answer{}
	}
	s.cache[q] = a
	return a
}

// each asks the same of several subjects.
func (s *surroundings) each(subjects []fettle.Subject, probe string, expiry time.Duration) ([]fettle.Facts, time.Time) {
	var until time.Time
	list := make([]fettle.Facts, 0, len(subjects))
	for _, of := range subjects {
		a := s.ask(question{of: of, probe: probe, expiry: expiry})
		list = append(list, a.facts)
		until = earliest(until, a.until)
	}
	return list, until
}

// peersOf returns the other parts, of the same kind, of what s is part of. A peer
// that nobody has observed is among them, without facts.
func (s *surroundings) peersOf(of fettle.Subject) []fettle.Subject {
	var peers []fettle.Subject
	for _, whole := range s.w.Related(of, toWhole) {
		for _, p := range s.w.Related(whole, toParts) {
			if p != of && p.Kind() == of.Kind() {
				peers = append(peers, p)
			}
		}
	}
	slices.Sort(peers)
	return slices.Compact(peers)
}

// hostOf returns the host that s runs on, or is; "" where that is not known to
// be one.
func (s *surroundings) hostOf(of fettle.Subject) fettle.Subject {
	if of.Kind() == fettle.KindHost {
		return of
	}
	if hosts := s.w.Related(of, toHost); len(hosts) == 1 && hosts[0].Kind() == fettle.KindHost {
		return hosts[0]
	}
	return ""
}
