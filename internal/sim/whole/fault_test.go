package whole_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
	"fettle/internal/machine"
	"fettle/internal/machine/units"
)

// fault is one thing that goes wrong, with everything about it drawn beforehand.
type fault struct {
	at   time.Duration
	kind kind
	host int           // which one it befalls
	node int           // likewise
	long time.Duration // until it is over, where it is something that ends
	rng  *rand.Rand    // its own: what it draws hangs on nothing else
}

type kind struct {
	name   string
	weight int
	strike func(r *run, f fault)
}

// kinds are all that can go wrong.
func kinds() []kind {
	return []kind{
		{"service crashes", 14, func(r *run, f fault) { f.of(r).crash([]string{"web.service", "job.service"}[f.rng.IntN(2)]) }},
		{"voter crashes", 6, func(r *run, f fault) { r.voters()[f.host%r.o.Votes].crash(voteUnit) }},
		{"voters are stale", 10, func(r *run, f fault) {
			for _, h := range r.voters() {
				if f.rng.IntN(3) > 0 {
					h.mu.Lock()
					h.stale = true
					h.mu.Unlock()
				}
			}
			r.turn()
		}},
		{"service is broken", 2, func(r *run, f fault) { f.of(r).ruin("job.service") }},
		{"a person stops a service", 5, func(r *run, f fault) {
			f.of(r).byHand([]string{"web.service", "job.service", voteUnit}[f.rng.IntN(3)])
		}},
		{"a person stops what has just failed", 4, func(r *run, f fault) {
			h := f.of(r)
			h.crash("web.service")
			r.after(time.Duration(f.rng.Int64N(int64(2*time.Second))), func() {
				_, _ = h.box().Ports().Services.Start(context.Background(), "web.service")
				h.byHand("web.service")
			})
		}},
		{"agent killed", 10, func(r *run, f fault) {
			h := f.of(r)
			h.kill(false)
			r.after(f.long/4, h.start)
		}},
		{"agent killed at a record of its journal", 12, func(r *run, f fault) {
			h := f.of(r)
			h.mu.Lock()
			h.killAt = 1 + f.rng.IntN(4)
			h.mu.Unlock()
			h.crash("web.service")
		}},
		{"agent restarted", 4, func(r *run, f fault) {
			h := f.of(r)
			r.group.Go(func() {
				h.halt()
				h.start()
			})
		}},
		{"host loses power", 4, func(r *run, f fault) {
			h := f.of(r)
			if h.isOff() {
				return
			}
			h.kill(true)
			h.power(false)
			r.after(f.long, func() {
				h.power(true)
				h.start()
			})
		}},
		{"host imaged anew", 2, func(r *run, f fault) { r.reimage(f.of(r), f.long/2) }},
		{"server killed", 6, func(r *run, f fault) { r.bounce(r.nodes[f.node], f.long/2) }},
		{"leader killed", 8, func(r *run, f fault) {
			if n := r.leading(); n != nil {
				r.bounce(n, f.long/2)
			}
		}},
		{"leader killed at a commit", 10, func(r *run, f fault) {
			r.depot.mu.Lock()
			r.depot.killAt = 1 + f.rng.IntN(5)
			r.depot.mu.Unlock()
			f.of(r).crash("web.service")
		}},
		{"all servers gone", 4, func(r *run, f fault) {
			for _, n := range r.nodes {
				r.bounce(n, 3*f.long)
			}
			for range 3 {
				h := r.hosts[f.rng.IntN(len(r.hosts))]
				r.after(time.Duration(f.rng.Int64N(int64(2*f.long))), func() { h.crash("web.service") })
			}
		}},
		{"store away", 4, func(r *run, f fault) {
			r.depot.set(func(d *depot) { d.refuses = true })
			r.after(f.long, func() { r.depot.set(func(d *depot) { d.refuses = false }) })
		}},
		{"store slow", 4, func(r *run, f fault) {
			r.depot.set(func(d *depot) { d.slow = time.Duration(f.rng.Int64N(int64(2 * time.Second))) })
			r.after(f.long, func() { r.depot.set(func(d *depot) { d.slow = 0 }) })
		}},
		{"copy of the store put back", 3, func(r *run, f fault) { r.putBack(f) }},
		{"server cut from the store", 4, func(r *run, f fault) { r.cut(f, []string{r.nodes[f.node].name}, []string{"store"}) }},
		{"host cut from the servers", 8, func(r *run, f fault) { r.cut(f, []string{f.of(r).name}, r.serverNames()) }},
		{"host cut from one server", 5, func(r *run, f fault) { r.cut(f, []string{f.of(r).name}, []string{r.nodes[f.node].name}) }},
		{"rack cut off", 5, func(r *run, f fault) {
			var in []string
			for i, h := range r.hosts {
				if i%3 == f.host%3 {
					in = append(in, h.name)
				}
			}
			r.cut(f, in, r.others(in))
		}},
		{"fleet split", 5, func(r *run, f fault) {
			var in []string
			for _, name := range r.others(nil) {
				if f.rng.IntN(2) == 0 {
					in = append(in, name)
				}
			}
			r.cut(f, in, r.others(in))
		}},
		{"servers cut from each other", 4, func(r *run, f fault) {
			r.cut(f, []string{r.nodes[f.node].name}, r.serverNames())
		}},
		{"connections reset", 6, func(r *run, f fault) {
			if l := f.of(r).alive(); l != nil {
				l.p.reset()
			}
		}},
		{"a server's connections reset", 3, func(r *run, f fault) {
			if l := r.nodes[f.node].life; l != nil {
				l.p.reset()
			}
		}},
		{"network slow", 5, func(r *run, f fault) {
			r.net.pace(time.Millisecond, time.Duration(f.rng.Int64N(int64(1500*time.Millisecond)))+2*time.Millisecond)
			r.after(f.long, func() { r.net.pace(200*time.Microsecond, 5*time.Millisecond) })
		}},
		{"host frozen", 4, func(r *run, f fault) { f.of(r).freeze(f.long) }},
		{"fleet frozen", 3, func(r *run, f fault) { r.freeze(f.long) }},
	}
}

func (f fault) of(r *run) *host { return r.hosts[f.host] }

// draw draws all faults of a run.
func (r *run) draw(during time.Duration) []fault {
	list, total := kinds(), 0
	for _, k := range list {
		total += k.weight
	}
	pace := []time.Duration{5 * time.Second, 12 * time.Second, 30 * time.Second}[r.rng.IntN(3)]
	var out []fault
	for at := 5 * time.Second; at < during; at += r.o.Apart + time.Second + time.Duration(r.rng.Int64N(int64(pace))) {
		f := fault{at: at, host: r.rng.IntN(len(r.hosts)), node: r.rng.IntN(len(r.nodes)), long: 2*time.Second + time.Duration(r.rng.Int64N(int64(28*time.Second)))}
		if r.rng.IntN(2) == 0 {
			f.host = 0 // much of it befalls one host
		}
		f.rng = rand.New(rand.NewPCG(r.rng.Uint64(), 5))
		n := r.rng.IntN(total)
		for _, k := range list {
			if n -= k.weight; n < 0 {
				f.kind = k
				break
			}
		}
		out = append(out, f)
	}
	return out
}

// after lets something happen later, unless the run is over.
func (r *run) after(d time.Duration, f func()) {
	r.group.Go(func() {
		if sleep(r.ctx, d) == nil {
			f()
		}
	})
}

func (d *depot) set(f func(*depot)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d)
}

// leading is the server that leads.
func (r *run) leading() *node {
	who, _ := r.depot.leader()
	for _, n := range r.nodes {
		if n.address() == who.Address {
			return n
		}
	}
	return nil
}

func (r *run) serverNames() []string {
	var out []string
	for _, n := range r.nodes {
		out = append(out, n.name)
	}
	return out
}

// others are all hosts and servers, and the store, but these.
func (r *run) others(but []string) []string {
	in := map[string]bool{}
	for _, name := range but {
		in[name] = true
	}
	var out []string
	for _, h := range r.hosts {
		if !in[h.name] {
			out = append(out, h.name)
		}
	}
	for _, name := range append(r.serverNames(), "store") {
		if !in[name] {
			out = append(out, name)
		}
	}
	return out
}

// cut cuts each of some from each of others, both ways, or one way.
func (r *run) cut(f fault, from, to []string) {
	ways := f.rng.IntN(4) // 0: what they say; 1: what they hear; else both
	r.tell("cut for %v, way %d: %v from %v", f.long, ways, from, to)
	do := func(by int) {
		for _, a := range from {
			for _, b := range to {
				if a == b {
					continue
				}
				if ways != 1 {
					r.net.sever(a, b, by)
				}
				if ways != 0 {
					r.net.sever(b, a, by)
				}
			}
		}
	}
	do(1)
	r.after(f.long, func() { do(-1) })
}

// bounce kills a server, which is started again.
func (r *run) bounce(n *node, down time.Duration) {
	n.kill()
	r.after(down, n.start)
}

// putBack puts a copy of the store back. A careless person forgets to sign.
func (r *run) putBack(f fault) {
	r.depot.mu.Lock()
	n := len(r.depot.txns)
	r.depot.mu.Unlock()
	if n < 2 {
		return
	}
	signed := f.rng.IntN(3) > 0
	for _, s := range r.nodes {
		s.kill()
	}
	n -= 1 + f.rng.IntN(min(n-1, 8))
	r.tell("the store is put back as it was after %d commits, signed: %v", n, signed)
	r.restores++
	r.depot.restore(n, signed)
	r.forked = r.forked || !signed
	if signed {
		r.forked = false
	}
	for _, s := range r.nodes {
		r.after(time.Second, s.start)
	}
}

// crash kills a service.
func (h *host) crash(name string) {
	if u := h.unit(name); u.ActiveState == "active" {
		h.box().Crash(name, 9)
	}
}

// ruin makes a service end right after each start.
func (h *host) ruin(name string) {
	b := h.behaviour(name)
	b.ReadyAfter, b.ExitNow, b.ExitStatus = 0, true, 3
	h.mu.Lock()
	h.broken[name] = true
	h.mu.Unlock()
	h.box().Define(units.Definition{Unit: machine.Unit{Name: name, UnitFileState: "enabled"}}, b)
	h.crash(name)
}

// byHand stops a service as a person does.
func (h *host) byHand(name string) {
	if h.unit(name).LoadState == "not-found" || h.unit(name).ActiveState != "active" {
		return
	}
	h.r.group.Go(func() {
		if err := h.box().StopAsPerson(context.Background(), name); err != nil {
			return
		}
		h.mu.Lock()
		h.stopped[name] = time.Now()
		h.mu.Unlock()
		h.r.tell("a person has stopped %s on %s", name, h.name)
	})
}

// power ends, or starts, all services of the machine, and lets nothing in or out.
func (h *host) power(on bool) {
	by := 1
	if on {
		by = -1
	}
	for _, other := range h.r.others([]string{h.name}) {
		h.r.net.sever(h.name, other, by)
		h.r.net.sever(other, h.name, by)
	}
	h.r.tell("%s has power: %v", h.name, on)
	h.mu.Lock()
	h.off, h.moved = !on, time.Now()
	if on {
		h.machine = h.machine.Fork(h.r.o.Seed)
		clear(h.stopped)
	}
	h.mu.Unlock()
	h.r.turn()
	if on {
		h.box().Boot()
	}
}

func (h *host) services() []string {
	if h.votes {
		return []string{"web.service", "job.service", voteUnit}
	}
	return []string{"web.service", "job.service"}
}

func (h *host) isOff() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.off
}

// freeze freezes the host for a time, as a person on it does.
func (h *host) freeze(long time.Duration) {
	h.mu.Lock()
	dir := h.state
	h.mu.Unlock()
	if agent.Freeze(dir, "work") != nil {
		return // it has no folder yet
	}
	h.mu.Lock()
	h.frozen = time.Now()
	h.mu.Unlock()
	h.r.after(long, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.frozen = time.Time{}
		_ = agent.Thaw(h.state)
	})
}

// freeze freezes the fleet for a time, by a call to any server.
func (r *run) freeze(long time.Duration) {
	r.group.Go(func() {
		r.call(func(ctx context.Context, c wire.AdminServiceClient) error {
			_, err := c.SetFreeze(ctx, &wire.SetFreezeRequest{Why: "work"})
			return err
		})
		if sleep(r.ctx, long) == nil {
			r.thaw()
		}
	})
}

func (r *run) thaw() {
	r.call(func(ctx context.Context, c wire.AdminServiceClient) error {
		_, err := c.Thaw(ctx, &wire.ThawRequest{})
		return err
	})
}

// call calls the first server as an administrator does, again and again.
func (r *run) call(do func(context.Context, wire.AdminServiceClient) error) {
	p := r.net.process("desk", "desk")
	for range 20 {
		conn, err := wire.Dialer(r.net.dialer(p)).Client(r.nodes[0].address(), pki.ClientTLS(func() *pki.Identity { return r.admin }, time.Now))
		if err != nil {
			r.breaks("sim", "%v", err)
			return
		}
		ctx, cancel := context.WithTimeout(r.ctx, wire.CallTimeout)
		err = do(ctx, wire.NewAdminServiceClient(conn))
		cancel()
		_ = conn.Close()
		if err == nil || sleep(r.ctx, 2*time.Second) != nil {
			return
		}
	}
}

// reimage makes a host a new one, which joins by a token over the network.
func (r *run) reimage(h *host, down time.Duration) {
	h.mu.Lock()
	if h.votes || h.off || h.identity == nil { // the votes are of those who have joined first
		h.mu.Unlock()
		return
	}
	h.identity = nil
	h.mu.Unlock()
	h.kill(true)
	h.mu.Lock()
	clear(h.stopped)
	clear(h.broken)
	h.highest, h.entry, h.hash = fettle.Token{}, 0, ""
	h.mu.Unlock()
	r.mu.Lock()
	for _, e := range r.effects {
		if e.host == h.name {
			r.lost[e.key] = true
		}
	}
	r.mu.Unlock()
	r.after(down, func() { r.rejoin(h) })
}

// rejoin has a host that was imaged anew join, until it has.
func (r *run) rejoin(h *host) {
	p := r.net.process(h.name, h.name+".join")
	r.after(0, func() {
		for n := 0; r.ctx.Err() == nil; n++ {
			id, err := r.join(h, p, filepath.Join(r.dir, fmt.Sprintf("%s-anew-%d-%d", h.name, h.lives, n)))
			if err == nil {
				h.mu.Lock()
				h.identity, h.id, h.killAt, h.frozen = id, id.Name.ID, 0, time.Time{}
				h.mu.Unlock()
				h.furnish()
				r.tell("%s has joined anew as %s", h.name, h.id)
				h.start()
				return
			}
			r.note("  %s does not join: %v", h.name, err)
			_ = sleep(r.ctx, 3*time.Second)
		}
	})
}

func (r *run) join(h *host, p *process, dir string) (*pki.Identity, error) {
	n := r.leading()
	if n == nil || n.life == nil {
		return nil, fmt.Errorf("no server leads")
	}
	tok, err := pki.NewRegister(r.ca, n.life.share).Invite(r.ctx, pki.RoleAgent, n.address(), n.clock.Wall(), 0)
	if err != nil {
		return nil, err
	}
	return agent.Join(r.ctx, agent.JoinOptions{Token: tok, Dir: dir, Label: h.name, Wall: h.clock.Wall, Dial: r.net.dialer(p)})
}
