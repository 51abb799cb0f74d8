package probe

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// foldAt bounds what waits for a receiver that blocks: beyond it only the latest
// observation of each subject is kept. Below it every change is told, since that
// something came and went is what flap damping is about.
const foldAt = 4096

// forgetGone is how long it is remembered that a subject is gone, so that a probe
// that goes on saying so is not told again; transient units would else pile up.
const forgetGone = 10 * time.Minute

// sink holds the latest observation of each subject by each probe, and what of it
// has not been told yet.
type sink struct {
	telling bool
	wake    chan struct{} // has a value when there is something new to tell

	mu      sync.Mutex
	held    map[seenBy]fettle.Observation
	changed []fettle.Observation
	alive   map[seenBy]bool
	since   time.Time // of the oldest confirmation that waits; zero: none does, or its timer is not set
}

type seenBy struct {
	subject fettle.Subject
	probe   string
}

func newSink(telling bool) *sink {
	return &sink{telling: telling, wake: make(chan struct{}, 1), held: map[seenBy]fettle.Observation{}, alive: map[seenBy]bool{}}
}

// accept takes an observation in and returns the one that is held afterwards:
// this one, or a later one. Its maps and slices are shared: read only.
func (s *sink) accept(o fettle.Observation) fettle.Observation {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := seenBy{o.Subject, o.Probe}
	before, had := s.held[key]
	if had && o.Asked.Before(before.Asked) {
		return before
	}
	same := had && sameContent(before, o)
	if same {
		// What is held stays as it is, only later: an idle poll keeps no memory.
		o.Facts, o.Edges, o.Quorum, o.Replicas = before.Facts, before.Edges, before.Quorum, before.Replicas
	} else {
		o = own(o)
	}
	s.held[key] = o
	switch {
	case !s.telling:
	case !same:
		delete(s.alive, key)
		s.changed = append(s.changed, o)
		if len(s.changed) >= foldAt {
			s.fold()
		}
		s.signal()
	case !o.Gone:
		if len(s.alive) == 0 {
			s.signal() // the teller sets its timer
		}
		s.alive[key] = true
	}
	return o
}

// own copies what the probe may go on to change.
func own(o fettle.Observation) fettle.Observation {
	o.Facts, o.Edges = o.Facts.Clone(), slices.Clone(o.Edges)
	if o.Quorum != nil {
		q := o.Quorum.Clone()
		o.Quorum = &q
	}
	if o.Replicas != nil {
		r := *o.Replicas
		o.Replicas = &r
	}
	return o
}

func (s *sink) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// fold keeps only the last change of each subject and probe.
func (s *sink) fold() {
	last := map[seenBy]bool{}
	kept := s.changed[:0:0]
	for _, o := range slices.Backward(s.changed) {
		if key := (seenBy{o.Subject, o.Probe}); !last[key] {
			last[key] = true
			kept = append(kept, o)
		}
	}
	slices.Reverse(kept)
	s.changed = kept
}

// sameContent compares what was seen, not when and how long it took. The free
// text of an unknown observation does not count: it may hold a duration.
func sameContent(a, b fettle.Observation) bool {
	return a.Reason == b.Reason && a.Gone == b.Gone && a.Facts.Equal(b.Facts) && slices.Equal(a.Edges, b.Edges) &&
		samePointee(a.Replicas, b.Replicas, func(x, y fettle.ReplicaSet) bool { return x == y }) &&
		samePointee(a.Quorum, b.Quorum, func(x, y fettle.QuorumGroup) bool { return x.ID == y.ID && slices.Equal(x.Members, y.Members) })
}

func samePointee[T any](a, b *T, same func(T, T) bool) bool {
	if a == nil || b == nil {
		return a == b
	}
	return same(*a, *b)
}

// due returns a channel that fires when the confirmations that wait are to be
// told; it never fires while none waits.
func (s *sink) due(clock machine.Clock, d time.Duration) (<-chan time.Time, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.alive) == 0 {
		return nil, func() {}
	}
	now := clock.Now()
	if s.since.IsZero() {
		s.since = now
	}
	return clock.After(max(0, s.since.Add(d).Sub(now))) // changes in between do not put it off
}

// take returns the changes that wait and, when full is set, the confirmations.
func (s *sink) take(full bool, now time.Time) Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := Batch{Changed: s.changed}
	s.changed = nil
	if !full {
		return b
	}
	for key := range s.alive {
		b.Alive = append(b.Alive, Alive{key.subject, key.probe, s.held[key].Asked})
	}
	clear(s.alive)
	s.since = time.Time{}
	slices.SortFunc(b.Alive, func(x, y Alive) int {
		return cmp.Or(strings.Compare(string(x.Subject), string(y.Subject)), strings.Compare(x.Probe, y.Probe))
	})
	for key, o := range s.held {
		if o.Gone && now.Sub(o.Asked) > forgetGone {
			delete(s.held, key)
		}
	}
	return b
}

// get returns the held observation of a subject by a probe.
func (s *sink) get(subject fettle.Subject, probe string) (fettle.Observation, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.held[seenBy{subject, probe}]
	return o, ok
}

// present returns all that is held of subjects that are still there.
func (s *sink) present() []fettle.Observation {
	s.mu.Lock()
	out := make([]fettle.Observation, 0, len(s.held))
	for _, o := range s.held {
		if !o.Gone {
			out = append(out, o)
		}
	}
	s.mu.Unlock()
	return inOrder(out)
}
