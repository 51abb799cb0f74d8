package server_test

import (
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/server"
)

// A server that begins to lead misses nobody while agents still come; then it does.
func TestMissesNobodyTooEarly(t *testing.T) {
	f := newFleet(t)
	here := f.box("here")
	here.seen(0, "the first look", true)
	away, _ := f.join("away")
	f.stop()
	from := f.brain.mark()
	f.start("")
	first := true
	f.brain.await(t, from, "the one that does not come is missed", func(o fettle.Observation) bool {
		if o.Probe != server.AgentProbe || o.Subject != away.Name.Host() {
			return false
		}
		connected, told := o.Facts.Bool("connected")
		if first && told {
			t.Errorf("at the very beginning it is said to be connected: %v", connected)
		}
		first = false
		return told && !connected
	})
}

// A server that begins to lead asks at once what became of a step; its agent comes a
// moment later, and then it is answered.
func TestAsksWhenTheAgentComes(t *testing.T) {
	f := newFleet(t, func(o *server.Options) { o.LostAfter = time.Minute })
	b := f.box("one")
	b.connected(0, true)
	d := b.dispatch("k1", f.token(1))
	if out, err := f.server.Do(t.Context(), d); err != nil || out.Fate != fettle.Done {
		t.Fatalf("the step: %+v, %v", out, err)
	}
	address := f.address
	f.stop()
	f.start(address)
	if out, err := f.server.Recover(t.Context(), d); err != nil || out.Fate != fettle.Done {
		t.Errorf("what became of it: %+v, %v", out, err)
	}
}
