package server_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/act/armed"
	"fettle/internal/act/roster"
	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
)

// beside is an executor beside a box's agent, as it is in a process of its own.
type beside struct {
	dir, socket string
	machine     *machine.Machine // nil: one that nobody else has
	arms        *armed.Arms
	client      *executor.Client
	stop        func()
}

// startBeside starts an executor that believes what is pinned in dir.
func startBeside(t *testing.T, b *box, e *beside) {
	t.Helper()
	pin, err := executor.OpenPin(e.dir)
	if err != nil {
		t.Fatal(err)
	}
	m := memmachine.New(memmachine.Options{Host: pin.Host.Root()}).Ports()
	if e.machine != nil {
		m = *e.machine
	}
	adapters := executor.NewInstances(roster.Finder{Adapters: []machine.Adapter{b.toy}, Machine: m, Kept: filepath.Join(e.dir, "found"), Log: logger(t)})
	cats := []fettle.Catalogue{toyCatalogue()}
	ex, err := executor.Open(t.Context(), executor.Options{
		Host: pin.Host, StateDir: e.dir, Trust: pin.Trust, Keep: pin.Keep, Clock: m.Clock, Actions: adapters.Actions(cats), Catalogues: cats,
		Filesystems: m.Filesystems, ActionsFile: filepath.Join(e.dir, "actions.yaml"), Arms: e.arms, Log: logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", e.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := executor.Serve(ctx, l, ex, []int{os.Geteuid()}, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() { _ = adapters.Run(ctx) })
	var once sync.Once
	e.stop = func() {
		once.Do(func() {
			cancel()
			wg.Wait()
			if err := ex.Close(context.Background()); err != nil {
				t.Error(err)
			}
			if err := adapters.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(e.stop)
}

// TestExecutorBeside: an agent whose executor is another process does what the server
// orders, observes while the executor is away, and does again when it is back.
func TestExecutorBeside(t *testing.T) {
	f := newFleet(t)
	id, dir := f.join("box")
	b := &box{f: f, id: id, dir: dir, state: filepath.Join(t.TempDir(), "state"), host: id.Name.Host(), toy: newToy("main")}
	e := &beside{dir: filepath.Join(t.TempDir(), "executor"), socket: filepath.Join(t.TempDir(), "s")}
	if err := executor.Save(e.dir, id); err != nil {
		t.Fatal(err)
	}
	startBeside(t, b, e)
	e.client = executor.Dial(e.socket)
	t.Cleanup(func() { _ = e.client.Close() })
	mark := f.brain.mark()
	b.start(func(o *agent.Options) { o.Executor = e.client })
	b.connected(mark, true)
	b.seen(mark, "it is up", true)
	do := func(key string, wait time.Duration) (fettle.Outcome, error) {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		return f.server.Do(ctx, b.dispatch(key, f.token(1)))
	}
	if out, err := do("k1", patience); err != nil || out.Fate != fettle.Done || b.toy.applications("k1") != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	if _, err := os.Stat(filepath.Join(b.state, "journal")); err == nil {
		t.Error("the agent has a journal of its own")
	}
	if p, err := f.server.Preview(t.Context(), b.dispatch("k", f.token(1)).Step); err != nil || len(p.Would) != 1 {
		t.Errorf("preview: %+v, %v", p, err)
	}
	if out, err := f.server.Recover(t.Context(), b.dispatch("k1", f.token(1))); err != nil || out.Fate != fettle.Done || !out.Replay {
		t.Errorf("recover: %+v, %v", out, err)
	}
	if err := executor.Freeze(e.dir, "hands off"); err != nil {
		t.Fatal(err)
	}
	if out, err := do("k2", patience); err != nil || out.Class != fettle.Refused || !strings.Contains(out.Error, "frozen") {
		t.Errorf("frozen: %+v, %v", out, err)
	}
	if err := executor.Thaw(e.dir); err != nil {
		t.Fatal(err)
	}

	// Away: it goes on observing, and nothing is done.
	first, _ := f.server.Incarnation(b.host)
	e.stop()
	wait(t, "the server to know that the executor is away", func() bool {
		inc, ok := f.server.Incarnation(b.host)
		return ok && inc != first
	})
	mark = f.brain.mark()
	b.toy.setUp(false)
	b.seen(mark, "it is down", false)
	if out, err := do("k3", patience); err != nil || out.Class != fettle.Refused || out.Fate != fettle.NeverWillBe || b.toy.applications("k3") != 0 {
		t.Errorf("away: %+v, %v", out, err)
	}
	away, _ := f.server.Incarnation(b.host)
	startBeside(t, b, e)
	wait(t, "the server to know that it is back", func() bool {
		inc, ok := f.server.Incarnation(b.host)
		return ok && inc != away
	})
	if out, err := do("k4", patience); err != nil || out.Fate != fettle.Done || b.toy.applications("k4") != 1 {
		t.Errorf("back: %+v, %v", out, err)
	}
	if out, err := f.server.Recover(t.Context(), func() fettle.Dispatch {
		d := b.dispatch("k1", f.token(1))
		d.Incarnation = first
		return d
	}()); err != nil || out.Fate != fettle.Done || !out.Replay {
		t.Errorf("what the last executor did: %+v, %v", out, err)
	}
}

// wait waits for something that has no event.
func wait(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("it never came: " + what)
		}
	}
}

// TestSignedApproval: a server keeps the signature of who approves, and takes nobody
// else's, and not that of another plan.
func TestSignedApproval(t *testing.T) {
	f := newFleet(t)
	mint := func(role pki.Role, name string) *pki.Identity {
		id, err := f.ca.Mint(role, name, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	ann, bob := mint(pki.RoleApprover, "ann"), mint(pki.RoleAdmin, "bob")
	now := time.Now().UTC().Truncate(time.Second)
	good := warrant.Approval{Fleet: f.ca.Fleet(), Incident: "i1", Plan: warrant.HashOf([]byte("plan")), At: now, Until: now.Add(10 * time.Minute), Finish: now.Add(time.Hour)}
	answer := func(by, caller *pki.Identity, say incident.Say, change func(*warrant.Approval, *wire.AnswerRequest)) error {
		data, err := wire.Pack(incident.Answer{Incident: "i1", Say: say, Plan: good.Plan})
		if err != nil {
			t.Fatal(err)
		}
		a, r := good, &wire.AnswerRequest{Json: data, ForNs: int64(time.Hour)}
		if change != nil {
			change(&a, r)
		}
		s, err := warrant.SignApproval(a, by)
		if err != nil {
			t.Fatal(err)
		}
		r.Note, r.Certificate = append(r.Note, s.Note...), s.Certificate
		_, err = wire.NewAdminServiceClient(f.dial(caller)).Answer(t.Context(), r)
		return err
	}
	if err := answer(ann, ann, incident.SayApprove, nil); err != nil {
		t.Fatal(err)
	}
	f.brain.mu.Lock()
	got := f.brain.answer[0]
	f.brain.mu.Unlock()
	kept, who, err := warrant.OpenApproval(warrant.Signed{Note: got.Note, Certificate: got.Certificate}, ann.Trust())
	if err != nil || kept != good || who != ann.Name {
		t.Errorf("kept: %+v by %s, %v", kept, who, err)
	}
	if left := time.Until(got.Until); left > 10*time.Minute+time.Second {
		t.Errorf("the server's approval holds for %s, longer than what was signed", left)
	}
	for name, c := range map[string]struct {
		err  error
		code codes.Code
	}{
		"somebody else's":     {answer(ann, bob, incident.SayApprove, nil), codes.PermissionDenied},
		"of another plan":     {answer(ann, ann, incident.SayApprove, func(a *warrant.Approval, _ *wire.AnswerRequest) { a.Plan = warrant.HashOf([]byte("another")) }), codes.InvalidArgument},
		"of another incident": {answer(ann, ann, incident.SayApprove, func(a *warrant.Approval, _ *wire.AnswerRequest) { a.Incident = "i2" }), codes.InvalidArgument},
		"over":                {answer(ann, ann, incident.SayApprove, func(a *warrant.Approval, _ *wire.AnswerRequest) { a.Until = a.At }), codes.InvalidArgument},
		"of a refusal":        {answer(ann, ann, incident.SayRefuse, nil), codes.InvalidArgument},
		"changed":             {answer(ann, ann, incident.SayApprove, func(_ *warrant.Approval, r *wire.AnswerRequest) { r.Note = []byte("x") }), codes.InvalidArgument},
	} {
		if status.Code(c.err) != c.code {
			t.Errorf("%s: %v, want %v", name, c.err, c.code)
		}
	}
	if n := len(f.brain.answer); n != 1 {
		t.Errorf("%d answers were taken", n)
	}
}
