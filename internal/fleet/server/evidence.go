package server

import (
	"cmp"
	"context"
	"net/netip"
	"time"

	"fettle/internal/fleet/member"
	"fettle/internal/fleet/wire"
)

// health is how well an agent's node sees, as it was told last.
type health struct {
	delay   time.Duration
	loss    int
	members int
	spread  member.Spread
}

// maxSightings is how many sightings one message may have: a ring's, and room.
const maxSightings = 2 * member.RingLimit

// sightings takes in what an agent's node has seen. now is the agent's clock when it was
// sent, at ours when it came. A sighting is of this session's host and of no other, and
// only hosts of its own ring are looked at.
func (w *witness) sightings(x *session, at time.Time, now int64, m *wire.Sightings) {
	by := x.host.subject.Root()
	list := x.dated(at, now, m.GetSeen())
	w.mu.Lock()
	defer w.mu.Unlock()
	own := w.host(x.host.subject)
	if own.session != x || own.ring == "" || m.GetRing() != own.ring {
		return // of a ring that it is to leave
	}
	if own.doubt != m.GetDoubt() || len(own.sees)+len(list) > 0 { // most digests have nothing new
		defer poke(w.wake)
	}
	own.doubt = cut(m.GetDoubt(), maxWhy)
	if h := m.GetHealth(); h != nil {
		own.health = readHealth(h, at)
	}
	if m.GetAll() {
		own.forgets(w)
	}
	for _, s := range list {
		h := w.hosts[s.host]
		if h == nil || h == own || h.ring != own.ring {
			continue
		}
		before := h.by[by]
		delete(h.by, by)
		delete(own.sees, s.host)
		if !s.bad && (s.Saw != member.SawAnswer || len(h.by) == 0) {
			continue // it is there, or left; an answer is told to those who doubt
		}
		s.By, s.Window = by, s.At.Sub(s.Since)
		if before.Saw == s.Saw && before.Window > 0 {
			s.Window = before.Window
		}
		h.by[by], own.sees[s.host] = s.Sighting, true
		if !h.address.IsValid() && h.session == nil {
			h.address = s.address // it was not heard since this server leads; its ring knows where it was
		}
		w.alarm(h, at)
	}
}

// forgets takes back all that this host's node has seen of others. The witness's mu is
// held.
func (h *watched) forgets(w *witness) {
	for id := range h.sees { // any order: all go
		if other := w.hosts[id]; other != nil {
			delete(other.by, h.place.Host)
		}
	}
	clear(h.sees)
}

// dated is a sighting with its times on our clock.
type dated struct {
	member.Sighting
	host    string
	address netip.AddrPort
	bad     bool // the node suspects the host, or holds it for gone
}

// dated reads sightings. What cannot be read is one in which nothing was seen.
func (x *session) dated(at time.Time, now int64, seen []*wire.Sighting) []dated {
	x.host.mu.Lock()
	defer x.host.mu.Unlock()
	when := func(age int64) time.Time {
		if ours := x.clocks.Ours(now - max(0, age)); ours.Before(at) {
			return ours
		}
		return at
	}
	var list []dated
	for _, s := range seen[:min(len(seen), maxSightings)] {
		d := dated{host: s.GetHost(), address: addressIn(s.GetAddress()), bad: s.GetState() == member.Suspect.String() || s.GetState() == member.Gone.String()}
		_ = d.Saw.UnmarshalText([]byte(s.GetSaw())) // it never fails
		d.Since, d.At = when(s.GetSinceAgeNs()), when(s.GetAgeNs())
		list = append(list, d)
	}
	return list
}

func readHealth(h *wire.GossipHealth, at time.Time) health {
	out := health{
		delay: time.Duration(max(0, h.GetOwnDelayNs())),
		loss:  int(min(max(0, h.GetLoss()), 1000)), members: int(h.GetMembers()),
	}
	if h.GetSpreadAgeNs() >= 0 {
		out.spread = member.Spread{
			At: at.Add(-time.Duration(h.GetSpreadAgeNs())), Members: int(h.GetSpreadMembers()), Heard: int(h.GetSpreadHeard()),
			P50: time.Duration(h.GetSpreadP50Ns()), P99: time.Duration(h.GetSpreadP99Ns()), Worst: time.Duration(h.GetSpreadWorstNs()),
		}
	}
	return out
}

// alarm has a host asked at once: somebody has seen something bad of it. mu is held.
func (w *witness) alarm(h *watched, now time.Time) {
	if h.knock.due.IsZero() || h.knock.due.After(now) {
		h.knock.due = now
	}
}

// measured is the way to a host and back, as the server and the host itself measure it.
// mu is held.
func (w *witness) measured(h *watched) member.Measured {
	if x := h.session; x != nil {
		x.mu.Lock()
		h.trip = x.trip
		x.mu.Unlock()
	}
	// The shortest of late is the network's; how late either end wakes up is counted by itself.
	return member.Measured{OwnDelay: w.late, TheirDelay: h.health.delay, RoundTrip: h.trip, Loss: h.health.loss}
}

func (w *witness) windows() member.Windows {
	return cmp.Or(w.s.o.Gossip.Windows, member.DefaultWindows())
}

// streamOf is how a host's stream stands. It is silent when a question has stayed without
// an answer, and without any other word, for the whole window. mu is held.
func (w *witness) streamOf(h *watched, now time.Time) member.Stream {
	x := h.session
	if x == nil {
		st := h.ended
		if st.State == member.StreamSilent {
			st.At = now // nothing has come since
		}
		return st
	}
	heard, asked := x.open()
	if w.woke.After(asked) && !asked.IsZero() {
		asked = w.woke
	}
	// Nearly all are answered: the window is worked out for the few that are not.
	if !asked.IsZero() && now.Sub(asked) >= w.windows().Floor && now.Sub(asked) >= w.windows().Silence(w.measured(h)) {
		return member.Stream{State: member.StreamSilent, Since: heard, At: now}
	}
	return member.Stream{State: member.StreamHeard, At: heard}
}

// open returns when the agent was heard last, and when the first question was sent that
// is open since; zero: none is.
func (x *session) open() (heard, asked time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, sent := range x.pings { // any order: the earliest counts
		if !x.heard.After(sent) && (asked.IsZero() || sent.Before(asked)) {
			asked = sent
		}
	}
	return x.heard, asked
}

// evidence is all that is known of one host. mu is held.
func (w *witness) evidence(h *watched) member.Evidence {
	e := member.Evidence{
		Host: h.place.Host, Domain: h.place.Domain(), Window: w.windows().Silence(w.measured(h)), Stream: h.stream, Kernel: h.kernel,
	}
	e.Kernel.Window = min(e.Kernel.Window, e.Window)
	for _, o := range w.rings[h.ring] {
		if o == h || !o.address.IsValid() {
			continue
		}
		id := o.place.Host
		s, ok := h.by[id]
		if !ok {
			s = member.Sighting{By: id}
		}
		s.Domain = o.place.Domain()
		s.Window = min(s.Window, e.Window)
		_, s.Ill = w.ill[id]
		e.Peers = append(e.Peers, s)
	}
	for _, s := range h.service { // any order, as above
		e.Services = append(e.Services, s)
	}
	return e
}

// unheardOf reports whether nobody has ever seen anything of a host, in this term. The
// witness's mu is held.
func (h *watched) unheardOf() bool {
	return h.session == nil && h.stream.State == member.StreamNever && len(h.by)+len(h.service) == 0 && h.kernel == (member.Kernel{}) && !h.address.IsValid()
}

// ask has a host that something bad is known of asked by this server itself: over its
// stream, and its kernel. mu is held.
func (w *witness) ask(ctx context.Context, h *watched, now time.Time) {
	windows, m := w.windows(), w.measured(h)
	if x := h.session; x != nil {
		w.s.pingNow(x, now, windows.Silence(m))
	}
	if h.knock.due.IsZero() {
		h.knock.due = now
	}
	if h.knock.busy || now.Before(h.knock.due) || !h.address.IsValid() {
		return
	}
	h.knock.busy = true
	plan := knockPlan{asks: windows.Asks(m.Loss), pace: windows.Pace(m), wait: windows.Wait(m)}
	began := w.knocks.start(ctx, h.address, plan, func(saw member.Saw) { w.knocked(h, saw, now, plan) })
	if !began { // too many at once: the next turn tries again
		h.knock.busy = false
	}
}

// knocked takes in what a host's kernel did.
func (w *witness) knocked(h *watched, saw member.Saw, began time.Time, plan knockPlan) {
	now := w.s.o.Clock.Now()
	w.mu.Lock()
	h.knock.busy = false
	h.knock.count++
	h.knock.due = now.Add(again(h.knock.count))
	k := member.Kernel{At: now, Since: began, Window: plan.long()}
	switch saw {
	case member.SawAccept, member.SawRefusal:
		k.Answers, k.Refuses = member.Yes, saw == member.SawRefusal
	case member.SawSilence:
		k.Answers = member.No
	case member.SawNothing, member.SawAnswer:
	}
	if h.kernel.Answers == k.Answers && h.kernel.Refuses == k.Refuses && !w.woke.After(h.kernel.Since) {
		k.Since = h.kernel.Since
	}
	if w.woke.After(began) { // this server slept meanwhile: silence of that time is its own
		k = member.Kernel{}
	}
	h.kernel = k
	w.mu.Unlock()
	poke(w.wake)
}

// again is how long after its answer a kernel is asked anew: soon at first, and always
// well before the last answer is too old to be believed.
func again(count int) time.Duration {
	return min(time.Duration(count)*time.Second/2, witnessFresh/3)
}
