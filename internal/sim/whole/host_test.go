package whole_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"fettle/internal/act/journal"
	"fettle/internal/adapter/systemd"
	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/runbook"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
	"fettle/internal/machine/units"
)

// host is a machine with services on it and an agent, which runs, or not.
type host struct {
	r     *run
	name  string // on the network
	votes bool
	clock *clock

	mu       sync.Mutex
	machine  *memmachine.Machine // another one with each boot
	identity *pki.Identity       // nil: it does not belong to the fleet yet
	off      bool
	id       string
	state    string // the agent's folder; another one with each life that was killed
	lives    int
	life     *agentLife      // nil: it does not run
	killAt   int             // records of its journals until it is killed; 0: it is not
	stale    bool            // its voter wants a restart
	did      map[string]bool // keys that started or stopped its voter
	stopped  map[string]time.Time
	moved    time.Time // when one of its services changed last
	frozen   time.Time // since when a person has frozen it; zero: nobody has
	broken   map[string]bool
	highest  fettle.Token // of what has touched it
	entry    int64        // of the log, with the intent of what has touched it last, by a server's word
	hash     string       // of that entry
	branch   int          // of the store, likewise
}

// agentLife is one life of an agent.
type agentLife struct {
	h    *host
	p    *process
	stop context.CancelFunc
	done chan struct{}
}

// newHost makes a machine of the fleet, as if it had joined before.
func (r *run) newHost(name string, votes bool) *host {
	h := &host{r: r, name: name, votes: votes, id: name, clock: r.skewed(), stopped: map[string]time.Time{}, broken: map[string]bool{}, did: map[string]bool{}}
	id, err := r.ca.Mint(pki.RoleAgent, name, time.Now().Add(-10*time.Minute), pki.AgentLife)
	if err != nil {
		r.breaks("sim", "%s gets no certificate: %v", name, err)
		return h
	}
	h.identity = id
	r.enter("hosts", name, name)
	h.furnish()
	return h
}

// furnish makes the machine, with its services running.
func (h *host) furnish() {
	m := memmachine.New(memmachine.Options{Host: h.id, Hostname: h.name})
	h.mu.Lock()
	h.machine = m
	h.state = filepath.Join(h.r.dir, h.id, "state")
	h.mu.Unlock()
	for _, name := range h.services() {
		m.Define(units.Definition{Unit: machine.Unit{Name: name, UnitFileState: "enabled"}}, h.behaviour(name))
	}
	m.Boot()
}

func (h *host) behaviour(string) memmachine.Behaviour {
	note := func() {
		h.mu.Lock()
		h.moved = time.Now()
		h.mu.Unlock()
		h.r.turn()
	}
	return memmachine.Behaviour{ReadyAfter: 200 * time.Millisecond, StopAfter: 300 * time.Millisecond, Says: []string{"started with token=" + secret}, OnStart: note, OnStop: note}
}

// unit is how a service is.
func (h *host) unit(name string) machine.Unit {
	u, err := h.box().Ports().Services.Unit(context.Background(), name)
	if err != nil {
		h.r.breaks("sim", "%s on %s: %v", name, h.name, err)
	}
	return u
}

// box is the machine as it is since its last boot.
func (h *host) box() *memmachine.Machine {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.machine
}

func (h *host) alive() *agentLife {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.life
}

// start starts the agent.
func (h *host) start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.life != nil || h.identity == nil || h.off || h.r.over {
		return
	}
	h.lives++
	r := h.r
	p := r.net.process(h.name, fmt.Sprintf("%s.%d", h.id, h.lives))
	ctx, cancel := context.WithCancel(context.Background())
	l := &agentLife{h: h, p: p, stop: cancel, done: make(chan struct{})}
	m := h.machine.Ports()
	m.Clock, m.Services = h.clock, services{m.Services, h.clock}
	o := agent.Options{
		Server: r.nodes[0].address(), Identity: h.identity, StateDir: h.state, Machine: m, Adapters: []machine.Adapter{held{systemd.Adapter{}, l}},
		Catalogues: []fettle.Catalogue{server.Catalogue()}, Dial: r.net.dialer(p), Local: func(context.Context, string) bool { return false },
		Jitter: func(most time.Duration) time.Duration {
			return r.later(fmt.Sprint(h.name, r.elapsed().Round(10*time.Millisecond)), 0, most)
		},
		Version: "whole", Log: r.log(p.name), OnDurable: l.durable, OnAlone: l.durable,
		Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
			return runbook.Load(r.lib.books, env, cats)
		},
	}
	if r.o.Plain {
		o.Books = nil
	}
	if r.o.Votes > 0 {
		o.Adapters = append(o.Adapters, held{ballot{h}, l})
	}
	a, err := agent.New(o)
	if err != nil {
		r.breaks("sim", "the agent of %s: %v", h.name, err)
		cancel()
		return
	}
	h.life = l
	r.group.Go(func() {
		defer close(l.done)
		defer cancel()
		if err := a.Run(ctx); err != nil && !p.dead() {
			r.breaks("sim", "the agent of %s ended: %v", h.name, err)
		}
	})
}

// durable is called when something stands in one of the agent's journals.
func (l *agentLife) durable(journal.Seq, int) {
	h := l.h
	h.mu.Lock()
	strike := h.killAt == 1 && h.life == l
	if h.killAt > 0 && h.life == l {
		h.killAt--
	}
	h.mu.Unlock()
	if strike {
		h.kill(false)
		h.r.after(h.r.later(h.name, 200*time.Millisecond, 8*time.Second), h.start)
	}
}

// kill ends the agent's life at once; with off, that of the machine's network too. The
// next life begins with what is on the disk now.
func (h *host) kill(off bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.life
	if l == nil {
		return
	}
	h.life = nil
	h.r.tell("the agent of %s is killed", h.name)
	l.p.kill(off)
	l.stop()
	next := filepath.Join(h.r.dir, h.id, fmt.Sprintf("state-%d", h.lives))
	if err := os.CopyFS(next, os.DirFS(h.state)); err != nil {
		h.r.breaks("sim", "what %s had on its disk: %v", h.name, err)
	}
	h.state = next
}

// halt stops the agent as its service manager does, and waits for it.
func (h *host) halt() {
	l := h.alive()
	if l == nil {
		return
	}
	l.stop()
	<-l.done
	h.mu.Lock()
	h.life = nil
	h.mu.Unlock()
	l.p.kill(false)
}

// services is a machine's service manager, which has the machine's clock.
type services struct {
	machine.Services
	clock *clock
}

func (s services) own(u machine.Unit) machine.Unit {
	if !u.StateChanged.IsZero() {
		u.StateChanged = s.clock.at(u.StateChanged)
	}
	return u
}

// Units implements machine.Services.
func (s services) Units(ctx context.Context, patterns ...string) ([]machine.Unit, error) {
	list, err := s.Services.Units(ctx, patterns...)
	for i, u := range list {
		list[i] = s.own(u)
	}
	return list, err
}

// Unit implements machine.Services.
func (s services) Unit(ctx context.Context, name string) (machine.Unit, error) {
	u, err := s.Services.Unit(ctx, name)
	return s.own(u), err
}

// Watch implements machine.Services.
func (s services) Watch(ctx context.Context, emit func(machine.Unit), patterns ...string) error {
	return s.Services.Watch(ctx, func(u machine.Unit) { emit(s.own(u)) }, patterns...)
}
