package armed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
	"fettle/internal/machine/units"
)

const (
	dir  = "/var/lib/fettle/armed"
	key  = "i1.1.restore"
	self = 4711 // the process that touches
)

// world is a machine with a ruleset that is a word, and a time that passes only
// when somebody waits.
type world struct {
	mem *memmachine.Machine

	mu   sync.Mutex
	live string
	now  time.Duration
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{mem: memmachine.New(memmachine.Options{}), live: "before", now: time.Minute}
	w.mem.Put(booted+"/x", nil, 0o644)
	w.mem.Put(UnitDir+"/x", nil, 0o644)
	w.mem.Put("/var/lib/fettle/x", nil, 0o600)
	w.mem.AddProcess(machine.Process{PID: self, StartTicks: 7}, nil)
	w.define()
	return w
}

// define has the manager know the unit and the ruleset's program.
func (w *world) define() {
	w.mem.Define(units.Definition{Unit: machine.Unit{Name: instance(ID(key))}}, memmachine.Behaviour{})
	w.mem.Program("nft", func(c machine.Command) (machine.Output, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.live = string(c.Stdin)
		return machine.Output{}, nil
	})
}

func (w *world) is() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.live
}

// cut is the machine as it comes up after a power cut: its boot loads the ruleset
// that the change was about to load.
func (w *world) cut(seed uint64) *world {
	w.mu.Lock()
	now := w.now
	w.mu.Unlock()
	n := &world{mem: w.mem.Fork(seed), live: "after", now: now / 2}
	n.define()
	return n
}

// boots reports whether this boot starts the unit.
func (w *world) boots(t testing.TB) bool {
	t.Helper()
	a := New(w.mem.Ports(), Options{Dir: dir})
	for _, name := range []string{a.wanted(ID(key)), UnitDir + "/" + template} {
		if _, err := w.mem.Ports().Files.Stat(t.Context(), name); err != nil {
			return false
		}
	}
	return true
}

// errKilled is what a process that was killed gets to see, had it eyes.
var errKilled = errors.New("killed")

// process is a process on the world: each call of a port is a point at which it
// may be killed, right before it.
type process struct {
	w     *world
	left  int // calls until it is killed; negative: never
	pause int // waits until it is killed; 0: never
	at    func(n int)
	calls int
	dead  bool
}

func (p *process) call() error {
	if p.left == 0 {
		p.dead = true
	}
	if p.dead {
		return errKilled
	}
	p.left--
	p.calls++
	if p.at != nil {
		p.at(p.calls)
	}
	return nil
}

func (p *process) arms() *Arms {
	m := p.w.mem.Ports()
	m.Files = procFiles{p, m.Files}
	m.Commands = procCommands{p, m.Commands}
	m.Clock = procClock{p, m.Clock}
	return New(m, Options{Dir: dir, Program: "/usr/bin/fettle", PID: self})
}

type procClock struct {
	p *process
	machine.Clock
}

func (c procClock) After(d time.Duration) (<-chan time.Time, func()) {
	c.p.w.mu.Lock()
	c.p.w.now += d
	c.p.w.mu.Unlock()
	if c.p.pause > 0 {
		if c.p.pause--; c.p.pause == 0 {
			c.p.dead = true
		}
	}
	ch := make(chan time.Time, 1)
	ch <- time.Time{}
	return ch, func() {}
}

type procFiles struct {
	p *process
	machine.Files
}

func (f procFiles) ReadFile(ctx context.Context, name string, limit int64) ([]byte, error) {
	if name == uptimeFile {
		f.p.w.mu.Lock()
		defer f.p.w.mu.Unlock()
		f.p.w.now += 10 * time.Millisecond
		return fmt.Appendf(nil, "%.2f 1.00\n", f.p.w.now.Seconds()), nil
	}
	if err := f.p.call(); err != nil {
		return nil, err
	}
	return f.Files.ReadFile(ctx, name, limit)
}

func (f procFiles) Stat(ctx context.Context, name string) (machine.Stat, error) {
	if err := f.p.call(); err != nil {
		return machine.Stat{}, err
	}
	return f.Files.Stat(ctx, name)
}

func (f procFiles) WriteFile(ctx context.Context, name string, data []byte, perm fs.FileMode) error {
	if err := f.p.call(); err != nil {
		return err
	}
	return f.Files.WriteFile(ctx, name, data, perm)
}

func (f procFiles) Rename(ctx context.Context, from, to string) error {
	if err := f.p.call(); err != nil {
		return err
	}
	return f.Files.Rename(ctx, from, to)
}

func (f procFiles) MkdirAll(ctx context.Context, name string, perm fs.FileMode) error {
	if err := f.p.call(); err != nil {
		return err
	}
	return f.Files.MkdirAll(ctx, name, perm)
}

func (f procFiles) Remove(ctx context.Context, name string) error {
	if err := f.p.call(); err != nil {
		return err
	}
	return f.Files.Remove(ctx, name)
}

type procCommands struct {
	p *process
	machine.Commands
}

func (c procCommands) Run(ctx context.Context, cmd machine.Command) (machine.Output, error) {
	if err := c.p.call(); err != nil {
		return machine.Output{}, err
	}
	return c.Commands.Run(ctx, cmd)
}

var order = Order{Key: key, Action: "firewall.restore", Target: "firewall:h1/nftables",
	PutBack: fettle.PutBack{Program: "nft", Args: []string{"-f", "-"}, Stdin: "before", Says: "the ruleset of before"}}

// change is what an agent does with an armed change: arm, touch, end, and, where
// it gets so far, confirm. It returns what it knows for certain.
func change(ctx context.Context, p *process, confirm bool) (touched, confirmed bool) {
	a := p.arms()
	if _, err := a.Arm(ctx, order); err != nil {
		return false, false
	}
	touched = true
	if _, err := a.m.Commands.Run(ctx, machine.Command{Path: "nft", Stdin: []byte("after")}); err != nil {
		return touched, false
	}
	if err := a.Ended(ctx, key, true, fettle.Result{}); err != nil || !confirm {
		return touched, false
	}
	since, err := a.Uptime(ctx)
	if err != nil {
		return touched, false
	}
	return touched, a.Confirm(ctx, ID(key), since) == nil
}

// revert runs the unit's process, killed before each of its calls in turn and
// started anew, until it ends by itself.
func revert(t testing.TB, w *world, killed bool) {
	t.Helper()
	for left := 0; ; left++ {
		p := &process{w: w, left: -1}
		if killed {
			p.left = left
		}
		err := p.arms().Revert(t.Context(), ID(key), func() error { return nil })
		if err == nil && !p.dead {
			return
		}
		if !p.dead {
			t.Fatalf("the revert fails by itself: %v", err)
		}
		if left > 10_000 {
			t.Fatal("the revert does not end")
		}
	}
}

// holds fails the test unless the change is confirmed or taken back.
func holds(t testing.TB, w *world, what string, touched, confirmed bool) {
	t.Helper()
	a := New(w.mem.Ports(), Options{Dir: dir})
	d, err := a.decision(t.Context(), ID(key))
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case d.Decision == Confirmed && w.is() != "after":
		t.Errorf("%s: confirmed, and the ruleset is the one %s", what, w.is())
	case confirmed && d.Decision != Confirmed:
		t.Errorf("%s: Confirm returned, and the decision is %q", what, d.Decision)
	case touched && d.Decision != Confirmed && w.is() != "before":
		t.Errorf("%s: neither confirmed nor taken back: %q, and the ruleset is the one %s", what, d.Decision, w.is())
	}
}
