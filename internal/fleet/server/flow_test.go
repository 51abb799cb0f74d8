package server_test

import (
	"errors"
	"testing"
	"time"

	"fettle/internal/act/probe"
	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// TestToldAtOnce: what a watcher is told arrives with what the agent judged of
// it, placed no later than it was.
func TestToldAtOnce(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	b.seen(0, "the first look", true)
	from := f.brain.mark()
	before := time.Now()
	b.toy.setUp(false)
	after := time.Now()
	o := b.seen(from, "the change", false)
	if o.Host != b.host || o.Probe != "toy.state" || len(o.Edges) != 1 {
		t.Errorf("it came as %+v", o)
	}
	if o.Asked.After(after) || o.Asked.Before(before.Add(-time.Second)) {
		t.Errorf("asked %v, it was between %v and %v", o.Asked, before, after)
	}
	c := f.brain.awaitCondition(t, from, "the condition", func(c fettle.Condition) bool { return c.Code == "toy.down" })
	if c.State != fettle.Yes || c.Since.After(time.Now()) || len(c.Evidence) != 1 || c.Evidence[0].Asked.After(after) {
		t.Errorf("it came as %+v", c)
	}
	b.toy.setUp(true)
	f.brain.awaitCondition(t, from, "its end", func(c fettle.Condition) bool { return c.Code == "toy.down" && c.State == fettle.No })
}

// TestInOrder: many changes in a row arrive all, in order, each no earlier than
// the one before.
func TestInOrder(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	b.seen(0, "the first look", true)
	from := f.brain.mark()
	const n = 200
	for i := range n {
		b.toy.set(func(t *toy) { t.note = string(rune('a'+i%26)) + "x"; t.up = i < n-1 })
	}
	b.seen(from, "the last change", false)
	f.brain.mu.Lock()
	defer f.brain.mu.Unlock()
	var last time.Time
	for _, in := range f.brain.fed {
		for _, o := range in.Observations {
			if o.Subject != b.subject() {
				continue
			}
			if o.Asked.Before(last) {
				t.Fatalf("asked %v after %v", o.Asked, last)
			}
			last = o.Asked
		}
	}
}

// TestConfirmedByDigest: what is observed again unchanged becomes fresher without
// being sent again.
func TestConfirmedByDigest(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	first := b.seen(0, "the first look", true)
	from := f.brain.mark()
	// Look feeds nothing here (the loop does that with its answer), so what comes
	// after it is the digest.
	got := f.server.Look(t.Context(), []fettle.Look{{Subject: b.subject(), Probe: "toy.state"}})
	if len(got) != 1 || !got[0].Asked.After(first.Asked) {
		t.Fatalf("looked and got %+v", got)
	}
	o := f.brain.await(t, from, "the confirmation", func(o fettle.Observation) bool {
		return o.Subject == b.subject() && !o.Asked.Before(got[0].Asked)
	})
	if !o.Facts.Equal(first.Facts) || len(o.Edges) != 1 {
		t.Errorf("confirmed as %+v, it was %+v", o, first)
	}
	if _, ok := f.server.Incarnation(b.host); !ok {
		t.Error("the session did not survive the digest")
	}
}

// TestLookGoesToWhoSees: of two agents with the probe the one that sees the
// subject is asked; of what nobody sees yet, both; of what nobody has, nobody; and of
// what is on a host that is not heard, nobody either: the others do not have it.
func TestLookGoesToWhoSees(t *testing.T) {
	f := newFleet(t)
	one, two := f.box("one"), f.box("two")
	one.seen(0, "one", true)
	two.seen(0, "two", true)
	look := func(l fettle.Look) []fettle.Observation { return f.server.Look(t.Context(), []fettle.Look{l}) }
	hosts := func(list []fettle.Observation) map[fettle.Subject]bool {
		set := map[fettle.Subject]bool{}
		for _, o := range list {
			set[o.Host] = true
		}
		return set
	}
	if got := hosts(look(fettle.Look{Subject: one.subject(), Probe: "toy.state"})); len(got) != 1 || !got[one.host] {
		t.Errorf("a look at one's went to %v", got)
	}
	if got := hosts(look(fettle.Look{Subject: "toy:nobody/x", Probe: "toy.state"})); len(got) != 2 {
		t.Errorf("a look at what nobody sees went to %v", got)
	}
	if got := hosts(look(fettle.Look{Subject: "toy:nobody/x", Probe: "toy.state", Host: two.host})); len(got) != 1 || !got[two.host] {
		t.Errorf("a look for two went to %v", got)
	}
	if got := look(fettle.Look{Subject: one.subject(), Probe: "no.such"}); len(got) != 0 {
		t.Errorf("a look that nobody can make gave %v", got)
	}
	own := look(fettle.Look{Subject: one.host, Probe: "fettle.agent"})
	if len(own) != 1 || own[0].Facts["connected"] != true {
		t.Errorf("a look at the agent gave %+v", own)
	}
	from := f.brain.mark()
	one.stop()
	one.connected(from, false)
	for _, l := range []fettle.Look{{Subject: one.subject(), Probe: "toy.state"}, {Subject: one.host, Probe: probe.SelfProbe}} {
		if got := look(l); len(got) != 0 {
			t.Errorf("a look at one's, that is away, gave %+v", got)
		}
	}
}

// TestAgentGoesAndComes: the end of a session is an observation; what the agent
// had judged becomes unknown; when it is back it says what is.
func TestAgentGoesAndComes(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	b.seen(0, "the first look", true)
	b.toy.setUp(false)
	f.brain.awaitCondition(t, 0, "down", func(c fettle.Condition) bool { return c.State == fettle.Yes })
	from := f.brain.mark()
	b.stop()
	gone := b.connected(from, false)
	if gone.Facts["label"] != "box" || gone.Facts["incarnation"] == nil {
		t.Errorf("the loss came as %+v", gone)
	}
	if _, ok := f.server.Incarnation(b.host); ok {
		t.Error("a lost agent still has an incarnation")
	}
	f.brain.awaitCondition(t, from, "unknown", func(c fettle.Condition) bool { return c.Code == "toy.down" && c.State == fettle.Unknown })
	from = f.brain.mark()
	b.start()
	b.connected(from, true)
	b.seen(from, "it is still down", false)
	f.brain.awaitCondition(t, from, "down again", func(c fettle.Condition) bool { return c.Code == "toy.down" && c.State == fettle.Yes })
}

// TestGoneWhileAway: what was there before an agent's restart and is not after it
// is gone, and its condition ends with it.
func TestGoneWhileAway(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	b.toy.setUp(false)
	b.seen(0, "down", false)
	f.brain.awaitCondition(t, 0, "down", func(c fettle.Condition) bool { return c.State == fettle.Yes })
	b.stop()
	b.connected(0, false)
	from := f.brain.mark()
	b.toy.set(func(t *toy) { t.gone = true })
	b.start()
	f.brain.await(t, from, "gone", func(o fettle.Observation) bool { return o.Subject == b.subject() && o.Gone })
}

// TestServerComesBack: agents find a server that restarts, and it knows again
// what is, without anything having changed.
func TestServerComesBack(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	b.toy.setUp(false)
	b.seen(0, "down", false)
	before, _ := f.server.Incarnation(b.host)
	f.stop()
	from := f.brain.mark()
	f.start(f.address)
	b.connected(from, true)
	b.seen(from, "still down", false)
	f.brain.awaitCondition(t, from, "still down", func(c fettle.Condition) bool { return c.Code == "toy.down" && c.State == fettle.Yes })
	if after, _ := f.server.Incarnation(b.host); after != before {
		t.Errorf("the agent is %s, it was %s", after, before)
	}
}

func TestDoRecoverPreview(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	b.toy.setUp(false)
	b.seen(0, "down", false)
	p, err := f.server.Preview(t.Context(), b.dispatch("k0", f.token(5)).Step)
	if err != nil || len(p.Would) != 1 {
		t.Errorf("preview: %+v, %v", p, err)
	}
	wrong := b.dispatch("k0", f.token(5)).Step
	wrong.Action = "toy.explode"
	if _, err := f.server.Preview(t.Context(), wrong); fettle.ClassOf(err) != fettle.Refused && fettle.ClassOf(err) != fettle.Unsupported {
		t.Errorf("preview of an unknown action: %v", err)
	}
	before := time.Now()
	d := b.dispatch("k1", f.token(5))
	out, err := f.server.Do(t.Context(), d)
	if err != nil || out.Fate != fettle.Done || out.Class != "" || b.toy.applications("k1") != 1 {
		t.Fatalf("do: %+v, %v", out, err)
	}
	if out.Started.Before(before.Add(-time.Second)) || out.Started.After(time.Now()) {
		t.Errorf("started %v, it was after %v", out.Started, before)
	}
	b.seen(0, "up", true)
	again, err := f.server.Do(t.Context(), d)
	if err != nil || again.Fate != fettle.Done || !again.Replay || b.toy.applications("k1") != 1 {
		t.Errorf("the same key again: %+v, %v; applied %d times", again, err, b.toy.applications("k1"))
	}
	rec, err := f.server.Recover(t.Context(), d)
	if err != nil || rec.Fate != fettle.Done {
		t.Errorf("recover: %+v, %v", rec, err)
	}
	old := b.dispatch("k2", f.token(4))
	if out, err := f.server.Do(t.Context(), old); err != nil || out.Class != fettle.Refused || b.toy.applications("k2") != 0 {
		t.Errorf("an old leader's: %+v, %v", out, err)
	}
	late := b.dispatch("k3", f.token(5))
	late.Deadline = time.Now().Add(-time.Millisecond)
	if out, err := f.server.Do(t.Context(), late); err != nil || out.Class != fettle.Refused || b.toy.applications("k3") != 0 {
		t.Errorf("after its deadline: %+v, %v", out, err)
	}
	nobody := b.dispatch("k4", f.token(5))
	nobody.Step.Host = "host:nobody"
	if _, err := f.server.Do(t.Context(), nobody); !errors.Is(err, loop.ErrNoContact) {
		t.Errorf("for a host that is not there: %v", err)
	}
}

// TestAgentDiesInAStep: the dispatch is for an incarnation that is no more: not
// sent; Recover asks the system; the key is never done again.
func TestAgentDiesInAStep(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	b.toy.set(func(t *toy) { t.up = false; t.hold = make(chan struct{}) })
	b.seen(0, "down", false)
	d := b.dispatch("k1", f.token(5))
	answered := make(chan error, 1)
	go func() {
		_, err := f.server.Do(t.Context(), d)
		answered <- err
	}()
	<-b.toy.applied
	held := b.toy.hold
	// The session breaks in mid-step; the agent waits for its step, then ends.
	go func() {
		if err := <-answered; err == nil || errors.Is(err, loop.ErrNoContact) {
			t.Errorf("the answer was lost, and the error is %v", err)
		}
		close(held)
	}()
	b.stop()
	b.connected(0, false)
	if _, err := f.server.Do(t.Context(), d); !errors.Is(err, loop.ErrNoContact) {
		t.Errorf("while there is no agent: %v", err)
	}
	from := f.brain.mark()
	b.start()
	b.connected(from, true)
	if _, err := f.server.Do(t.Context(), d); !errors.Is(err, loop.ErrNoContact) {
		t.Errorf("for an incarnation that is no more: %v", err)
	}
	d.Token = f.token(6)
	out, err := f.server.Recover(t.Context(), d)
	if err != nil || out.Fate != fettle.Done || b.toy.applications("k1") != 1 {
		t.Errorf("recover: %+v, %v; applied %d times", out, err, b.toy.applications("k1"))
	}
	// A step that was never begun: the journal vouches for that, not a guess.
	never := d
	never.Key = "k2"
	out, err = f.server.Recover(t.Context(), never)
	if err != nil || out.Fate != fettle.NeverWillBe {
		t.Errorf("recover of what never was: %+v, %v", out, err)
	}
}

// TestSessionBreaksInAStep: who waits is told that the step may have been done.
func TestSessionBreaksInAStep(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	b.toy.set(func(t *toy) { t.up = false; t.hold = make(chan struct{}) })
	b.seen(0, "down", false)
	d := b.dispatch("k1", f.token(5))
	answered := make(chan error, 1)
	go func() {
		_, err := f.server.Do(t.Context(), d)
		answered <- err
	}()
	<-b.toy.applied
	f.stop()
	if err := <-answered; err == nil || errors.Is(err, loop.ErrNoContact) {
		t.Errorf("the answer was lost, and the error is %v", err)
	}
	from := f.brain.mark() // until it stops the server says now and then who is connected
	f.start(f.address)
	b.connected(from, true)
	d.Token = f.token(6)
	// Recover waits for a step that is under way in the agent.
	go close(b.toy.hold)
	out, err := f.server.Recover(t.Context(), d)
	if err != nil || out.Fate != fettle.Done || b.toy.applications("k1") != 1 {
		t.Errorf("recover: %+v, %v; applied %d times", out, err, b.toy.applications("k1"))
	}
}

// TestAgentsConditionsOnly: a cluster-scope condition is judged by the server's
// own mind, from what agents observe.
func TestAgentsConditionsOnly(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	b.toy.set(func(t *toy) { t.note = "odd"; t.up = false })
	f.brain.awaitCondition(t, 0, "down", func(c fettle.Condition) bool { return c.Code == "toy.down" && c.State == fettle.Yes })
	var odd fettle.Condition
	err := f.brain.Ask(t.Context(), func(m *incident.Mind) {
		odd, _ = m.View().Condition(fettle.ConditionKey{Code: "toy.odd", Subject: b.subject()})
	})
	if err != nil || odd.State != fettle.Yes {
		t.Errorf("the server's own judgement: %+v, %v", odd, err)
	}
	f.brain.mu.Lock()
	defer f.brain.mu.Unlock()
	for _, in := range f.brain.fed {
		for _, c := range in.Conditions {
			if c.Code != "toy.down" {
				t.Errorf("an agent sent %v", c)
			}
		}
	}
}
