package loop_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fettle/internal/adapter/etcd"
	"fettle/internal/adapter/filesystem"
	"fettle/internal/adapter/firewall"
	"fettle/internal/adapter/systemd"
	"fettle/internal/fettle"
	"fettle/internal/fleet/store"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
	"fettle/internal/loop"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
	"fettle/internal/machine/units"
	"fettle/runbooks"
)

// pretend is one host in memory with its adapter, and hands on it that keep what
// they were asked to do.
type pretend struct {
	m        *memmachine.Machine
	instance fettle.Instance

	mu     sync.Mutex
	done   map[string]int                // applied, by key
	cut    func(d fettle.Dispatch) error // asked after an apply: the answer is lost when it says so
	absent bool
}

func newPretend(t *testing.T, config string) *pretend {
	t.Helper()
	m := memmachine.New(memmachine.Options{Host: "h1"})
	in, err := systemd.Adapter{}.Open(t.Context(), m.Ports(), []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	return &pretend{m: m, instance: in, done: map[string]int{}}
}

func (p *pretend) Look(ctx context.Context, looks []fettle.Look) []fettle.Observation {
	var out []fettle.Observation
	for _, l := range looks {
		for _, probe := range p.instance.Probes() {
			if probe.Spec().Name == l.Probe {
				out = append(out, stamp(probe, probe.Observe(ctx, l.Subject))...)
			}
		}
	}
	return out
}

func stamp(p fettle.Probe, list []fettle.Observation) []fettle.Observation {
	for i := range list {
		list[i].Host, list[i].Probe = "host:h1", p.Spec().Name
	}
	return list
}

func (p *pretend) Do(ctx context.Context, d fettle.Dispatch) (fettle.Outcome, error) {
	p.mu.Lock()
	if p.absent {
		p.mu.Unlock()
		return fettle.Outcome{}, loop.ErrNoContact
	}
	p.done[d.Key]++
	cut := p.cut
	p.mu.Unlock()
	act := p.instance.Actions()[d.Step.Action]
	call := act.Apply
	if d.Undo {
		call = act.Undo
	}
	r, err := call(ctx, d)
	if cut != nil {
		if lost := cut(d); lost != nil {
			return fettle.Outcome{}, lost
		}
	}
	return outcome(d.Key, r, err), nil
}

func outcome(key string, r fettle.Result, err error) fettle.Outcome {
	o := fettle.Outcome{Schema: 1, Key: key, Fate: fettle.Done, Result: r, Class: fettle.ClassOf(err)}
	if err != nil {
		o.Error = err.Error()
	}
	return o
}

func (p *pretend) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Outcome, error) {
	fate, r, err := p.instance.Actions()[d.Step.Action].Recover(ctx, d)
	if err != nil {
		return fettle.Outcome{}, err
	}
	return fettle.Outcome{Schema: 1, Key: d.Key, Fate: fate, Result: r}, nil
}

func (p *pretend) Preview(ctx context.Context, s fettle.Step) (fettle.Preview, error) {
	return p.instance.Actions()[s.Action].Preview(ctx, s)
}

func (p *pretend) Incarnation(fettle.Subject) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return "one", !p.absent
}

func (p *pretend) applied() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, c := range p.done {
		n += c
	}
	return n
}

func newMind(t *testing.T, policy fettle.Policy) *incident.Mind {
	t.Helper()
	m, err := incident.New(incident.Options{
		Catalogues: []fettle.Catalogue{etcd.Catalogue(), filesystem.Catalogue(), firewall.Catalogue(), systemd.Catalogue()}, Policy: policy,
		Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
			return runbook.Load(runbooks.FS(), env, cats)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// run drives a loop over the pretended host until stop is called; stop returns
// when everything has returned.
func run(t *testing.T, p *pretend, s loop.Store, policy fettle.Policy) (*loop.Loop, func()) {
	t.Helper()
	l := loop.New(loop.Options{Mind: newMind(t, policy), Store: s, Hands: p, Clock: p.m.Ports().Clock})
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		if err := l.Run(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errDead) {
			t.Errorf("loop: %v", err)
		}
	})
	for _, w := range p.instance.Watchers() {
		group.Go(func() {
			err := w.Watch(ctx, func(o fettle.Observation) {
				o.Host, o.Probe = "host:h1", w.Spec().Name
				l.Feed(incident.Input{Observations: []fettle.Observation{o}})
			})
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("watch: %v", err)
			}
		})
	}
	return l, func() { cancel(); group.Wait() }
}

func incidents(t *testing.T, l *loop.Loop) []fettle.Incident {
	t.Helper()
	var list []fettle.Incident
	if err := l.Ask(t.Context(), func(m *incident.Mind) { list = m.Incidents() }); err != nil {
		t.Fatal(err)
	}
	return list
}

func story(in fettle.Incident) string {
	var b strings.Builder
	for _, e := range in.Story {
		b.WriteString(string(e.Kind) + ": " + e.Text + "\n")
		for _, v := range guard.Refusals(e.Verdicts) {
			b.WriteString("    " + v.Guard + ": " + v.Why + " " + v.Arithmetic + "\n")
		}
	}
	return b.String()
}

func define(p *pretend, b memmachine.Behaviour) {
	p.m.Define(units.Definition{Unit: machine.Unit{Name: "web.service", UnitFileState: "enabled"}}, b)
}

func start(t *testing.T, p *pretend) {
	t.Helper()
	if _, err := p.m.Ports().Services.Start(t.Context(), "web.service"); err != nil {
		t.Fatal(err)
	}
}

func state(t *testing.T, p *pretend) string {
	t.Helper()
	u, err := p.m.Ports().Services.Unit(t.Context(), "web.service")
	if err != nil {
		t.Fatal(err)
	}
	return u.ActiveState
}

func TestMendsAKilledService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPretend(t, "")
		define(p, memmachine.Behaviour{})
		start(t, p)
		l, stop := run(t, p, store.NewMemory("f"), fettle.Policy{})
		defer stop()
		time.Sleep(time.Second)
		p.m.Crash("web.service", 9)
		time.Sleep(30 * time.Second)
		if got := state(t, p); got != "active" {
			t.Errorf("the unit is %s", got)
		}
		list := incidents(t, l)
		if len(list) != 1 || list[0].State != fettle.Resolved {
			t.Fatalf("want one resolved incident, got %d: %+v", len(list), list)
		}
		if p.applied() != 1 {
			t.Errorf("%d steps were done, want 1", p.applied())
		}
		t.Log(story(list[0]))
	})
}

func TestCrashLoopEndsWithAPerson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPretend(t, "")
		define(p, memmachine.Behaviour{})
		start(t, p)
		l, stop := run(t, p, store.NewMemory("f"), fettle.Policy{})
		defer stop()
		time.Sleep(time.Second)
		define(p, memmachine.Behaviour{ExitAfter: time.Second, ExitStatus: 3})
		p.m.Crash("web.service", 9)
		time.Sleep(time.Hour)
		list := incidents(t, l)
		last := list[len(list)-1]
		if last.State != fettle.Escalated {
			t.Errorf("a person should have been called; the incident is %s: %s\n%s", last.State, last.Why, story(last))
		}
		if p.applied() > 6 {
			t.Errorf("%d steps were done: that is a restart loop", p.applied())
		}
		for _, in := range list {
			t.Log(in.State, in.Cause, "\n"+story(in))
		}
	})
}

func TestLeavesAloneWhatAPersonStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPretend(t, "")
		define(p, memmachine.Behaviour{})
		start(t, p)
		l, stop := run(t, p, store.NewMemory("f"), fettle.Policy{})
		defer stop()
		time.Sleep(time.Second)
		if err := p.m.StopAsPerson(t.Context(), "web.service"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if got := state(t, p); got != "inactive" || p.applied() != 0 {
			t.Errorf("the unit is %s after %d steps; it should have been left alone", got, p.applied())
		}
		list := incidents(t, l)
		if len(list) != 1 || list[0].Cause.Code != systemd.UnitStopped {
			t.Errorf("it should be reported: %+v", list)
		}
	})
}

func TestFreezeStopsWhatIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPretend(t, "")
		define(p, memmachine.Behaviour{})
		start(t, p)
		l, stop := run(t, p, store.NewMemory("f"), fettle.Policy{})
		defer stop()
		l.Feed(incident.Input{Freeze: &guard.Freeze{By: "anna", Since: time.Now(), Why: "migration"}})
		time.Sleep(time.Second)
		p.m.Crash("web.service", 9)
		time.Sleep(10 * time.Minute)
		if got := state(t, p); got != "failed" || p.applied() != 0 {
			t.Fatalf("frozen, and the unit is %s after %d steps", got, p.applied())
		}
		in := incidents(t, l)[0]
		if in.State != fettle.Held || !strings.Contains(in.Why, "anna") {
			t.Errorf("it should say who froze it: %s %q", in.State, in.Why)
		}
		l.Feed(incident.Input{Thaw: true})
		time.Sleep(time.Minute)
		if got := state(t, p); got != "active" {
			t.Errorf("thawed, and the unit is %s:\n%s", got, story(incidents(t, l)[0]))
		}
	})
}

// TestLostAnswerIsAskedFor: the answer to a step that was done is lost; what
// became of it is asked for, and it is not done again.
func TestLostAnswerIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPretend(t, "")
		p.cut = func(fettle.Dispatch) error { return errors.New("connection reset") }
		define(p, memmachine.Behaviour{})
		start(t, p)
		l, stop := run(t, p, store.NewMemory("f"), fettle.Policy{})
		defer stop()
		time.Sleep(time.Second)
		p.m.Crash("web.service", 9)
		time.Sleep(2 * time.Minute)
		in := incidents(t, l)[0]
		if in.State != fettle.Resolved || p.applied() != 1 {
			t.Errorf("the incident is %s after %d applications:\n%s", in.State, p.applied(), story(in))
		}
	})
}

// dying is a store that ends its process, as far as the loop can tell, at one of
// its commits: before it or after it.
type dying struct {
	loop.Store
	left  int
	after bool
	dead  func()
}

var errDead = errors.New("killed")

func (d *dying) Commit(ctx context.Context, t loop.Txn) error {
	d.left--
	if d.left != 0 {
		if d.left < 0 {
			return errDead
		}
		return d.Store.Commit(ctx, t)
	}
	defer d.dead()
	if d.after {
		if err := d.Store.Commit(ctx, t); err != nil {
			return err
		}
	}
	return errDead
}

// TestServerKilledAtEveryCommit: the server dies at each of its commits in turn,
// before and after; another goes on from the store. The end is always the same,
// and no step is done twice under one key or without an intent.
func TestServerKilledAtEveryCommit(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; n <= 12; n++ {
			synctest.Test(t, func(t *testing.T) {
				p := newPretend(t, "")
				define(p, memmachine.Behaviour{})
				start(t, p)
				mem := store.NewMemory("f")
				killed := make(chan struct{})
				var once sync.Once
				_, stop := run(t, p, &dying{Store: mem, left: n, after: after, dead: func() { once.Do(func() { close(killed) }) }}, fettle.Policy{})
				time.Sleep(time.Second)
				p.m.Crash("web.service", 9)
				select {
				case <-killed:
				case <-time.After(time.Minute):
				}
				stop()
				l, stop := run(t, p, mem, fettle.Policy{})
				defer stop()
				time.Sleep(2 * time.Minute)
				if got := state(t, p); got != "active" {
					for _, in := range incidents(t, l) {
						t.Log(in.State, in.Why, story(in))
					}
					t.Errorf("killed at commit %d (after: %v): the unit is %s", n, after, got)
				}
				for key, times := range p.done {
					if times != 1 {
						t.Errorf("killed at commit %d: %s was done %d times", n, key, times)
					}
				}
				if _, err := mem.Check(t.Context()); err != nil {
					t.Errorf("killed at commit %d: the log's chain: %v", n, err)
				}
			})
		}
	}
}

// TestReplay: a recording, through JSON, leads to the same decisions; one input
// taken out of it, or another runbook, does not.
func TestReplay(t *testing.T) {
	var rec incident.Recording
	synctest.Test(t, func(t *testing.T) {
		p := newPretend(t, "")
		define(p, memmachine.Behaviour{})
		start(t, p)
		recorder := &loop.Recorder{}
		l := loop.New(loop.Options{Mind: newMind(t, fettle.Policy{}), Store: store.NewMemory("f"), Hands: p, Clock: p.m.Ports().Clock, OnInput: recorder.Input})
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { _ = l.Run(ctx) })
		group.Go(func() {
			_ = p.instance.Watchers()[0].Watch(ctx, func(o fettle.Observation) { l.Feed(incident.Input{Observations: []fettle.Observation{o}}) })
		})
		time.Sleep(time.Second)
		p.m.Crash("web.service", 9)
		time.Sleep(time.Minute)
		if err := l.Ask(t.Context(), func(m *incident.Mind) { rec = recorder.Recording(m) }); err != nil {
			t.Fatal(err)
		}
		cancel()
		group.Wait()
	})
	data, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	again := func() incident.Recording {
		var r incident.Recording
		if err := json.Unmarshal(data, &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	same := again()
	diff, err := same.Replay(newMind(t, fettle.Policy{}))
	if err != nil || len(diff) != 0 {
		t.Errorf("the same inputs are decided differently: %v %v", err, diff)
	}
	for i := range rec.Inputs {
		less := again()
		if o := less.Inputs[i].Outcome; o == nil {
			continue
		}
		less.Inputs = append(less.Inputs[:i:i], less.Inputs[i+1:]...)
		diff, err := less.Replay(newMind(t, fettle.Policy{}))
		if err == nil && len(diff) == 0 {
			t.Error("without the step's outcome the decisions should differ")
		}
	}
	cut := again()
	cut.Truncated = true
	if _, err := cut.Replay(newMind(t, fettle.Policy{})); err == nil {
		t.Error("a truncated recording must not pass as replayed")
	}
}
