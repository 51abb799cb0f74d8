package execute

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"fettle/internal/act/journal"
	"fettle/internal/fettle"
)

// says makes a Recover that answers so.
func says(fate fettle.Fate, err error) func(context.Context, fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	return func(context.Context, fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
		return fate, fettle.Result{}, err
	}
}

// TestRecoverAnswers is the table of what the system says and what we know.
func TestRecoverAnswers(t *testing.T) {
	down := errors.New("connection refused")
	for _, c := range []struct {
		name  string
		begun bool   // an intent stands in the journal
		of    string // "": of an incarnation of this journal; else that one
		says  fettle.Fate
		err   error
		want  fettle.Fate
		class fettle.Class
	}{
		{"begun, done", true, "", fettle.Done, nil, fettle.Done, ""},
		{"begun, running", true, "", fettle.Running, nil, fettle.Running, ""},
		{"begun, never", true, "", fettle.NeverWillBe, nil, fettle.NeverWillBe, ""},
		{"begun, unknown", true, "", fettle.UnknownFate, down, fettle.UnknownFate, fettle.Broken},
		{"begun, a fate of the future", true, "", "half", nil, fettle.UnknownFate, ""},
		// The system knows better than our record.
		{"not begun, done", false, "", fettle.Done, nil, fettle.Done, ""},
		{"not begun, running", false, "", fettle.Running, nil, fettle.Running, ""},
		{"not begun, unknown", false, "", fettle.UnknownFate, down, fettle.NeverWillBe, ""},
		// Of an incarnation that kept another journal we know nothing ourselves.
		{"stranger, unknown", false, "lost", fettle.UnknownFate, down, fettle.UnknownFate, fettle.Broken},
		{"stranger, never", false, "lost", fettle.NeverWillBe, nil, fettle.NeverWillBe, ""},
		{"stranger, done", false, "lost", fettle.Done, nil, fettle.Done, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			d := r.dispatch("k1")
			if c.begun {
				r.action.apply = func(context.Context, fettle.Dispatch) (fettle.Result, error) { panic("gone") }
				want(t, r.Do(t.Context(), d), fettle.UnknownFate, fettle.Broken)
				r.action.apply = nil
			}
			if c.of != "" {
				d.Incarnation = c.of
			}
			r.restart()
			fencedFirst := false
			r.action.recover = func(_ context.Context, asked fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
				k := r.kinds()
				fencedFirst = slices.Contains(k, KindFence)
				if asked.Key != d.Key || !asked.Step.Params.Equal(d.Step.Params) {
					t.Errorf("asked about %+v", asked)
				}
				return c.says, fettle.Result{}, c.err
			}
			lean := d // as a loop sends it that kept only the step
			lean.Deadline = time.Time{}
			want(t, r.Recover(t.Context(), lean), c.want, c.class)
			if !fencedFirst {
				t.Fatal("the system was asked before the key was fenced")
			}
			records := len(r.kinds())
			if !final(fettle.Outcome{Fate: c.want}) {
				want(t, r.Recover(t.Context(), d), c.want, c.class) // probed again
				if len(r.kinds()) != records {
					t.Error("an unchanged answer was recorded again")
				}
				if c.begun && len(r.Unfinished()) != 1 {
					t.Errorf("unfinished: %+v", r.Unfinished())
				}
				return
			}
			r.restart()
			r.action.recover = nil // final: not asked again
			o := r.Recover(t.Context(), d)
			if !o.Replay || o.Fate != c.want {
				t.Fatalf("after a restart: %+v", o)
			}
			if u := r.Unfinished(); len(u) != 0 {
				t.Errorf("unfinished: %+v", u)
			}
		})
	}
}

// TestRecoverRefuses is what even a question needs.
func TestRecoverRefuses(t *testing.T) {
	r := newRig(t)
	r.action.recover = says(fettle.UnknownFate, nil)
	r.action.apply = func(context.Context, fettle.Dispatch) (fettle.Result, error) { panic("gone") }
	want(t, r.Do(t.Context(), r.dispatch("k1")), fettle.UnknownFate, fettle.Broken)
	for name, bend := range map[string]func(*fettle.Dispatch){
		"schema":    func(d *fettle.Dispatch) { d.Schema = 9 },
		"old token": func(d *fettle.Dispatch) { d.Token.Revision = 1 },
		"fleet":     func(d *fettle.Dispatch) { d.Token.Fleet = "f2" },
		"host":      func(d *fettle.Dispatch) { d.Step.Host = fettle.HostSubject("h2") },
		"target":    func(d *fettle.Dispatch) { d.Step.Target = fettle.NewSubject(fettle.KindUnit, "h1", "b.service") },
	} {
		d := r.dispatch("k1")
		bend(&d)
		if o := r.Recover(t.Context(), d); o.Fate != fettle.UnknownFate || o.Class != fettle.Refused {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// TestRecoverWaitsForRunningStep asks while Apply is under way: it is not
// cancelled, and never said to be never.
func TestRecoverWaitsForRunningStep(t *testing.T) {
	r := newRig(t)
	entered, release := make(chan struct{}), make(chan struct{})
	r.action.apply = func(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
		close(entered)
		<-release
		if ctx.Err() != nil {
			t.Error("it was cancelled")
		}
		return succeed(t.Context(), d)
	}
	d := r.dispatch("k1")
	done := make(chan fettle.Outcome)
	go func() { done <- r.Do(context.Background(), d) }()
	<-entered
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	want(t, r.Recover(short, d), fettle.Running, "")
	waiting := make(chan fettle.Outcome)
	go func() { waiting <- r.Recover(context.Background(), d) }()
	close(release)
	want(t, <-waiting, fettle.Done, "")
	want(t, <-done, fettle.Done, "")
}

// TestStuckApplyIsNeverNever has an Apply that does not return when it is cut
// off, and a system that says that nothing will come of it.
func TestStuckApplyIsNeverNever(t *testing.T) {
	r := newRig(t)
	entered, release := make(chan struct{}), make(chan struct{})
	r.action.apply = func(_ context.Context, d fettle.Dispatch) (fettle.Result, error) {
		close(entered)
		<-release
		return succeed(t.Context(), d)
	}
	r.action.recover = says(fettle.NeverWillBe, nil)
	d := r.dispatch("k1")
	d.Step.Timeout = 100 * time.Millisecond
	gone, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	want(t, r.Do(gone, d), fettle.Running, "")
	want(t, r.Recover(t.Context(), d), fettle.Running, "") // waits for the timeout and the grace
	// The target stays taken for as long as the step may still act.
	want(t, r.Do(t.Context(), r.dispatch("k2")), fettle.NeverWillBe, fettle.Refused)
	close(release)
	want(t, r.Do(t.Context(), d), fettle.Done, "")
}

// TestFence refuses a late Apply for ever, also after a restart.
func TestFence(t *testing.T) {
	r := newRig(t)
	d := r.dispatch("k1")
	if err := r.Fence(t.Context(), "k1"); err != nil {
		t.Fatal(err)
	}
	want(t, r.Do(t.Context(), d), fettle.NeverWillBe, fettle.Refused)
	r.stop()
	r.start(nil)
	d.Incarnation = r.Incarnation() // even if it were for this one
	want(t, r.Do(t.Context(), d), fettle.NeverWillBe, fettle.Refused)
	if err := r.Fence(t.Context(), "bad key"); fettle.ClassOf(err) != fettle.Refused {
		t.Fatal(err)
	}

	entered := make(chan struct{})
	r.action.apply = func(ctx context.Context, _ fettle.Dispatch) (fettle.Result, error) {
		close(entered)
		<-ctx.Done()
		return fettle.Result{}, ctx.Err()
	}
	d2 := r.dispatch("k2")
	done := make(chan fettle.Outcome)
	go func() { done <- r.Do(context.Background(), d2) }()
	<-entered
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.Fence(short, "k2"); fettle.ClassOf(err) != fettle.NoAnswer {
		t.Fatal(err)
	}
	want(t, <-done, fettle.UnknownFate, fettle.NoAnswer)
}

// TestFenceBetweenIntentAndTouch fences in the moment in which the intent is
// already durable: nothing is touched.
func TestFenceBetweenIntentAndTouch(t *testing.T) {
	r := newRig(t)
	d := r.dispatch("k1")
	first := true
	r.point = func(p string) {
		if p == "after journal" && first {
			first = false
			r.mu.Lock()
			k := r.keyOf("k1")
			r.mu.Unlock()
			if err := r.fence("k1", k); err != nil {
				t.Error(err)
			}
		}
	}
	want(t, r.Do(t.Context(), d), fettle.NeverWillBe, fettle.Refused)
	r.point = func(string) {}
	r.restart()
	if u := r.Unfinished(); len(u) != 0 {
		t.Fatalf("the intent dangles: %+v", u)
	}
}

// TestFrozenWhileTheDiskWasSlow freezes between the checks and the touch.
func TestFrozenWhileTheDiskWasSlow(t *testing.T) {
	r := newRig(t)
	r.point = func(p string) {
		if p == "after journal" {
			r.frozen.Store(true)
		}
	}
	want(t, r.Do(t.Context(), r.dispatch("k1")), fettle.NeverWillBe, fettle.Refused)
	r.point = func(string) {}
}

// TestNothingIsTouchedWithoutAnIntent takes the journal away.
func TestNothingIsTouchedWithoutAnIntent(t *testing.T) {
	r := newRig(t) // its action fails the test when it is called
	d := r.dispatch("k1")
	if err := r.log.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, r.Do(t.Context(), d), fettle.NeverWillBe, fettle.Refused)
	want(t, r.Recover(t.Context(), r.dispatch("k2")), fettle.UnknownFate, fettle.Broken)
}

func TestOutcomeThatTheJournalCannotTake(t *testing.T) {
	r := newRig(t)
	r.action.apply = func(_ context.Context, d fettle.Dispatch) (fettle.Result, error) {
		return succeed(t.Context(), d)
	}
	r.point = func(p string) {
		if p == "after act" {
			if err := r.log.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	d := r.dispatch("k1")
	o := r.Do(t.Context(), d)
	want(t, o, fettle.Done, "")
	if len(o.Result.Notes) == 0 {
		t.Error("it is not said that the outcome is not durable")
	}
	if o = r.Do(t.Context(), d); o.Fate != fettle.Done || !o.Replay {
		t.Fatalf("again: %+v", o)
	}
	// After a restart the external system is asked.
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.start(nil)
	r.action.recover = says(fettle.Done, nil)
	want(t, r.Recover(t.Context(), d), fettle.Done, "")
}

func TestNewRefuses(t *testing.T) {
	r := newRig(t)
	mine := r.Incarnation()
	r.stop()
	for name, change := range map[string]func(*Options){
		"another host":         func(o *Options) { o.Host = fettle.HostSubject("h2") },
		"another fleet":        func(o *Options) { o.Fleet = "f2" },
		"no host":              func(o *Options) { o.Host = "" },
		"no clock":             func(o *Options) { o.Clock = nil },
		"an old incarnation":   func(o *Options) { o.Incarnation = mine },
		"an action of nowhere": func(o *Options) { o.Actions = map[string]fettle.Action{"x.y": r.action} },
	} {
		if err := r.tryStart(change); err == nil {
			t.Errorf("%s: taken", name)
		}
		if err := r.log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r.start(nil)

	// A journal that a newer version wrote is not half understood.
	if _, err := r.log.AppendAll(journal.Entry{Kind: KindFence, Schema: Schema + 1, Value: 1}); err != nil {
		t.Fatal(err)
	}
	r.stop()
	if err := r.tryStart(nil); err == nil {
		t.Error("a newer record was taken")
	}
	r.Executor = nil
	_ = os.Remove(r.path)
}

func TestCloseWaitsThenCancels(t *testing.T) {
	r := newRig(t)
	entered := make(chan struct{})
	r.action.apply = func(ctx context.Context, _ fettle.Dispatch) (fettle.Result, error) {
		close(entered)
		<-ctx.Done()
		return fettle.Result{}, ctx.Err()
	}
	d := r.dispatch("k1")
	done := make(chan fettle.Outcome)
	go func() { done <- r.Do(context.Background(), d) }()
	<-entered
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.Close(short); err != nil {
		t.Fatal(err)
	}
	want(t, <-done, fettle.UnknownFate, fettle.NoAnswer)
	want(t, r.Do(t.Context(), r.dispatch("k2")), fettle.NeverWillBe, fettle.Refused)
}
