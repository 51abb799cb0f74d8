package executor_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/permit"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
	"fettle/internal/judge/guard"
)

// granted lets the lamp in the hall be lit twice an hour, and three of all lamps there.
func granted() fettle.Policy {
	return fettle.Policy{PermitLife: 24 * time.Hour, Permits: []fettle.Grant{
		{Action: "lamp.*", Subject: "lamp:h1/hall*", Hosts: "*", PerSubject: 2, PerHost: 3, Window: time.Hour},
	}}
}

// permitOf is a permit as a server makes it.
func (f *fleet) permitOf(by *pki.Identity, host fettle.Subject, at time.Time) (permit.Signed, string) {
	f.t.Helper()
	p := permit.Make(granted(), f.ca.Fleet(), 1, host, host.Name(), at)
	s, err := permit.Sign(p, by)
	if err != nil {
		f.t.Fatal(err)
	}
	return s, p.Serial
}

// permitted has an executor take a permit of now, and returns its serial.
func (h *host) permitted() string {
	h.t.Helper()
	s, serial := h.permitOf(h.server, "host:h1", h.clock.Wall())
	if err := h.ex.Told(h.t.Context(), executor.Word{Permit: &s}); err != nil {
		h.t.Fatal(err)
	}
	return serial
}

// alone is a dispatch under a permit, for this executor, and the order that nobody
// signed.
func (h *host) alone(key, serial string, change func(*fettle.Dispatch)) executor.Order {
	h.t.Helper()
	d := h.dispatch(key, light)
	d.Token, d.Permit = fettle.Token{}, serial
	if change != nil {
		change(&d)
	}
	body, err := json.Marshal(d)
	if err != nil {
		h.t.Fatal(err)
	}
	return executor.Order{Body: body}
}

// An attacker who is the agent can use the standing permit of its host, and no more than
// that: each attempt differs in one thing from what the permit lets it.
func TestAttackerIsHeldToThePermit(t *testing.T) {
	f, other := newFleet(t), newFleet(t)
	told := func(h *host, w executor.Word) {
		if err := h.ex.Told(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	yes := true
	attacks := map[string]struct {
		attack func(h *host, serial string) executor.Order
		rules  string
		says   string
	}{
		"what takes something away": {attack: func(h *host, serial string) executor.Order {
			return h.alone("k1", serial, func(d *fettle.Dispatch) { d.Step.Action = smash })
		}, rules: "allow: [\"lamp.*\"]\n", says: "it takes something away"},
		"another lamp": {attack: func(h *host, serial string) executor.Order {
			return h.alone("k1", serial, func(d *fettle.Dispatch) { d.Step.Target = "lamp:h1/cellar" })
		}, says: "not among what it grants"},
		"another kind": {attack: func(h *host, serial string) executor.Order {
			return h.alone("k1", serial, func(d *fettle.Dispatch) { d.Step.Target = "unit:h1/hall" })
		}, says: "the action works on a lamp"},
		"another host": {attack: func(h *host, serial string) executor.Order {
			return h.alone("k1", serial, func(d *fettle.Dispatch) { d.Step.Host = "host:h2" })
		}, says: "this is host:h1"},
		"taking back": {attack: func(h *host, serial string) executor.Order {
			return h.alone("k1", serial, func(d *fettle.Dispatch) { d.Undo = true })
		}, says: "nothing is taken back"},
		"an earlier start": {attack: func(h *host, serial string) executor.Order {
			return h.alone("k1", serial, func(d *fettle.Dispatch) { d.Incarnation = "before" })
		}, says: "started anew"},
		"a frozen host": {attack: func(h *host, serial string) executor.Order {
			if err := executor.Freeze(h.dir, "hands off"); err != nil {
				t.Fatal(err)
			}
			return h.alone("k1", serial, nil)
		}, says: "frozen"},
		"a frozen fleet": {attack: func(h *host, serial string) executor.Order {
			told(h, executor.Word{FleetFrozen: &yes})
			return h.alone("k1", serial, nil)
		}, says: "the fleet was frozen"},
		"maintenance": {attack: func(h *host, serial string) executor.Order {
			now := h.clock.Wall().UTC()
			w, err := json.Marshal(guard.Window{ID: "m-1", By: "ann", Why: "new disks", Hosts: []fettle.Subject{"host:h1"}, From: now.Add(-time.Minute), Until: now.Add(time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			told(h, executor.Word{Windows: [][]byte{w}})
			return h.alone("k1", serial, nil)
		}, says: "ann works on this host"},
		"an action that is never done": {attack: func(h *host, serial string) executor.Order { return h.alone("k1", serial, nil) },
			rules: "never: [\"lamp.light\"]\n", says: "does not allow"},
		"an action that a person approves": {attack: func(h *host, serial string) executor.Order { return h.alone("k1", serial, nil) },
			rules: "approved: [\"lamp.light\"]\n", says: "signed approval"},
		"a permit that has ended": {attack: func(h *host, serial string) executor.Order {
			h.clock.pass(25*time.Hour, 25*time.Hour)
			return h.alone("k1", serial, nil)
		}, says: "ended at"},
		"a clock that was set back": {attack: func(h *host, serial string) executor.Order {
			h.clock.pass(0, -time.Hour)
			return h.alone("k1", serial, nil)
		}, says: "clock is in doubt"},
		"a serial of its own making": {attack: func(h *host, _ string) executor.Order { return h.alone("k1", "mine", nil) }, says: "this host keeps"},
		"a permit of its own making": {attack: func(h *host, _ string) executor.Order {
			s, serial := h.permitOf(h.compromise, "host:h1", h.clock.Wall())
			if err := h.ex.Told(t.Context(), executor.Word{Permit: &s}); err == nil {
				t.Error("it was taken")
			}
			return h.alone("k1", serial, nil)
		}, says: "this host keeps"},
		"a permit of another host": {attack: func(h *host, _ string) executor.Order {
			s, serial := h.permitOf(h.server, "host:h2", h.clock.Wall())
			if err := h.ex.Told(t.Context(), executor.Word{Permit: &s}); err == nil {
				t.Error("it was taken")
			}
			return h.alone("k1", serial, func(d *fettle.Dispatch) { d.Step.Host = "host:h1" })
		}, says: "this host keeps"},
		"a permit of another fleet": {attack: func(h *host, _ string) executor.Order {
			s, serial := other.permitOf(other.server, "host:h1", h.clock.Wall())
			if err := h.ex.Told(t.Context(), executor.Word{Permit: &s}); err == nil {
				t.Error("it was taken")
			}
			return h.alone("k1", serial, nil)
		}, says: "this host keeps"},
		"an earlier permit": {attack: func(h *host, _ string) executor.Order {
			s, serial := h.permitOf(h.server, "host:h1", h.clock.Wall().Add(-2*time.Hour))
			if err := h.ex.Told(t.Context(), executor.Word{Permit: &s}); err == nil {
				t.Error("it was taken")
			}
			return h.alone("k1", serial, nil)
		}, says: "this host keeps"},
		"one lamp too often": {attack: func(h *host, serial string) executor.Order {
			for i := range 2 {
				if out := h.do(h.ex, h.alone(fmt.Sprint("before", i), serial, nil)); out.Fate != fettle.Done {
					t.Fatal(out)
				}
			}
			return h.alone("k1", serial, nil)
		}, says: "acted upon 2 times"},
		"too many lamps": {attack: func(h *host, serial string) executor.Order {
			at := func(i int) func(*fettle.Dispatch) {
				return func(d *fettle.Dispatch) { d.Step.Target = fettle.Subject(fmt.Sprint("lamp:h1/hall", i)) }
			}
			for i := range 3 {
				if out := h.do(h.ex, h.alone(fmt.Sprint("before", i), serial, at(i))); out.Fate != fettle.Done {
					t.Fatal(out)
				}
			}
			return h.alone("k1", serial, at(3))
		}, says: "3 steps were done alone"},
		"too many questions": {attack: func(h *host, serial string) executor.Order {
			for i := range 256 {
				if out, err := h.ex.Recover(t.Context(), h.alone(fmt.Sprint("q", i), serial, nil)); err != nil || out.Fate != fettle.NeverWillBe {
					t.Fatal(out, err)
				}
			}
			return h.alone("k1", serial, nil)
		}, says: "more than 256 steps"},
		"under a server's signature too": {attack: func(h *host, serial string) executor.Order {
			o := h.alone("k1", serial, nil)
			o.Signed, o.Log = h.sign(h.server, warrant.Order{Say: warrant.Do, Body: warrant.HashOf(o.Body)}), h.log()
			return o
		}, says: "one of the two"},
	}
	for name, a := range attacks {
		t.Run(name, func(t *testing.T) {
			h := f.host(t.TempDir(), func(o *executor.Options) {
				if a.rules != "" {
					rules(t, o, a.rules)
				}
			})
			o := a.attack(h, h.permitted())
			before := h.lamp.count()
			if out := h.do(h.ex, o); out.Class != fettle.Refused || !strings.Contains(out.Error, a.says) {
				t.Errorf("%+v, want a refusal that says %q", out, a.says)
			}
			if again := h.do(h.ex, o); again.Class != fettle.Refused {
				t.Errorf("the second time: %+v", again)
			}
			if n := h.lamp.count(); n != before {
				t.Errorf("it was done: %v", h.lamp.done)
			}
		})
	}
}

// What the permit lets a host do is done, without any server since the start, over the
// socket as in one process; its rate holds over a restart, and by when it must begin is
// not the agent's word.
func TestPermitLets(t *testing.T) {
	f := newFleet(t)
	h := f.open(t.TempDir())
	serial := h.permitted()
	path := socketIn(t)
	stop := serve(t, h.ex, path, os.Geteuid())
	c := client(t, path)
	if s, err := c.Permit(t.Context()); err != nil || s.Why != "" || s.Kept.Serial != serial || len(s.Kept.Grants) != 1 {
		t.Errorf("it says %+v, %v", s, err)
	}
	if _, err := c.Preview(t.Context(), h.alone("k1", serial, nil)); err == nil {
		t.Error("a preview that nobody signed")
	}
	late := func(d *fettle.Dispatch) { d.Deadline = time.Unix(1, 0) }
	if out := h.do(c, h.alone("k1", serial, late)); out.Fate != fettle.Done || out.Error != "" {
		t.Errorf("%+v", out)
	}
	if out, err := c.Recover(t.Context(), h.alone("k1", serial, nil)); err != nil || out.Fate != fettle.Done || !out.Replay {
		t.Errorf("asked about: %+v, %v", out, err)
	}
	stop()
	h.stop()
	h = f.open(h.dir)
	if out := h.do(h.ex, h.alone("k2", serial, nil)); out.Fate != fettle.Done {
		t.Errorf("after a restart: %+v", out)
	}
	if out := h.do(h.ex, h.alone("k3", serial, nil)); out.Class != fettle.Refused || h.lamp.count() != 1 {
		t.Errorf("the rate is forgotten: %+v", out)
	}
	frozen := true
	if err := h.ex.Told(t.Context(), executor.Word{FleetFrozen: &frozen}); err != nil {
		t.Fatal(err)
	}
	h.stop()
	if h = f.open(h.dir); !executor.FleetFrozen(h.dir) {
		t.Error("that the fleet is frozen is forgotten")
	}
	if err := os.WriteFile(filepath.Join(h.dir, "permit"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.stop()
	h = f.open(h.dir)
	if s, err := h.ex.Permit(t.Context()); err != nil || s.Why == "" {
		t.Errorf("what was changed on the disk is believed: %+v, %v", s, err)
	}
}

// What a permit says nothing of is not asked about under it: a leader's key, and one that
// was never begun here, of which the adapter is not asked.
func TestQuestionsUnderAPermit(t *testing.T) {
	h := newFleet(t).host(t.TempDir())
	serial := h.permitted()
	if out := h.do(h.ex, h.order(h.dispatch("leader", light))); out.Fate != fettle.Done {
		t.Fatal(out)
	}
	if out, err := h.ex.Recover(t.Context(), h.alone("leader", serial, nil)); err != nil || out.Class != fettle.Refused || out.Fate != fettle.UnknownFate {
		t.Errorf("a leader's key: %+v, %v", out, err)
	}
	if out, err := h.ex.Recover(t.Context(), h.alone("new", serial, nil)); err != nil || out.Fate != fettle.NeverWillBe {
		t.Errorf("a key that was never begun: %+v, %v", out, err)
	}
	if n := h.lamp.asks(); n != 0 {
		t.Errorf("the adapter was asked %d times", n)
	}
	if out := h.do(h.ex, h.alone("new", serial, nil)); out.Fate != fettle.NeverWillBe || h.lamp.count() != 1 {
		t.Errorf("it is done nevertheless: %+v", out)
	}
}
