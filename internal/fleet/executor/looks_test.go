package executor_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fettle/internal/act/roster"
	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
)

// cellar is an adapter with one probe that needs root and one that does not.
type cellar struct {
	mu    sync.Mutex
	damp  bool
	tell  chan struct{} // the watcher tells of each
	burst chan struct{} // the watcher breaks
	asked [][]fettle.Subject
}

func (c *cellar) Catalogue() fettle.Catalogue { return fettle.Catalogue{Adapter: "cellar"} }
func (c *cellar) Discover(context.Context, machine.Machine) ([]machine.Found, error) {
	return nil, nil
}
func (c *cellar) Open(context.Context, machine.Machine, []byte) (fettle.Instance, error) {
	return c, nil
}

func (c *cellar) Probes() []fettle.Probe {
	return []fettle.Probe{&cellarProbe{c, true}, &cellarProbe{c, false}}
}
func (c *cellar) Watchers() []fettle.Watcher        { return []fettle.Watcher{&cellarProbe{c, true}} }
func (c *cellar) Actions() map[string]fettle.Action { return nil }
func (c *cellar) Faults() map[string]fettle.Fault   { return nil }
func (c *cellar) Close() error                      { return nil }

type cellarProbe struct {
	*cellar
	root bool
}

func (p *cellarProbe) Spec() fettle.ProbeSpec {
	if !p.root {
		return fettle.ProbeSpec{Name: "cellar.door", Kind: "cellar"}
	}
	return fettle.ProbeSpec{Name: "cellar.damp", Kind: "cellar", Timeout: time.Second, Root: true}
}

func (p *cellarProbe) Observe(_ context.Context, subjects ...fettle.Subject) []fettle.Observation {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, subjects)
	return []fettle.Observation{{Subject: "cellar:h1/a", Facts: fettle.Facts{"damp": p.damp, "level": int64(3)}}}
}

func (p *cellarProbe) Watch(ctx context.Context, emit func(fettle.Observation)) error {
	for {
		emit(fettle.Observation{Subject: "cellar:h1/a"})
		select {
		case <-p.tell:
		case <-p.burst:
			return errors.New("the pipe burst")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cellarOf serves an executor with the adapter over a socket.
func cellarOf(t *testing.T, c *cellar) *executor.Client {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cellar.yaml"), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in := executor.NewInstances(roster.Finder{Adapters: []machine.Adapter{c}, Machine: memmachine.New(memmachine.Options{}).Ports(), Dir: dir, Kept: t.TempDir()})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- in.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, in.Close()); err != nil {
			t.Error(err)
		}
	})
	h := newFleet(t).host(t.TempDir(), func(o *executor.Options) { o.Looks = in })
	path := socketIn(t)
	serve(t, h.ex, path, os.Geteuid())
	return client(t, path)
}

// What only root sees an agent without root gets from its executor: such probes, and no
// others.
func TestLook(t *testing.T) {
	c := &cellar{damp: true}
	hands := cellarOf(t, c)
	damp := executor.Outlook{Conf: "cellar", Probe: "cellar.damp"}
	for _, subjects := range [][]fettle.Subject{nil, {"cellar:h1/a"}} {
		list, err := hands.Look(t.Context(), damp, subjects...)
		if err != nil || len(list) != 1 || list[0].Subject != "cellar:h1/a" || !list[0].Facts.Equal(fettle.Facts{"damp": true, "level": int64(3)}) {
			t.Errorf("asked for %v: %+v, %v", subjects, list, err)
		}
	}
	if len(c.asked) != 2 || len(c.asked[0]) != 0 || len(c.asked[1]) != 1 {
		t.Errorf("it was asked for %v", c.asked)
	}
	for _, from := range []executor.Outlook{{Conf: "cellar", Probe: "cellar.door"}, {Conf: "cellar"}, {Conf: "attic", Probe: "cellar.damp"}, {}} {
		if list, err := hands.Look(t.Context(), from); !errors.Is(err, fettle.ErrNotSupported) {
			t.Errorf("%+v: %v, %v", from, list, err)
		}
		if _, err := hands.Changed(t.Context(), from, 0); !errors.Is(err, fettle.ErrNotSupported) {
			t.Errorf("%+v: %v", from, err)
		}
	}
}

// A change is told at once, none is missed between two calls, and a watcher that broke
// is there again for the next who asks.
func TestChanged(t *testing.T) {
	c := &cellar{tell: make(chan struct{}), burst: make(chan struct{})}
	hands := cellarOf(t, c)
	damp := executor.Outlook{Conf: "cellar", Probe: "cellar.damp"}
	known := uint64(0)
	next := func() error {
		t.Helper()
		told, err := hands.Changed(t.Context(), damp, known)
		if err == nil && told == known {
			t.Error("it told of nothing new")
		}
		known = told
		return err
	}
	if err := next(); err != nil { // that it watches
		t.Fatal(err)
	}
	c.tell <- struct{}{} // between two calls; and the watcher's first word is one too
	c.tell <- struct{}{}
	if err := next(); err != nil {
		t.Fatal(err)
	}
	c.burst <- struct{}{}
	// Who waits then is told that it broke; who comes later finds it begun anew.
	if err := next(); err != nil {
		if !strings.Contains(err.Error(), "the pipe burst") {
			t.Error(err)
		}
		if err := next(); err != nil {
			t.Fatal(err)
		}
	}
	c.tell <- struct{}{}
	if err := next(); err != nil {
		t.Errorf("it does not watch again: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := hands.Changed(ctx, damp, known); err == nil {
		t.Error("nobody waits for it any more, and it answered")
	}
}
