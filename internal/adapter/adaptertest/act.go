package adaptertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/condition"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/world"
)

// actions asks of every action: Preview changes nothing, Apply acts once,
// Recover tells the truth before and after, Undo restores.
func (s Suite) actions(t *testing.T) {
	for _, c := range s.Actions {
		t.Run(c.Action, func(t *testing.T) {
			r := s.New(t)
			in := open(t, r)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			pins := c.Prepare(ctx, t, r)
			r.Settle(ctx)
			s.one(ctx, t, r, in, c, pins)
		})
	}
}

func (s Suite) one(ctx context.Context, t *testing.T, r Rig, in fettle.Instance, c ActionCase, pins []fettle.Generation) {
	catalogue := r.Adapter.Catalogue()
	spec, _ := catalogue.FindAction(c.Action)
	act := in.Actions()[c.Action]
	d := fettle.Dispatch{
		Schema: 1, Key: "test.1." + c.Action, Deadline: r.Machine.Clock.Now().Add(time.Minute),
		Step: fettle.Step{ID: "it", Action: c.Action, Version: spec.Version, Target: c.Target, Host: r.Machine.Identity.Host, Params: c.Params, Generations: pins, Timeout: spec.Timeout},
	}
	before := r.State(ctx)
	preview, err := act.Preview(ctx, d.Step)
	if err != nil || len(preview.Would) == 0 {
		t.Errorf("preview says %v, %v; it must say what would be done", preview.Would, err)
	}
	noSecret(t, r.Canary, preview)
	if after := r.State(ctx); after != before {
		t.Errorf("preview changed something:\n before %s\n after  %s", before, after)
	}
	if fate, _, err := act.Recover(ctx, d); err == nil && fate == fettle.Done && c.Times != nil && c.Times(ctx) == 0 {
		t.Error("recover says that it was done before it was begun")
	}
	if armable, ok := act.(fettle.Armable); ok {
		back, err := armable.Before(ctx, d)
		if err != nil || back.Program == "" || back.Says == "" {
			t.Errorf("what would put back is %+v, %v; it must say what it is", back, err)
		}
		if after := r.State(ctx); after != before {
			t.Errorf("asking what would put back changed something:\n before %s\n after  %s", before, after)
		}
	}
	result, err := act.Apply(ctx, d)
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	noSecret(t, r.Canary, result)
	r.Settle(ctx)
	applied := r.State(ctx)
	fate, _, err := act.Recover(ctx, d)
	if err != nil || fate == fettle.Running {
		t.Errorf("recover after a finished apply says %q, %v", fate, err)
	}
	if fate == fettle.NeverWillBe && c.Times != nil && c.Times(ctx) > 0 && applied != before {
		t.Errorf("recover says that it never was done, and it was: %s", applied)
	}
	if after := r.State(ctx); after != applied {
		t.Errorf("recover changed something:\n before %s\n after  %s", applied, after)
	}
	if fate == fettle.NeverWillBe {
		s.again(ctx, t, r, act, d, applied)
	}
	s.undo(ctx, t, r, act, d, result, spec, before)
}

// again asks whether NeverWillBe after a finished Apply is honest: it permits
// another try under a new key, so another try must change nothing more.
func (s Suite) again(ctx context.Context, t *testing.T, r Rig, act fettle.Action, d fettle.Dispatch, applied string) {
	d.Key = "test.2." + d.Step.Action
	_, err := act.Apply(ctx, d)
	r.Settle(ctx)
	if after := r.State(ctx); after != applied {
		t.Errorf("recover says that it never will be done, and doing it again (%v) is not harmless:\n once  %s\n twice %s", err, applied, after)
	}
}

func (s Suite) undo(ctx context.Context, t *testing.T, r Rig, act fettle.Action, d fettle.Dispatch, result fettle.Result, spec *fettle.ActionSpec, before string) {
	d.Undo, d.Outputs = true, result.Outputs
	if !spec.Undo {
		if _, err := act.Undo(ctx, d); !errors.Is(err, fettle.ErrNotSupported) {
			t.Errorf("undo of a forward-only action returns %v; want fettle.ErrNotSupported", err)
		}
		return
	}
	if s.excused(t, "undo "+d.Step.Action) {
		return
	}
	if _, err := act.Undo(ctx, d); err != nil {
		t.Fatalf("undo: %v", err)
	}
	r.Settle(ctx)
	if after := r.State(ctx); after != before {
		t.Errorf("undo does not restore:\n before %s\n after  %s", before, after)
	}
}

// faults asks whether every fault raises its condition and whether that clears
// when the fault is reverted.
func (s Suite) faults(t *testing.T) {
	for _, c := range s.Faults {
		t.Run(c.Fault, func(t *testing.T) {
			r := s.New(t)
			in := open(t, r)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			raises := fettle.Code("")
			for _, f := range r.Adapter.Catalogue().Faults {
				if f.Name == c.Fault {
					raises = f.Raises
				}
			}
			key := fettle.ConditionKey{Code: raises, Subject: c.Target}
			j := newJury(t, r, in)
			j.until(ctx, t, key, fettle.No)
			injected, err := in.Faults()[c.Fault].Inject(ctx, c.Target, c.Params)
			if err != nil {
				t.Fatalf("inject: %v", err)
			}
			j.until(ctx, t, key, fettle.Yes)
			for range 2 { // reverting twice must be safe
				if err := injected.Revert(ctx); err != nil {
					t.Fatalf("revert: %v", err)
				}
			}
			j.until(ctx, t, key, fettle.No)
		})
	}
}

// jury looks with all probes and judges with the adapter's own conditions.
type jury struct {
	r    Rig
	in   fettle.Instance
	w    *world.World
	eval *condition.Evaluator
}

func newJury(t *testing.T, r Rig, in fettle.Instance) *jury {
	t.Helper()
	cats := fettle.Join([]fettle.Catalogue{r.Adapter.Catalogue()})
	env, err := expr.New(cats)
	if err != nil {
		t.Fatal(err)
	}
	eval, err := condition.New(cats, env)
	if err != nil {
		t.Fatal(err)
	}
	return &jury{r: r, in: in, w: world.New(), eval: eval}
}

// until looks until a condition is as wanted.
func (j *jury) until(ctx context.Context, t *testing.T, key fettle.ConditionKey, want fettle.Tri) {
	t.Helper()
	for {
		j.look(ctx, key.Subject)
		c, _ := j.w.Condition(key)
		if c.State == want {
			return
		}
		timer, stop := j.r.Machine.Clock.After(20 * time.Millisecond)
		select {
		case <-timer:
		case <-ctx.Done():
			stop()
			t.Fatalf("%s is %s, want %s; facts %v", key, c.State, want, j.w.Facts(key.Subject))
		}
	}
}

func (j *jury) look(ctx context.Context, s fettle.Subject) {
	now := j.r.Machine.Clock.Now()
	for _, p := range j.in.Probes() {
		if p.Spec().Kind != s.Kind() {
			continue
		}
		for _, o := range p.Observe(ctx, s) {
			o.Host, o.Probe = j.r.Machine.Identity.Host, p.Spec().Name
			if o.Asked.IsZero() {
				o.Asked = now
			}
			j.w.Observe(o)
		}
	}
	j.eval.Touch(j.w, j.r.Machine.Clock.Now(), s)
	j.eval.Tick(j.w, j.r.Machine.Clock.Now())
}

// readOnly asks whether probes work with read-only credentials and actions fail
// for want of permission, touching nothing.
func (s Suite) readOnly(t *testing.T) {
	if s.ReadOnly == nil {
		if !s.excused(t, "read-only") {
			t.Error("no rig with read-only credentials")
		}
		return
	}
	r := s.ReadOnly(t)
	in := open(t, r)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	known := 0
	for _, p := range in.Probes() {
		for _, o := range p.Observe(ctx) {
			if o.Known() {
				known++
			}
		}
	}
	if known == 0 {
		t.Error("with read-only credentials no probe sees anything")
	}
	for _, c := range s.Actions {
		if s.excused(t, "read-only "+c.Action) {
			continue
		}
		before := r.State(ctx)
		_, err := in.Actions()[c.Action].Apply(ctx, fettle.Dispatch{
			Schema: 1, Key: "ro." + c.Action, Step: fettle.Step{ID: "it", Action: c.Action, Target: c.Target, Host: r.Machine.Identity.Host, Params: c.Params},
		})
		if class := fettle.ClassOf(err); class != fettle.Denied && class != fettle.Refused {
			t.Errorf("%s with read-only credentials: %v; want permission denied", c.Action, err)
		}
		if after := r.State(ctx); after != before {
			t.Errorf("%s changed something with read-only credentials:\n before %s\n after  %s", c.Action, before, after)
		}
	}
}
