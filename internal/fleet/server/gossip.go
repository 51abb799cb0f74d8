package server

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"fettle/internal/fleet/member"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
	"fettle/internal/machine"
)

const (
	// gossipEvery is how often it is looked anew who is to be in which ring.
	gossipEvery = 5 * time.Second
	// gossipPause is at least between two rounds of telling: many agents come at once.
	gossipPause = 100 * time.Millisecond
	// gossipShare is how much of the time may go into looking who there is, one part in so
	// many, where that changes all the time.
	gossipShare = 10
	// gossipSeeds is how many members of a ring its members are told of.
	gossipSeeds = 5
)

// gossip says for one term which hosts gossip with each other, and with which keys.
// Rings are made of all hosts in the register, whether they gossip or not: so they
// follow from what is kept alone, and a new leader names the same. One keyset serves all
// rings, since the ring's name is authenticated with each packet.
type gossip struct {
	s     *Server
	shelf pki.Shelf // nil: there is no gossip
	wake  chan struct{}

	mu     sync.Mutex
	places map[string]member.Place // by host's identity
	rings  map[string]string       // host's identity to its ring's name
	count  int                     // of rings
	keys   keyset
	hosts  map[string]*gossiper
	news   bool // a host gossips that has no place, or the keys are to be read anew
}

// gossiper is what a host's agent says of its part.
type gossiper struct {
	session *session // the present one; nil: not connected
	able    bool     // it is set up to take part
	heard   bool     // it was connected in this term
	told    *wire.Ring
	state   *wire.RingState // nil: nothing yet
}

func newGossip(s *Server) *gossip {
	return &gossip{s: s, shelf: s.o.Shelf, wake: make(chan struct{}, 1), places: map[string]member.Place{}, rings: map[string]string{}, hosts: map[string]*gossiper{}}
}

// gossip calls f with the gossip of the present term, if there is one.
func (s *Server) gossip(f func(*gossip)) {
	if t := s.term.Load(); t != nil {
		f(t.gossip)
	}
}

// run keeps rings and keys as they should be until ctx ends. An error is said to the
// log once, and what failed is tried again.
func (g *gossip) run(ctx context.Context) {
	clock := g.s.o.Clock
	last, looked, rest := "", time.Time{}, time.Duration(0)
	for {
		var err error
		if now := clock.Now(); looked.IsZero() || now.Sub(looked) >= gossipEvery || g.stirred() && now.Sub(looked) >= rest {
			err = g.plan(ctx)
			looked = clock.Now()
			rest = min(gossipShare*looked.Sub(now), gossipEvery)
		}
		text, pause := "", gossipEvery
		switch {
		case err != nil:
			looked, pause = time.Time{}, gossipPause
			text = err.Error()
		case g.stirred():
			pause = max(rest, gossipPause)
			fallthrough
		default:
			g.tell()
		}
		if text != last && err != nil && ctx.Err() == nil && !errors.Is(err, errStarting) {
			g.s.o.Log.Error("the gossip is not as it should be; it is tried again", "error", err)
		}
		last = text
		if !pass(ctx, clock, gossipPause, nil) || !pass(ctx, clock, pause, g.wake) {
			return
		}
	}
}

// pass lets time go by, or less where it is woken; false when ctx ends.
func pass(ctx context.Context, clock machine.Clock, d time.Duration, wake <-chan struct{}) bool {
	due, stop := clock.After(d)
	defer stop()
	select {
	case <-wake:
	case <-due:
	case <-ctx.Done():
		return false
	}
	return true
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// began notes that an agent is connected.
func (g *gossip) began(x *session) {
	g.mu.Lock()
	id := x.host.subject.Root()
	g.hosts[id] = &gossiper{session: x, able: x.gossips, heard: true}
	if _, placed := g.places[id]; !placed && x.gossips {
		g.news = true
	}
	g.mu.Unlock()
	if x.gossips {
		poke(g.wake)
	}
}

// stirred reports whether there is news that a plan must take in.
func (g *gossip) stirred() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.news
}

// stir has the next plan come soon.
func (g *gossip) stir() {
	g.mu.Lock()
	g.news = true
	g.mu.Unlock()
	poke(g.wake)
}

// over notes that a session has ended. What the agent said holds on: it gossips on.
func (g *gossip) over(x *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if h := g.hosts[x.host.subject.Root()]; h != nil && h.session == x {
		h.session = nil
	}
}

// said takes in how far an agent has got.
func (g *gossip) said(x *session, st *wire.RingState) {
	st.Error = cut(st.GetError(), maxWhy)
	g.mu.Lock()
	h := g.hosts[x.host.subject.Root()]
	news := h != nil && h.session == x
	if news {
		h.state = st
		g.news = g.news || g.keys.phase() != settled
	}
	g.mu.Unlock()
	if news {
		g.s.witness(func(w *witness) { w.gossipsAt(x.host.subject, g.addressOf(st)) })
		poke(g.wake)
	}
}

// plan looks who is in the fleet and where, and takes a rotation of the keys on.
func (g *gossip) plan(ctx context.Context) error {
	g.mu.Lock()
	g.news = false
	g.mu.Unlock()
	places, err := g.s.places(ctx)
	if err != nil {
		return err
	}
	g.mu.Lock()
	same := maps.Equal(places, g.places)
	g.mu.Unlock()
	if !same {
		list := slices.SortedFunc(maps.Values(places), func(a, b member.Place) int { return cmp.Compare(a.Host, b.Host) })
		rings, err := member.Rings(list, member.RingLimit)
		if err != nil {
			return err
		}
		g.seat(places, rings)
		g.s.witness(func(w *witness) { w.seated(places, g.ringOf()) })
	}
	if g.shelf == nil {
		return nil
	}
	return g.turn(ctx)
}

func (g *gossip) seat(places map[string]member.Place, rings [][]string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.places, g.count, g.rings = places, len(rings), map[string]string{}
	for i, hosts := range rings {
		for _, h := range hosts {
			g.rings[h] = g.s.o.CA.Fleet() + "/" + strconv.Itoa(i)
		}
	}
	for h := range g.hosts {
		if _, in := places[h]; !in {
			delete(g.hosts, h) // it was sent away
		}
	}
}

func (g *gossip) ringOf() map[string]string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.rings)
}

// turn reads the keys, makes the first, and takes a rotation on where all confirm.
func (g *gossip) turn(ctx context.Context) error {
	keys, err := readKeys(ctx, g.shelf)
	if err != nil {
		return err
	}
	if keys.use == 0 { // nobody has any yet
		first, ok := keys.newest()
		if !ok {
			first.serial = 1
			err = mintKey(ctx, g.shelf, first.serial, g.s.o.Clock.Wall())
		}
		if err == nil {
			err = useKey(ctx, g.shelf, first.serial)
		}
		if keys, err = readAgain(ctx, g.shelf, err); err != nil {
			return err
		}
	}
	g.mu.Lock()
	g.keys = keys
	waits := g.waits()
	g.mu.Unlock()
	if keys.phase() == settled || len(waits) > 0 {
		return nil
	}
	g.s.o.Log.Info("a rotation of the gossip's keys goes on: all hosts have confirmed", "phase", keys.phase().String())
	if keys, err = readAgain(ctx, g.shelf, keys.advance(ctx, g.shelf)); err != nil {
		return err
	}
	g.mu.Lock()
	g.keys = keys
	g.mu.Unlock()
	return nil // what is told now is to be confirmed
}

func readAgain(ctx context.Context, shelf pki.Shelf, err error) (keyset, error) {
	if err != nil {
		return keyset{}, err
	}
	return readKeys(ctx, shelf)
}

// waits are the hosts that a rotation waits for: those that have not confirmed, the ones
// that were not heard of in this term among them, since they may gossip on with what
// they keep. Those that are connected and do not gossip are not waited for. mu is held.
func (g *gossip) waits() []string {
	if g.keys.phase() == settled {
		return nil
	}
	var list []string
	for host := range g.places { // any order: it is sorted below
		h := g.hosts[host]
		switch {
		case h != nil && h.heard && !h.able:
		case h != nil && h.state.GetName() == "" && h.state.GetError() != "": // it has no gossip to be lost from
		case h == nil || !g.keys.confirms(h.state.GetKeys()):
			list = append(list, host)
		}
	}
	slices.Sort(list)
	return list
}
