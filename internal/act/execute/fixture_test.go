package execute

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"fettle/internal/act/journal"
	"fettle/internal/fettle"
)

var (
	host   = fettle.HostSubject("h1")
	target = fettle.NewSubject(fettle.KindUnit, "h1", "a.service")
)

// realClock is the system's, shifted.
type realClock struct{ ahead atomic.Int64 }

func (c *realClock) Now() time.Time  { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *realClock) Wall() time.Time { return c.Now() }
func (c *realClock) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// fake is an action whose parts are set by a test. Those that are nil fail the
// test when they are called.
type fake struct {
	t       testing.TB
	preview func(context.Context, fettle.Step) (fettle.Preview, error)
	apply   func(context.Context, fettle.Dispatch) (fettle.Result, error)
	recover func(context.Context, fettle.Dispatch) (fettle.Fate, fettle.Result, error)
	undo    func(context.Context, fettle.Dispatch) (fettle.Result, error)
	touched atomic.Int64 // calls of apply and undo
}

var errNotExpected = errors.New("not expected to be called")

func (f *fake) Preview(ctx context.Context, s fettle.Step) (fettle.Preview, error) {
	if f.preview == nil {
		f.t.Error("Preview was called")
		return fettle.Preview{}, errNotExpected
	}
	return f.preview(ctx, s)
}

func (f *fake) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	f.touched.Add(1)
	if f.apply == nil {
		f.t.Error("Apply was called")
		return fettle.Result{}, errNotExpected
	}
	return f.apply(ctx, d)
}

func (f *fake) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	if f.recover == nil {
		f.t.Error("Recover was called")
		return "", fettle.Result{}, errNotExpected
	}
	return f.recover(ctx, d)
}

func (f *fake) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	f.touched.Add(1)
	if f.undo == nil {
		f.t.Error("Undo was called")
		return fettle.Result{}, errNotExpected
	}
	return f.undo(ctx, d)
}

func succeed(context.Context, fettle.Dispatch) (fettle.Result, error) {
	return fettle.Result{Outputs: fettle.Facts{"id": "7"}}, nil
}

var catalogue = fettle.Catalogue{
	Adapter: "test",
	Actions: []fettle.ActionSpec{
		{Name: "test.do", Version: 2, Target: fettle.KindUnit, Undo: true, Timeout: 5 * time.Second,
			Params: []fettle.ParamSpec{{Name: "how", Type: fettle.StringFact, Required: true}, {Name: "much", Type: fettle.IntFact}}},
		{Name: "test.forward", Version: 1, Target: fettle.KindUnit, NoUndo: "nothing brings it back", Timeout: 5 * time.Second},
	},
}

// rig is an executor over a journal on disk.
type rig struct {
	*Executor
	t      testing.TB
	path   string
	log    *journal.Journal
	action *fake
	clock  *realClock
	frozen atomic.Bool
	denied atomic.Bool
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, path: filepath.Join(t.TempDir(), "journal"), action: &fake{t: t}, clock: &realClock{}}
	r.start(nil)
	t.Cleanup(r.stop)
	return r
}

// start opens the journal and begins an incarnation; change may alter the options.
func (r *rig) start(change func(*Options)) {
	r.t.Helper()
	if err := r.tryStart(change); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) tryStart(change func(*Options)) error {
	log, err := journal.Open(context.Background(), r.path, journal.Options{})
	if err != nil {
		return err
	}
	o := Options{
		Journal: log, Clock: r.clock, Host: host, Fleet: "f1",
		Actions:    map[string]fettle.Action{"test.do": r.action, "test.forward": r.action},
		Catalogues: []fettle.Catalogue{catalogue},
		Frozen:     r.frozen.Load,
		Allow:      func(string) bool { return !r.denied.Load() },
	}
	if change != nil {
		change(&o)
	}
	r.log = log
	r.Executor, err = New(o)
	return err
}

// stop is an orderly end.
func (r *rig) stop() {
	if r.Executor != nil {
		if err := r.Close(context.Background()); err != nil {
			r.t.Error(err)
		}
	}
	if err := r.log.Close(); err != nil {
		r.t.Error(err)
	}
}

// restart is an orderly end and a new incarnation.
func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.start(nil)
}

// dispatch is one that is good at present.
func (r *rig) dispatch(key string) fettle.Dispatch {
	return fettle.Dispatch{
		Schema: 1, Key: key, Incarnation: r.Incarnation(), Token: fettle.Token{Fleet: "f1", Epoch: 1, Revision: 10},
		Deadline: r.clock.Now().Add(time.Minute), Incident: "i1", Plan: "p1",
		Step: fettle.Step{ID: "s1", Action: "test.do", Version: 2, Target: target, Host: host, Params: fettle.Facts{"how": "well"}},
	}
}

// kinds lists the kinds of all journal records.
func (r *rig) kinds() []string {
	r.t.Helper()
	var out []string
	err := r.log.Read(context.Background(), 0, func(rec journal.Record) error {
		out = append(out, rec.Kind)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// want checks fate and class of an outcome.
func want(t testing.TB, o fettle.Outcome, fate fettle.Fate, class fettle.Class) {
	t.Helper()
	if o.Fate != fate || o.Class != class {
		t.Fatalf("fate %q, class %q (%s); want %q, %q", o.Fate, o.Class, o.Error, fate, class)
	}
}
