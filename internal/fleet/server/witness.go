package server

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/member"
)

const (
	// witnessIdle is how often it is looked whether a stream has fallen silent while nothing
	// bad is known; witnessBusy while something is. The first costs a leader of 10,000
	// agents less than a hundredth of a core, the second is well below every window.
	witnessIdle = 250 * time.Millisecond
	witnessBusy = 25 * time.Millisecond
	// witnessEvery is how often a verdict that has not changed is said anew, witnessMost how
	// many such are said in one turn: the mind has other things to do.
	witnessEvery = 20 * time.Second
	witnessMost  = 256
	// witnessShare is how much of the time may go into judging, one part in so many: a
	// thousand agents that come at once wake it a thousand times. It pauses for witnessRest
	// at most, however long judging takes.
	witnessShare = 10
	witnessRest  = time.Second
	// witnessLong is after what time a host in doubt is not looked at in haste any more.
	witnessLong = 10 * time.Second
	// witnessServices is how often it is asked what the peers of the services on hosts in
	// doubt say.
	witnessServices = time.Second
	// witnessTick is how often the server's own scheduling delay is measured.
	witnessTick = 100 * time.Millisecond
)

// witness judges for one term of which hosts live. It gathers what all witnesses saw: the
// agents' gossip nodes, the sessions, the server's own questions to kernels, the peers of
// services. What follows from that member.JudgeSome says. It feeds the verdicts to the
// loop, and decides on no repair.
type witness struct {
	s        *Server
	rules    member.Rules // the defaults
	wake     chan struct{}
	lateness *member.Lateness
	knocks   knocks

	mu    sync.Mutex // a session's is taken while it is held; a host's or the server's never
	hosts map[string]*watched
	rings map[string][]*watched
	woke  time.Time         // the silence before it may be this server's own sleep
	late  time.Duration     // this server's own scheduling delay, as of this turn
	ill   map[string]string // observers that are ill, with why; "" is this server
	blind bool              // that this server is ill was said
	said  time.Time         // when that was said last
}

// watched is one host and what is known of it. All times are on the server's clock.
type watched struct {
	subject fettle.Subject
	label   string
	place   member.Place
	ring    string
	address netip.AddrPort // where its agent gossips; the zero value: it does not

	session *session // nil: none
	ended   member.Stream
	stream  member.Stream              // as it was judged last
	by      map[string]member.Sighting // what others saw of it, by observer; those to whom it is simply there are not here
	sees    map[string]bool            // the hosts in whose by it is
	doubt   string                     // why its own node doubts itself
	health  health
	trip    time.Duration // the shortest round trip of late, over its stream
	kernel  member.Kernel
	knock   knocking
	service map[serviceKey]member.ServiceSighting

	verdict member.Verdict
	since   time.Time
	fed     member.Life // as it was said last
	fedIll  bool
	said    time.Time // zero: never
}

func newWitness(s *Server) *witness {
	return &witness{
		s: s, wake: make(chan struct{}, 1), lateness: member.NewLateness(witnessTick), hosts: map[string]*watched{}, rings: map[string][]*watched{}, ill: map[string]string{},
		knocks: newKnocks(s.o.Dial), woke: s.o.Clock.Now(),
	}
}

// witness calls f with the witness of the present term, if there is one.
func (s *Server) witness(f func(*witness)) {
	if t := s.term.Load(); t != nil {
		f(t.witness)
	}
}

// host returns a host, making it when it is new. mu is held.
func (w *witness) host(subject fettle.Subject) *watched {
	id := subject.Root()
	h := w.hosts[id]
	if h == nil {
		h = &watched{
			subject: subject, place: member.Place{Host: id}, by: map[string]member.Sighting{}, sees: map[string]bool{}, service: map[serviceKey]member.ServiceSighting{},
			verdict: member.Verdict{Host: id}, since: w.s.o.Clock.Now(),
		}
		w.hosts[id] = h
	}
	return h
}

// began notes that an agent is connected.
func (w *witness) began(x *session) {
	w.mu.Lock()
	h := w.host(x.host.subject)
	h.session, h.label = x, x.label
	w.mu.Unlock()
	poke(w.wake)
}

// over notes that a session has ended, and how its stream is to be taken from now on.
func (w *witness) over(x *session, how member.StreamState) {
	now := w.s.o.Clock.Now()
	x.mu.Lock()
	heard := x.heard
	x.mu.Unlock()
	w.mu.Lock()
	if h := w.hosts[x.host.subject.Root()]; h != nil && h.session == x {
		h.session = nil
		h.ended = member.Stream{State: how, Since: now, At: now}
		if how == member.StreamSilent {
			h.ended.Since = heard
		}
		h.knock.due = now
	}
	w.mu.Unlock()
	poke(w.wake)
}

// gossipsAt notes where an agent gossips.
func (w *witness) gossipsAt(subject fettle.Subject, at netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.hosts[subject.Root()]; h != nil {
		h.address = at
	}
}

// forget takes a host that was sent away out of sight, at once.
func (w *witness) forget(subject fettle.Subject) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.hosts[subject.Root()]; h != nil {
		w.drop(h)
	}
}

// drop takes a host out. mu is held.
func (w *witness) drop(h *watched) {
	h.forgets(w)
	delete(w.hosts, h.place.Host)
	w.rings[h.ring] = slices.DeleteFunc(w.rings[h.ring], func(o *watched) bool { return o == h })
}

// seated takes in which hosts there are, where they stand and who watches whom.
func (w *witness) seated(places map[string]member.Place, rings map[string]string) {
	labels := map[string]string{}
	for _, h := range w.s.known() {
		h.mu.Lock()
		labels[h.subject.Root()] = h.label
		h.mu.Unlock()
	}
	w.mu.Lock()
	for id, h := range w.hosts { // any order: each by itself
		if _, in := places[id]; !in {
			w.drop(h)
		}
	}
	w.rings = map[string][]*watched{}
	for _, id := range slices.Sorted(maps.Keys(places)) {
		h := w.host(fettle.HostSubject(id))
		if h.ring != rings[id] {
			h.forgets(w)
			clear(h.by) // those who watch it now tell by themselves
		}
		h.place, h.ring, h.label = places[id], rings[id], cmp.Or(h.label, labels[id])
		w.rings[h.ring] = append(w.rings[h.ring], h)
	}
	w.mu.Unlock()
	poke(w.wake)
}

// run judges and asks until ctx ends, and returns when all that it started has returned.
func (w *witness) run(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { w.lateness.Run(ctx) })
	group.Go(func() { w.askServices(ctx) })
	defer w.knocks.wait()
	pause, rest := witnessIdle, time.Duration(0)
	for {
		before := w.s.o.Clock.Now()
		if rest > 0 && !pass(ctx, w.s.o.Clock, rest, nil) || !pass(ctx, w.s.o.Clock, pause, w.wake) {
			return
		}
		now := w.s.o.Clock.Now()
		pause = w.turn(ctx, now, now.Sub(before) > 4*(pause+rest))
		rest = min((witnessShare-1)*w.s.o.Clock.Now().Sub(now), witnessRest)
	}
}

// turn judges once and says what is new; it returns when to judge again.
func (w *witness) turn(ctx context.Context, now time.Time, overslept bool) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if overslept {
		w.woke = now
	}
	w.late = w.lateness.Delay()
	var some []member.Evidence
	looks, silent, old := 0, 0, 0
	for _, h := range w.hosts { // any order: they are counted
		h.stream = w.streamOf(h, now)
		switch h.stream.State {
		case member.StreamHeard, member.StreamEnded:
			looks++
		case member.StreamSilent:
			looks++
			silent++
		case member.StreamNever, member.StreamLeft:
		}
	}
	w.count(now, looks, silent)
	for id, h := range w.hosts { // any order: verdicts are sorted by host
		if h.stream.State == member.StreamHeard && len(h.by) == 0 {
			w.enter(h, member.Verdict{Host: id, Life: member.Alive, Reasons: []string{"its agent's stream is heard"}}, now)
			h.kernel, h.knock = member.Kernel{}, knocking{}
			continue
		}
		if h.unheardOf() && !w.blind && len(w.ill) == 0 && h.verdict.Life == member.CannotTell && len(h.verdict.Reasons) > 0 {
			continue // nothing is known of it, as before
		}
		w.ask(ctx, h, now)
		some = append(some, w.evidence(h))
		if h.verdict.Life != member.Alive && now.Sub(h.since) > witnessLong {
			old++ // nothing new is to be expected within a moment: it is asked in pauses of seconds
		}
	}
	pause := witnessIdle
	if len(some) > old {
		pause = witnessBusy
	}
	for _, v := range member.JudgeSome(now, some, w.ill, w.rules) {
		w.enter(w.hosts[v.Host], v, now)
	}
	w.say(now)
	return pause
}

// count finds the observers that are ill: by what they see, by their own word, and this
// server by its streams. mu is held.
func (w *witness) count(now time.Time, looks, silent int) {
	clear(w.ill)
	if why, doubts := member.Doubt(looks, silent); doubts {
		w.ill[""] = why
	}
	gone, members := map[string]int{}, map[string]int{}
	for id, h := range w.hosts { // any order: they are counted
		if h.address.IsValid() {
			members[h.ring]++
		}
		if h.doubt != "" {
			w.ill[id] = "it doubts itself: " + h.doubt
		}
		for by, s := range h.by {
			if s.Saw == member.SawSilence && now.Sub(s.At) <= witnessFresh {
				gone[by]++
			}
		}
	}
	for by, n := range gone { // any order: each is its own
		h := w.hosts[by]
		if h == nil {
			continue
		}
		if why, doubts := member.Doubt(members[h.ring]-1, n); doubts {
			w.ill[by] = why
		}
	}
}

// witnessFresh is member.Rules' own.
const witnessFresh = 30 * time.Second
