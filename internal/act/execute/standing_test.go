package execute

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fettle/internal/fettle"
)

var giving = fettle.Catalogue{
	Adapter: "gift",
	Actions: []fettle.ActionSpec{
		{Name: "gift.start", Version: 1, Target: fettle.KindUnit, Undo: true, Risk: fettle.LowRisk, Scope: fettle.HostScope, Timeout: 5 * time.Second,
			Effects: []fettle.EffectSpec{{Fact: "active", To: "true"}}},
		{Name: "gift.stop", Version: 1, Target: fettle.KindUnit, Undo: true, Risk: fettle.LowRisk, Scope: fettle.HostScope, Timeout: 5 * time.Second, Takes: []fettle.Taking{fettle.TakesCapacity}},
		{Name: "gift.reset", Version: 1, Target: fettle.KindUnit, NoUndo: "gone", Risk: fettle.LowRisk, Scope: fettle.HostScope, Timeout: 5 * time.Second},
		{Name: "gift.risky", Version: 1, Target: fettle.KindUnit, Undo: true, Risk: fettle.MediumRisk, Scope: fettle.HostScope, Timeout: 5 * time.Second},
		{Name: "gift.far", Version: 1, Target: fettle.KindUnit, Undo: true, Risk: fettle.LowRisk, Scope: fettle.ClusterScope, Timeout: 5 * time.Second},
		{Name: "gift.clean", Version: 1, Target: fettle.KindUnit, Undo: true, Risk: fettle.LowRisk, Scope: fettle.HostScope, Timeout: 5 * time.Second, Disposes: "package-cache"},
		{Name: "gift.remove", Version: 1, Target: fettle.KindUnit, Undo: true, Risk: fettle.LowRisk, Scope: fettle.HostScope, Timeout: 5 * time.Second,
			Effects: []fettle.EffectSpec{{Quorum: fettle.QuorumRemove}}},
	},
}

// alone is an executor of a host that is cut off, with a permit.
type alone struct {
	*rig
	permit Kept
	lost   error
	paused string
	wall   atomic.Int64 // by how much the wall clock is off
}

type wallClock struct {
	*realClock
	a *alone
}

func (c wallClock) Wall() time.Time { return c.realClock.Wall().Add(time.Duration(c.a.wall.Load())) }

func newAlone(t *testing.T) *alone {
	a := &alone{rig: newRig(t)}
	now := a.clock.Wall()
	a.permit = Kept{Taken: now.Add(-time.Hour), Permit: fettle.Permit{
		Schema: 1, Serial: "p1", Fleet: "f1", Epoch: 1, Host: host, From: now.Add(-time.Hour), Until: now.Add(time.Hour),
		Grants: []fettle.Grant{
			{Action: "gift.*", Subject: "unit:*/first.service", PerSubject: 1, PerHost: 1, Window: time.Hour},
			{Action: "gift.*", Subject: "unit:*", PerSubject: 2, PerHost: 3, Window: time.Hour},
		}}}
	a.action.apply = succeed
	a.again()
	return a
}

// again is a new incarnation on the same journal.
func (a *alone) again() {
	a.t.Helper()
	a.stop()
	a.start(func(o *Options) {
		o.Clock = wallClock{a.clock, a}
		o.Catalogues = append(o.Catalogues, giving)
		for _, s := range giving.Actions {
			o.Actions[s.Name] = a.action
		}
		o.Permit = func() (Kept, error) { return a.permit, a.lost }
		o.Paused = func() string { return a.paused }
	})
}

// step is a dispatch under the permit.
func (a *alone) step(key, unit string) fettle.Dispatch {
	return fettle.Dispatch{
		Schema: 1, Key: key, Incarnation: a.Incarnation(), Permit: "p1", Deadline: a.clock.Now().Add(time.Minute), Incident: "i1", Plan: "p1",
		Step: fettle.Step{ID: "s", Action: "gift.start", Version: 1, Target: fettle.NewSubject(fettle.KindUnit, "h1", unit), Host: host, Risk: fettle.LowRisk},
	}
}

// TestNobodyGetsRoundThePermit: what is done under a permit is done by nothing else.
// Each attempt differs from what is done in one thing, and must be refused for that.
func TestNobodyGetsRoundThePermit(t *testing.T) {
	a := newAlone(t)
	want(t, a.Do(t.Context(), a.step("good", "a.service")), fettle.Done, "")
	for _, c := range []struct {
		name, why string
		bend      func(*alone, *fettle.Dispatch)
	}{
		{"no permit", "there is no standing permit", func(a *alone, _ *fettle.Dispatch) { a.lost = errors.New("its signature is not a server's") }},
		{"an empty permit", "there is no standing permit", func(a *alone, _ *fettle.Dispatch) { a.permit = Kept{} }},
		{"of another fleet", "in fleet f2", func(a *alone, _ *fettle.Dispatch) { a.permit.Fleet = "f2" }},
		{"of another host", "is for host:h2", func(a *alone, _ *fettle.Dispatch) { a.permit.Host = fettle.HostSubject("h2") }},
		{"of another serial", "this host keeps p1", func(_ *alone, d *fettle.Dispatch) { d.Permit = "p0" }},
		{"that ended", "ended at", func(a *alone, _ *fettle.Dispatch) { a.permit.Until = a.clock.Wall() }},
		{"that has not begun", "in doubt", func(a *alone, _ *fettle.Dispatch) { a.permit.From = a.clock.Wall().Add(2 * skew) }},
		{"for ever", "makes no sense", func(a *alone, _ *fettle.Dispatch) { a.permit.Until = a.clock.Wall().Add(fettle.MaxPermitLife) }},
		{"without a beginning", "makes no sense", func(a *alone, _ *fettle.Dispatch) { a.permit.From = time.Time{} }},
		{"with the clock behind when it was taken", "in doubt", func(a *alone, _ *fettle.Dispatch) { a.permit.Taken = a.clock.Wall().Add(time.Second) }},
		{"with a clock that was set back since the last step", "in doubt", func(a *alone, _ *fettle.Dispatch) {
			a.permit.Taken = a.clock.Wall().Add(-2 * time.Hour)
			a.permit.From = a.permit.Taken
			a.wall.Store(int64(-time.Minute))
		}},
		{"another action", "not among what it grants", func(a *alone, _ *fettle.Dispatch) { a.permit.Grants[1].Action = "gift.s*op" }},
		{"another subject", "not among what it grants", func(a *alone, _ *fettle.Dispatch) { a.permit.Grants[1].Subject = "unit:h1/b*" }},
		{"no pattern", "not among what it grants", func(a *alone, _ *fettle.Dispatch) { a.permit.Grants[1].Subject = "" }},
		{"that takes capacity", "takes something away", func(_ *alone, d *fettle.Dispatch) { d.Step.Action = "gift.stop" }},
		{"that says it takes votes", "takes something away", func(_ *alone, d *fettle.Dispatch) { d.Step.Takes = []fettle.Taking{fettle.TakesVotes} }},
		{"that claims", "takes something away", func(_ *alone, d *fettle.Dispatch) {
			d.Step.Claims = []fettle.Claim{{What: fettle.TakesVotes, Of: "db:1", Member: "m:1"}}
		}},
		{"forward-only", "forward-only", func(_ *alone, d *fettle.Dispatch) { d.Step.Action = "gift.reset" }},
		{"of medium risk", "not of low risk", func(_ *alone, d *fettle.Dispatch) { d.Step.Action = "gift.risky" }},
		{"beyond the host", "reaches beyond", func(_ *alone, d *fettle.Dispatch) { d.Step.Action = "gift.far" }},
		{"that lets go", "lets something go", func(_ *alone, d *fettle.Dispatch) { d.Step.Action = "gift.clean" }},
		{"that changes a group", "changes a quorum group", func(_ *alone, d *fettle.Dispatch) { d.Step.Action = "gift.remove" }},
		{"that says it changes a group", "changes a quorum group", func(_ *alone, d *fettle.Dispatch) {
			d.Step.Effects = []fettle.EffectSpec{{Quorum: fettle.QuorumOnly}}
		}},
		{"that takes over from a host", "takes over", func(_ *alone, d *fettle.Dispatch) { d.Step.Fences = "host:h2" }},
		{"taken back", "nothing is taken back", func(_ *alone, d *fettle.Dispatch) { d.Undo = true }},
		{"while the fleet is frozen", "frozen by ann", func(a *alone, _ *fettle.Dispatch) { a.paused = "the fleet was frozen by ann" }},
		{"while the host is frozen", "this host is frozen", func(a *alone, _ *fettle.Dispatch) { a.frozen.Store(true) }},
		{"that the host's list does not have", "does not allow", func(a *alone, _ *fettle.Dispatch) { a.denied.Store(true) }},
		{"for another incarnation", "for incarnation", func(_ *alone, d *fettle.Dispatch) { d.Incarnation = "old" }},
		{"for another host", "the step is for", func(_ *alone, d *fettle.Dispatch) { d.Step.Host = "host:h2" }},
		{"too late", "deadline", func(a *alone, d *fettle.Dispatch) { d.Deadline = a.clock.Now().Add(-time.Second) }},
		{"of an earlier epoch", "epoch 1, which has ended", func(a *alone, _ *fettle.Dispatch) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.highest = fettle.Token{Fleet: "f1", Epoch: 2, Revision: 1}
		}},
		{"more often on one subject", "acted upon 2 times", func(a *alone, d *fettle.Dispatch) {
			want(t, a.Do(t.Context(), a.step("twice", "a.service")), fettle.Done, "")
		}},
		{"more often on the host", "3 steps were done alone", func(a *alone, d *fettle.Dispatch) {
			want(t, a.Do(t.Context(), a.step("b", "b.service")), fettle.Done, "")
			want(t, a.Do(t.Context(), a.step("c", "c.service")), fettle.Done, "")
			d.Step.Target = fettle.NewSubject(fettle.KindUnit, "h1", "d.service")
		}},
		{"more often, after a leader ordered one too", "acted upon 2 times", func(a *alone, d *fettle.Dispatch) {
			led := a.step("led", "a.service")
			led.Permit, led.Token = "", fettle.Token{Fleet: "f1", Epoch: 1, Revision: 1}
			want(t, a.Do(t.Context(), led), fettle.Done, "")
		}},
		{"more often, over a restart", "acted upon 2 times", func(a *alone, d *fettle.Dispatch) {
			want(t, a.Do(t.Context(), a.step("twice", "a.service")), fettle.Done, "")
			a.again()
			d.Incarnation = a.Incarnation()
		}},
		{"with the clock set back, over a restart", "in doubt", func(a *alone, d *fettle.Dispatch) {
			a.permit.Taken = a.clock.Wall().Add(-2 * time.Hour)
			a.permit.From = a.permit.Taken
			a.wall.Store(int64(-time.Minute))
			a.again()
			d.Incarnation = a.Incarnation()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAlone(t)
			want(t, a.Do(t.Context(), a.step("good", "a.service")), fettle.Done, "")
			d := a.step("bad", "a.service")
			c.bend(a, &d)
			before := a.action.touched.Load()
			o := a.Do(t.Context(), d)
			if o.Class != fettle.Refused || a.action.touched.Load() != before {
				t.Fatalf("it was done: %+v", o)
			}
			if !strings.Contains(o.Error, c.why) {
				t.Errorf("refused for %q, want %q", o.Error, c.why)
			}
		})
	}
}

// TestPermittedIntent: the intent of a permitted step is durable before the touch,
// and what the journal has of it counts.
func TestPermittedIntent(t *testing.T) {
	a := newAlone(t)
	a.action.apply = func(context.Context, fettle.Dispatch) (fettle.Result, error) {
		k := a.kinds()
		if k[len(k)-1] != KindIntent {
			t.Errorf("it was touched when the journal had %v", k)
		}
		return fettle.Result{}, nil
	}
	want(t, a.Do(t.Context(), a.step("k", "a.service")), fettle.Done, "")
	o := a.Do(t.Context(), a.step("k", "a.service"))
	if want(t, o, fettle.Done, ""); !o.Replay || a.action.touched.Load() != 1 {
		t.Errorf("the same key was done again: %+v", o)
	}
}

// TestFirstGrantDecides: what has a grant of its own neither uses up the others' nor
// is stopped by them: Fettle's own servers are started on a host that is busy.
func TestFirstGrantDecides(t *testing.T) {
	a := newAlone(t)
	for _, unit := range []string{"a.service", "b.service", "c.service"} {
		want(t, a.Do(t.Context(), a.step(unit, unit)), fettle.Done, "")
	}
	want(t, a.Do(t.Context(), a.step("d", "d.service")), fettle.NeverWillBe, fettle.Refused)
	want(t, a.Do(t.Context(), a.step("first", "first.service")), fettle.Done, "")
	want(t, a.Do(t.Context(), a.step("again", "first.service")), fettle.NeverWillBe, fettle.Refused)
	a.clock.ahead.Store(int64(59 * time.Minute))
	want(t, a.Do(t.Context(), a.step("soon", "e.service")), fettle.NeverWillBe, fettle.Refused)
	a.clock.ahead.Store(int64(61 * time.Minute))
	a.permit.Until = a.clock.Wall().Add(time.Hour)
	want(t, a.Do(t.Context(), a.step("later", "e.service")), fettle.Done, "")
}

// TestPermitAsksOfItsOwn: under a permit one may ask what became of a key that was
// begun under one, also when it has ended; not of a leader's.
func TestPermitAsksOfItsOwn(t *testing.T) {
	a := newAlone(t)
	d := a.step("mine", "a.service")
	want(t, a.Do(t.Context(), d), fettle.Done, "")
	led := a.step("led", "b.service")
	led.Permit, led.Token = "", fettle.Token{Fleet: "f1", Epoch: 1, Revision: 1}
	want(t, a.Do(t.Context(), led), fettle.Done, "")
	a.lost = errors.New("gone")
	if o := a.Recover(t.Context(), d); o.Fate != fettle.Done || !o.Replay {
		t.Errorf("its own key: %+v", o)
	}
	led.Permit = "p1"
	if o := a.Recover(t.Context(), led); o.Class != fettle.Refused {
		t.Errorf("a leader's key: %+v", o)
	}
}
