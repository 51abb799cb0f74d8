package execute

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fettle/internal/fettle"
)

func TestDoOnceThenReplay(t *testing.T) {
	r := newRig(t)
	r.action.apply = func(_ context.Context, d fettle.Dispatch) (fettle.Result, error) {
		if k := r.kinds(); k[len(k)-1] != KindIntent {
			t.Errorf("applied before its intent was durable: %v", k)
		}
		return succeed(t.Context(), d)
	}
	d := r.dispatch("k1")
	o := r.Do(t.Context(), d)
	want(t, o, fettle.Done, "")
	if id, _ := o.Result.Outputs.Str("id"); id != "7" || o.Replay || o.Started.IsZero() {
		t.Fatalf("outcome %+v", o)
	}
	if got, want := r.kinds(), []string{KindIncarnation, KindToken, KindIntent, KindOutcome}; !slices.Equal(got, want) {
		t.Fatalf("journal %v, want %v", got, want)
	}
	again := r.Do(t.Context(), d)
	if !again.Replay || again.Fate != fettle.Done || !again.Result.Outputs.Equal(o.Result.Outputs) {
		t.Fatalf("again: %+v", again)
	}
	// What was done is said in spite of freeze, deadline and a new leader.
	r.frozen.Store(true)
	r.clock.ahead.Store(int64(time.Hour))
	d.Token.Revision, d.Deadline = 11, d.Deadline.Add(time.Second)
	if again = r.Do(t.Context(), d); !again.Replay || again.Fate != fettle.Done {
		t.Fatalf("frozen, late: %+v", again)
	}
	if n := r.action.touched.Load(); n != 1 {
		t.Fatalf("applied %d times", n)
	}
}

// TestRefusals breaks one thing of a good dispatch at a time. Nothing may be
// touched, and each refusal has a hint.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name string
		bend func(*rig, *fettle.Dispatch)
		says string
		fate fettle.Fate // of the key
	}{
		{"newer schema", func(_ *rig, d *fettle.Dispatch) { d.Schema = 2 }, "schema 2", fettle.UnknownFate},
		{"no schema", func(_ *rig, d *fettle.Dispatch) { d.Schema = 0 }, "schema 0", fettle.UnknownFate},
		{"no key", func(_ *rig, d *fettle.Dispatch) { d.Key = "" }, "key", fettle.UnknownFate},
		{"bad key", func(_ *rig, d *fettle.Dispatch) { d.Key = "a\nb" }, "key", fettle.UnknownFate},
		{"fleet", func(_ *rig, d *fettle.Dispatch) { d.Token.Fleet = "f2" }, "fleet", fettle.UnknownFate},
		{"no epoch", func(_ *rig, d *fettle.Dispatch) { d.Token.Epoch = 0 }, "epoch", fettle.UnknownFate},
		{"lower revision", func(_ *rig, d *fettle.Dispatch) { d.Token.Revision = 4 }, "revision 4", fettle.UnknownFate},
		{"new epoch", func(_ *rig, d *fettle.Dispatch) { d.Token.Epoch = 2 }, "administrator", fettle.UnknownFate},
		{"incarnation", func(_ *rig, d *fettle.Dispatch) { d.Incarnation = "another" }, "incarnation", fettle.UnknownFate},
		{"host", func(_ *rig, d *fettle.Dispatch) { d.Step.Host = fettle.HostSubject("h2") }, "host:h2", fettle.UnknownFate},
		{"unknown action", func(_ *rig, d *fettle.Dispatch) { d.Step.Action = "test.other" }, "not known", fettle.NeverWillBe},
		{"other version", func(_ *rig, d *fettle.Dispatch) { d.Step.Version = 3 }, "version 3", fettle.NeverWillBe},
		{"other kind", func(_ *rig, d *fettle.Dispatch) { d.Step.Target = host }, "target", fettle.NeverWillBe},
		{"late parameter", func(_ *rig, d *fettle.Dispatch) { d.Step.Late = []fettle.Late{{Param: "how"}} }, "waits", fettle.NeverWillBe},
		{"parameter missing", func(_ *rig, d *fettle.Dispatch) { d.Step.Params = nil }, "missing", fettle.NeverWillBe},
		{"parameter of another type", func(_ *rig, d *fettle.Dispatch) { d.Step.Params["much"] = "x" }, "want a int", fettle.NeverWillBe},
		{"parameter not declared", func(_ *rig, d *fettle.Dispatch) { d.Step.Params["x"] = "x" }, "not one of", fettle.NeverWillBe},
		{"not allowed", func(r *rig, _ *fettle.Dispatch) { r.denied.Store(true) }, "allow", fettle.NeverWillBe},
		{"undo of a forward-only action", func(_ *rig, d *fettle.Dispatch) {
			d.Step.Action, d.Step.Version, d.Step.Params, d.Undo = "test.forward", 1, nil, true
		}, "nothing brings it back", fettle.NeverWillBe},
		{"frozen", func(r *rig, _ *fettle.Dispatch) { r.frozen.Store(true) }, "frozen", fettle.NeverWillBe},
		{"deadline", func(r *rig, _ *fettle.Dispatch) { r.clock.ahead.Store(int64(2 * time.Minute)) }, "deadline", fettle.NeverWillBe},
		{"no deadline", func(_ *rig, d *fettle.Dispatch) { d.Deadline = time.Time{} }, "deadline", fettle.NeverWillBe},
		{"fenced", func(r *rig, d *fettle.Dispatch) {
			if err := r.Fence(context.Background(), d.Key); err != nil {
				r.t.Fatal(err)
			}
		}, "fenced", fettle.NeverWillBe},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t) // its action fails the test when it is called
			seen := r.dispatch("earlier")
			seen.Token.Revision, seen.Step.Action = 5, "test.other"
			want(t, r.Do(t.Context(), seen), fettle.NeverWillBe, fettle.Refused)
			good := r.dispatch("k1")
			d := r.dispatch("k1")
			c.bend(r, &d)
			o := r.Do(t.Context(), d)
			want(t, o, c.fate, fettle.Refused)
			if !strings.Contains(o.Error, c.says) || !strings.Contains(o.Error, "(") {
				t.Fatalf("says %q, want %q and a hint", o.Error, c.says)
			}
			if c.fate != fettle.NeverWillBe || d.Key != good.Key {
				return
			}
			// "Never will be" must stay true when what was in the way is gone.
			r.frozen.Store(false)
			r.denied.Store(false)
			r.clock.ahead.Store(0)
			want(t, r.Do(t.Context(), good), fettle.NeverWillBe, fettle.Refused)
		})
	}
}

// TestHighestTokenSurvives obeys a leader, restarts, and lets the one before it
// come again.
func TestHighestTokenSurvives(t *testing.T) {
	r := newRig(t)
	r.action.apply = succeed
	d := r.dispatch("k1")
	d.Token.Revision = 20
	want(t, r.Do(t.Context(), d), fettle.Done, "")
	// Seen in a refusal, it counts as well.
	d = r.dispatch("k2")
	d.Token.Revision, d.Step.Version = 30, 9
	want(t, r.Do(t.Context(), d), fettle.NeverWillBe, fettle.Refused)
	r.restart()
	if got := r.Highest(); got.Revision != 30 || got.Epoch != 1 {
		t.Fatalf("highest token %+v", got)
	}
	d = r.dispatch("k3")
	d.Token.Revision = 29
	want(t, r.Do(t.Context(), d), fettle.UnknownFate, fettle.Refused)
	d.Token.Revision = 30
	want(t, r.Do(t.Context(), d), fettle.Done, "")
}

func TestNewEpochNeedsTheAdministrator(t *testing.T) {
	r := newRig(t)
	r.action.apply = succeed
	want(t, r.Do(t.Context(), r.dispatch("k1")), fettle.Done, "")
	r.stop()
	signed := errors.New("not yet")
	r.start(func(o *Options) { o.NewEpoch = func(_, _ fettle.Token) error { return signed } })
	d := r.dispatch("k2")
	d.Token.Epoch, d.Token.Revision = 2, 1 // a restored store counts from below
	want(t, r.Do(t.Context(), d), fettle.UnknownFate, fettle.Refused)
	signed = nil
	want(t, r.Do(t.Context(), d), fettle.Done, "")
	old := r.dispatch("k3")
	want(t, r.Do(t.Context(), old), fettle.UnknownFate, fettle.Refused)
}

func TestUndoIsExemptFromFreeze(t *testing.T) {
	r := newRig(t)
	r.frozen.Store(true)
	r.action.undo = func(_ context.Context, d fettle.Dispatch) (fettle.Result, error) {
		if id, _ := d.Outputs.Str("id"); id != "7" {
			t.Errorf("outputs %v", d.Outputs)
		}
		return fettle.Result{}, nil
	}
	d := r.dispatch("k1-undo")
	d.Undo, d.Outputs = true, fettle.Facts{"id": "7"}
	want(t, r.Do(t.Context(), d), fettle.Done, "")
	if again := r.Do(t.Context(), d); !again.Replay {
		t.Fatal("undone twice")
	}
}

func TestOutcomesByError(t *testing.T) {
	for name, c := range map[string]struct {
		apply func(context.Context, fettle.Dispatch) (fettle.Result, error)
		fate  fettle.Fate
		class fettle.Class
	}{
		"refused": {func(context.Context, fettle.Dispatch) (fettle.Result, error) {
			return fettle.Result{}, fettle.Refuse("test.do", target, "look again", "it is gone")
		}, fettle.NeverWillBe, fettle.Refused},
		"denied": {func(context.Context, fettle.Dispatch) (fettle.Result, error) {
			return fettle.Result{}, &fettle.Error{Op: "test.do", Class: fettle.Denied}
		}, fettle.Done, fettle.Denied},
		"broken": {func(context.Context, fettle.Dispatch) (fettle.Result, error) {
			return fettle.Result{}, errors.New("exit status 1")
		}, fettle.Done, fettle.Broken},
		"no answer": {func(context.Context, fettle.Dispatch) (fettle.Result, error) {
			return fettle.Result{}, fmt.Errorf("ask: %w", context.DeadlineExceeded)
		}, fettle.UnknownFate, fettle.NoAnswer},
		"panic": {func(context.Context, fettle.Dispatch) (fettle.Result, error) {
			var m map[string]int
			m["x"] = 1 //nolint:staticcheck // it is to panic
			return fettle.Result{}, nil
		}, fettle.UnknownFate, fettle.Broken},
		"cut off and vague about it": {func(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
			<-ctx.Done()
			return fettle.Result{}, errors.New("killed")
		}, fettle.UnknownFate, fettle.NoAnswer},
		"bad outputs": {func(context.Context, fettle.Dispatch) (fettle.Result, error) {
			return fettle.Result{Outputs: fettle.Facts{"ratio": 0.5}}, nil
		}, fettle.Done, fettle.Broken},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.action.apply = c.apply
			d := r.dispatch("k1")
			d.Step.Timeout = 50 * time.Millisecond
			o := r.Do(t.Context(), d)
			want(t, o, c.fate, c.class)
			if c.fate != fettle.UnknownFate {
				if again := r.Do(t.Context(), d); !again.Replay || again.Class != c.class {
					t.Fatalf("again: %+v", again)
				}
				return
			}
			// What is not known is asked, never done again.
			r.action.recover = func(context.Context, fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
				return fettle.Done, fettle.Result{Outputs: fettle.Facts{"id": "8"}}, nil
			}
			o = r.Do(t.Context(), d)
			want(t, o, fettle.Done, "")
			if n := r.action.touched.Load(); n != 1 {
				t.Fatalf("applied %d times", n)
			}
		})
	}
}

// TestCopiesRunOnce sends one dispatch many times at once.
func TestCopiesRunOnce(t *testing.T) {
	r := newRig(t)
	entered, release := make(chan struct{}), make(chan struct{})
	r.action.apply = func(_ context.Context, d fettle.Dispatch) (fettle.Result, error) {
		close(entered)
		<-release
		return succeed(t.Context(), d)
	}
	d := r.dispatch("k1")
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if o := r.Do(t.Context(), d); o.Fate != fettle.Done || o.Class != "" {
				t.Errorf("%+v", o)
			}
		})
	}
	<-entered
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, r.Do(gone, d), fettle.Running, "")
	if u := r.Unfinished(); len(u) != 1 || u[0].Fate != fettle.Running || u[0].Key != "k1" {
		t.Errorf("unfinished: %+v", u)
	}
	// Another step on the same target must wait, one on another need not.
	want(t, r.Do(t.Context(), r.dispatch("k2")), fettle.NeverWillBe, fettle.Refused)
	// The same key for another content is a defect, and says nothing of the first.
	other := r.dispatch("k1")
	other.Step.Params = fettle.Facts{"how": "badly"}
	want(t, r.Do(t.Context(), other), fettle.UnknownFate, fettle.Refused)
	close(release)
	all.Wait()
	if n := r.action.touched.Load(); n != 1 {
		t.Fatalf("applied %d times", n)
	}
	if u := r.Unfinished(); len(u) != 0 {
		t.Errorf("unfinished: %+v", u)
	}
}

// TestCallerGoesAway cancels the caller in the middle: the step ends, and its
// outcome is there.
func TestCallerGoesAway(t *testing.T) {
	r := newRig(t)
	entered, release := make(chan struct{}), make(chan struct{})
	r.action.apply = func(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
		close(entered)
		<-release
		return fettle.Result{}, ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	d := r.dispatch("k1")
	want(t, r.Do(ctx, d), fettle.Running, "")
	close(release)
	o := r.Do(t.Context(), d)
	want(t, o, fettle.Done, "")
}

func TestPreviewChangesNothing(t *testing.T) {
	r := newRig(t)
	r.frozen.Store(true)
	r.action.preview = func(context.Context, fettle.Step) (fettle.Preview, error) {
		return fettle.Preview{Would: []string{"do it"}}, nil
	}
	p, err := r.Preview(t.Context(), r.dispatch("k").Step)
	if err != nil || len(p.Would) != 1 {
		t.Fatal(p, err)
	}
	if len(r.kinds()) != 1 {
		t.Fatalf("journal %v", r.kinds())
	}
	s := r.dispatch("k").Step
	s.Params = nil
	if _, err := r.Preview(t.Context(), s); fettle.ClassOf(err) != fettle.Refused {
		t.Fatal(err)
	}
	r.action.preview = func(context.Context, fettle.Step) (fettle.Preview, error) { panic("oh") }
	if _, err := r.Preview(t.Context(), r.dispatch("k").Step); fettle.ClassOf(err) != fettle.Broken {
		t.Fatal(err)
	}
}
