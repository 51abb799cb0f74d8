package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"fettle/internal/act/execute"
	"fettle/internal/act/probe"
	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/permit"
)

// bubble is the clock of a synctest bubble.
type bubble struct{}

func (bubble) Now() time.Time  { return time.Now() }
func (bubble) Wall() time.Time { return time.Now() }
func (bubble) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// permitted is an executor that keeps a permit, and is asked for nothing else.
type permitted struct {
	executor.Hands
	executor.Standing
}

func (p permitted) Permit(context.Context) (executor.Standing, error) {
	if !time.Now().Before(p.Kept.Until) {
		p.Why = "it has ended"
	}
	return p.Standing, nil
}

// waiting is an agent that does not run, and waits for being cut off.
func waiting(t *testing.T) *Agent {
	t.Helper()
	o := options(t, &lamp{})
	o.Machine.Clock = bubble{}
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	p := permit.Make(fettle.Policy{PermitLife: time.Hour}, a.fleet, 1, a.host, "h", time.Now())
	a.hands = permitted{Standing: executor.Standing{Kept: execute.Kept{Taken: time.Now(), Permit: p}}}
	a.crew.settled.Store(true)
	return a
}

// off makes a lamp go out, so that something is ill.
func (a *Agent) off(t *testing.T) {
	t.Helper()
	lamp := fettle.NewSubject("lamp", a.host.Name(), "hall")
	a.picture.take(probe.Batch{Changed: []fettle.Observation{{Subject: lamp, Host: a.host, Probe: "lamp.state", Asked: time.Now(), Facts: fettle.Facts{"on": false}}}})
}

// TestAloneOnlyWhenCutOff: not before there was no session for as long as a change of
// leader may take, not while all is well, not without a permit, not before everything
// was looked at, and at once when the last of these comes.
func TestAloneOnlyWhenCutOff(t *testing.T) {
	for _, c := range []struct {
		name string
		play func(*testing.T, *Agent)
		want time.Duration // after which it works alone
	}{
		{"ill from the beginning", func(t *testing.T, a *Agent) { a.off(t) }, aloneAfter},
		{"a session that ends", func(t *testing.T, a *Agent) {
			a.off(t)
			end := a.contact.begin(&session{}, bubble{}.Now)
			time.AfterFunc(time.Minute, end)
		}, time.Minute + aloneAfter},
		{"a leader that changes twice", func(t *testing.T, a *Agent) {
			a.off(t)
			end := a.contact.begin(&session{}, bubble{}.Now)
			time.AfterFunc(10*time.Second, end)
			time.AfterFunc(20*time.Second, func() { time.AfterFunc(10*time.Second, a.contact.begin(&session{}, bubble{}.Now)) })
		}, 30*time.Second + aloneAfter},
		{"ill later", func(t *testing.T, a *Agent) { time.AfterFunc(time.Hour/2, func() { a.off(t) }) }, time.Hour / 2},
		{"an adapter that does not open", func(t *testing.T, a *Agent) { a.off(t); a.crew.settled.Store(false) }, tellWait},
		{"a permit that ended", func(t *testing.T, a *Agent) { time.AfterFunc(2*time.Hour, func() { a.off(t) }) }, 0},
		{"nothing ill", func(*testing.T, *Agent) {}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := waiting(t)
				began := time.Now()
				c.play(t, a)
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
				defer cancel()
				cutOff, err := a.due(ctx, false)
				if err != nil {
					t.Fatal(err)
				}
				took := time.Since(began)
				if c.want == 0 && cutOff || c.want != 0 && (!cutOff || took != c.want) {
					t.Errorf("it works alone: %v, after %v; want it after %v", cutOff, took, c.want)
				}
			})
		})
	}
}

// TestWhatIsLeftIsTold: with something left to tell it does not wait for trouble, only
// for a server that takes it.
func TestWhatIsLeftIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := waiting(t)
		began := time.Now()
		end := a.contact.begin(&session{}, bubble{}.Now) // of an earlier version
		time.AfterFunc(time.Minute, func() {
			end()
			a.contact.begin(&session{stories: true}, bubble{}.Now)
		})
		cutOff, err := a.due(t.Context(), true)
		if err != nil || cutOff || time.Since(began) != time.Minute {
			t.Errorf("cut off %v, after %v, %v", cutOff, time.Since(began), err)
		}
	})
}
