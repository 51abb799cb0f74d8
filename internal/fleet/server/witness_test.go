package server

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/member"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
	"fettle/internal/machine"
)

// still is a clock that stands until a test moves it.
type still struct {
	machine.Clock
	now time.Time
}

func (c *still) Now() time.Time  { return c.now }
func (c *still) Wall() time.Time { return c.now }

// told is a brain that remembers what it is fed.
type told struct{ seen []fettle.Observation }

func (b *told) Feed(in incident.Input)                            { b.seen = append(b.seen, in.Observations...) }
func (b *told) Ask(context.Context, func(*incident.Mind)) error   { return nil }
func (b *told) Answer(_ context.Context, _ incident.Answer) error { return nil }

// latest is the last that was said of a subject.
func (b *told) latest(t testing.TB, s fettle.Subject) fettle.Facts {
	t.Helper()
	for _, o := range slices.Backward(b.seen) {
		if o.Subject == s {
			return o.Facts
		}
	}
	t.Fatalf("nothing was said of %s", s)
	return nil
}

// stage is a witness over hosts with sessions, each in a rack of its own, in one ring,
// moved by hand.
type stage struct {
	t     testing.TB
	clock *still
	brain *told
	w     *witness
	x     map[string]*session
}

func newStage(t testing.TB, hosts ...string) *stage {
	t.Helper()
	s := &stage{t: t, clock: &still{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}, brain: &told{}, x: map[string]*session{}}
	srv := &Server{o: Options{Clock: s.clock, Log: slog.New(slog.DiscardHandler)}, self: fettle.NewSubject(KindServer, "me"), hosts: map[fettle.Subject]*host{}, observers: map[look][]*host{}}
	s.w = newWitness(srv)
	// No socket in these tests: what a kernel does is said by the test.
	s.w.knocks.dial = func(context.Context, netip.AddrPort) error { return context.Canceled }
	srv.term.Store(&term{brain: s.brain, ctx: t.Context(), witness: s.w, gossip: newGossip(srv)})
	places, rings := map[string]member.Place{}, map[string]string{}
	for i, id := range hosts {
		places[id] = member.Place{Host: id, Zone: "z", Rack: id}
		rings[id] = "r"
		h := srv.host(fettle.HostSubject(id))
		x := newSession(t.Context(), func(error) {}, h, &wire.Hello{Incarnation: "i", Gossips: true, Label: "label-" + id})
		x.heard, s.x[id] = s.clock.now, x
		s.w.began(x)
		s.w.gossipsAt(h.subject, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 7403))
	}
	s.w.seated(places, rings)
	t.Cleanup(s.w.knocks.wait)
	return s
}

// pass lets time go by, in which all but the named hosts are heard.
func (s *stage) pass(d time.Duration, but ...string) {
	s.clock.now = s.clock.now.Add(d)
	for id, x := range s.x {
		if !slices.Contains(but, id) {
			x.heard = s.clock.now
			clear(x.pings)
		}
	}
}

// turn has the witness weigh once, and the questions that it asks end.
func (s *stage) turn() {
	s.w.turn(s.t.Context(), s.clock.now, false)
	s.w.knocks.wait()
}

// sees has a host's node tell of another.
func (s *stage) sees(by, of string, state member.State, saw member.Saw, since time.Duration) {
	s.t.Helper()
	x := s.x[by]
	now := s.clock.now.UnixNano()
	x.clocks.Heard(s.clock.now, now)
	s.w.sightings(x, s.clock.now, now, &wire.Sightings{Ring: "r", Seen: []*wire.Sighting{{Host: of, State: state.String(), Saw: saw.String(), SinceAgeNs: int64(since)}}})
}

// kernel says what the server's own question found.
func (s *stage) kernel(of string, saw member.Saw, took time.Duration) {
	h := s.w.hosts[of]
	s.w.knocked(h, saw, s.clock.now.Add(-took), knockPlan{asks: 1, wait: took})
}

func (s *stage) life(id, want string) fettle.Facts {
	s.t.Helper()
	s.turn()
	f := s.brain.latest(s.t, fettle.HostSubject(id))
	if got, _ := f.Str("life"); got != want {
		why, _ := f.Str("why")
		s.t.Errorf("%s is %s (%s), want %s", id, got, why, want)
	}
	return f
}

// TestDeadTakesTwoKinds: peers alone do not make a host dead, nor do the servers; both do.
// Where nobody can tell, no rule can say yes or no.
func TestDeadTakesTwoKinds(t *testing.T) {
	s := newStage(t, "a", "b", "c", "d")
	s.life("a", "alive")
	s.pass(time.Second, "a")
	for _, by := range []string{"b", "c", "d"} {
		s.sees(by, "a", member.Gone, member.SawSilence, 200*time.Millisecond)
	}
	s.life("b", "alive")
	f := s.life("a", "cannot_tell")
	if _, there := f.Bool("dead"); there {
		t.Errorf("nobody can tell, and it is told as %v", f)
	}
	s.kernel("a", member.SawSilence, 200*time.Millisecond)
	if f := s.life("a", "dead"); f["dead"] != true || f["hung"] != false || f["agent_dead"] != false {
		t.Errorf("it is told as %v", f)
	}
	s.pass(time.Second)
	s.sees("b", "a", member.Here, member.SawAnswer, 0)
	s.life("a", "alive")
}

// TestServersAlone: a host that this server alone does not hear is not dead.
func TestServersAlone(t *testing.T) {
	s := newStage(t, "a", "b", "c", "d")
	s.turn()
	s.x["a"].pings[1] = s.clock.now
	s.pass(time.Second, "a")
	s.kernel("a", member.SawSilence, 200*time.Millisecond)
	s.life("a", "cannot_tell")
}

// TestHungAndStalled: a stream that is silent and a kernel that answers are a hang where a
// peer misses the host too; else the network stalls.
func TestHungAndStalled(t *testing.T) {
	s := newStage(t, "a", "b", "c", "d")
	s.turn()
	s.x["a"].pings[1] = s.clock.now
	s.pass(2*time.Second, "a")
	s.kernel("a", member.SawAccept, time.Millisecond)
	s.life("a", "cannot_tell")
	s.sees("b", "a", member.Gone, member.SawAccept, 100*time.Millisecond)
	s.life("a", "hung")
}

// TestOwnSleep: this server slept for a while. What it did not hear meanwhile is nobody's
// silence.
func TestOwnSleep(t *testing.T) {
	s := newStage(t, "a", "b", "c", "d")
	s.turn()
	s.x["a"].pings[1] = s.clock.now
	s.pass(5*time.Second, "a")
	s.w.turn(t.Context(), s.clock.now, true)
	s.life("a", "alive")
	s.pass(5*time.Second, "a")
	s.life("a", "cannot_tell")
}

// TestServerIsIll: most streams fall silent at once. The likeliest cause is this server,
// it says so, and nobody is dead.
func TestServerIsIll(t *testing.T) {
	s := newStage(t, "a", "b", "c", "d")
	s.turn()
	for _, id := range []string{"a", "b", "c"} {
		s.x[id].pings[1] = s.clock.now
	}
	s.pass(time.Second, "a", "b", "c")
	for _, id := range []string{"a", "b", "c"} {
		s.sees("d", id, member.Gone, member.SawSilence, 300*time.Millisecond)
		s.kernel(id, member.SawSilence, 300*time.Millisecond)
	}
	for _, id := range []string{"a", "b", "c"} {
		s.life(id, "cannot_tell")
	}
	if f := s.brain.latest(t, s.w.s.self); f["ill"] != true {
		t.Errorf("of itself it says %v", f)
	}
}

// TestObserverIsIll: a host to which most others seem gone is ill itself, and its word
// counts for nothing.
func TestObserverIsIll(t *testing.T) {
	s := newStage(t, "a", "b", "c", "d", "e")
	s.turn()
	s.pass(time.Second, "b")
	for _, of := range []string{"b", "c", "d", "e"} {
		s.sees("a", of, member.Gone, member.SawSilence, 300*time.Millisecond)
	}
	s.kernel("b", member.SawSilence, 300*time.Millisecond)
	s.life("b", "cannot_tell")
	f := s.life("a", "alive")
	if why, _ := f.Str("ill_why"); f["ill"] != true || !strings.Contains(why, "4 of the 4") {
		t.Errorf("the observer is told as %v", f)
	}
}

// TestDeadSinceBefore: a host that died before this server led was never heard by it. Its
// ring knows where it was, so its kernel can be asked, and that is the second kind.
func TestDeadSinceBefore(t *testing.T) {
	s := newStage(t, "a", "b", "c", "d")
	h := s.w.hosts["a"]
	h.session, h.address = nil, netip.AddrPort{}
	s.life("a", "cannot_tell")
	s.pass(time.Second, "a")
	now := s.clock.now.UnixNano()
	for _, by := range []string{"b", "c", "d"} {
		s.w.sightings(s.x[by], s.clock.now, now, &wire.Sightings{Ring: "r", All: true, Seen: []*wire.Sighting{{
			Host: "a", State: "gone", Saw: "silence", SinceAgeNs: int64(time.Minute), AgeNs: int64(time.Second), Address: "10.0.0.1:7403"}}})
	}
	if h.address != netip.MustParseAddrPort("10.0.0.1:7403") {
		t.Fatalf("it would be asked at %v", h.address)
	}
	s.kernel("a", member.SawSilence, 200*time.Millisecond)
	s.life("a", "dead")
	for _, bad := range []string{"", "x", "0.0.0.0:1", "224.0.0.1:1", "10.0.0.1:0"} {
		if at := addressIn(bad); at.IsValid() {
			t.Errorf("%q would be asked", bad)
		}
	}
}

// TestSightingsOfOthers: a host speaks of its own ring and for itself.
func TestSightingsOfOthers(t *testing.T) {
	s := newStage(t, "a", "b", "c", "d")
	now := s.clock.now.UnixNano()
	bad := []*wire.Sighting{{Host: "a", State: "gone", Saw: "silence"}, {Host: "nobody", State: "gone", Saw: "silence"}, {Host: "b", State: "gone", Saw: "silence", AgeNs: -1 << 63, SinceAgeNs: 1<<63 - 1}}
	s.w.sightings(s.x["b"], s.clock.now, now, &wire.Sightings{Ring: "another", Seen: bad})
	if len(s.w.hosts["a"].by) != 0 {
		t.Error("a sighting of another ring is taken")
	}
	s.w.sightings(s.x["b"], s.clock.now, now, &wire.Sightings{Ring: "r", Seen: bad})
	if len(s.w.hosts["a"].by) != 1 || len(s.w.hosts["b"].by) != 0 || s.w.hosts["nobody"] != nil {
		t.Errorf("taken of a: %v, of itself: %v", s.w.hosts["a"].by, s.w.hosts["b"].by)
	}
	old := s.x["b"]
	next := newSession(t.Context(), func(error) {}, old.host, &wire.Hello{Incarnation: "j"})
	s.w.began(next)
	s.w.sightings(old, s.clock.now, now, &wire.Sightings{Ring: "r", All: true})
	if len(s.w.hosts["a"].by) != 1 {
		t.Error("a session that was replaced is heard")
	}
	s.w.sightings(next, s.clock.now, now, &wire.Sightings{Ring: "r", All: true})
	if len(s.w.hosts["a"].by) != 0 {
		t.Error("a digest does not take back what is no more")
	}
}

// TestEndsOfSessions: only a connection that the other side's kernel ended itself says
// that the agent is gone.
func TestEndsOfSessions(t *testing.T) {
	x := &session{}
	for _, c := range []struct {
		err     error
		relayed bool
		want    member.StreamState
	}{
		{&brokenError{context.DeadlineExceeded}, false, member.StreamEnded},
		{context.Canceled, false, member.StreamEnded},
		{&brokenError{context.DeadlineExceeded}, true, member.StreamNever},
		{errSilent, false, member.StreamSilent},
		{errSilent, true, member.StreamSilent},
		{errSlow, false, member.StreamNever},
		{errForgotten, false, member.StreamNever},
		{errDigest, false, member.StreamNever},
	} {
		if got := x.endOf(c.err, c.relayed); got != c.want {
			t.Errorf("%v, relayed %v: %d, want %d", c.err, c.relayed, got, c.want)
		}
	}
}

// TestForgottenHost: of a host that was sent away nothing is left.
func TestForgottenHost(t *testing.T) {
	s := newStage(t, "a", "b", "c")
	s.sees("a", "b", member.Gone, member.SawSilence, time.Second)
	s.w.seated(map[string]member.Place{"b": {Host: "b"}, "c": {Host: "c"}}, map[string]string{"b": "r", "c": "r"})
	if s.w.hosts["a"] != nil || len(s.w.hosts["b"].by) != 0 {
		t.Errorf("left: %v, and its word %v", s.w.hosts["a"], s.w.hosts["b"].by)
	}
}

// BenchmarkQuietFleet is one turn over a fleet of which nothing bad is known; an idle
// leader makes four a second.
func BenchmarkQuietFleet(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			hosts := make([]string, n)
			for i := range hosts {
				hosts[i] = "h" + strconv.Itoa(i)
			}
			s := newStage(b, hosts...)
			s.turn()
			for b.Loop() {
				s.turn()
			}
		})
	}
}

// BenchmarkTrouble is one turn while one host of a ring of 200, of 10,000, is in doubt.
func BenchmarkTrouble(b *testing.B) {
	hosts := make([]string, 10000)
	for i := range hosts {
		hosts[i] = "h" + strconv.Itoa(i)
	}
	s := newStage(b, hosts...)
	for i, id := range hosts {
		s.w.hosts[id].ring = "r" + strconv.Itoa(i/200)
	}
	s.w.hosts["h0"].by["h1"] = member.Sighting{By: "h1", Saw: member.SawSilence, Since: s.clock.now, At: s.clock.now}
	s.w.rings = map[string][]*watched{}
	for _, id := range hosts {
		h := s.w.hosts[id]
		s.w.rings[h.ring] = append(s.w.rings[h.ring], h)
	}
	for b.Loop() {
		s.turn()
	}
}
