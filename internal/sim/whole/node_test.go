package whole_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/store"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// node is a machine with a server on it, which runs, or not.
type node struct {
	r     *run
	name  string
	clock *clock
	lives int
	life  *nodeLife // nil: it does not run
}

func (n *node) address() string { return n.name + ":7400" }

// nodeLife is one life of a server.
type nodeLife struct {
	n     *node
	p     *process
	share *share
	srv   *server.Server
	stop  context.CancelFunc

	mu   sync.Mutex
	loop *loop.Loop // of the present term; nil: it does not lead
}

// start starts the server, as face/control does: it serves, stands for election again
// and again, and leads while it is elected.
func (n *node) start() {
	if n.life != nil {
		return
	}
	n.lives++
	r := n.r
	p := r.net.process(n.name, fmt.Sprintf("%s.%d", n.name, n.lives))
	l := &nodeLife{n: n, p: p, share: &share{d: r.depot, p: p, at: n.address()}}
	register := pki.NewRegister(r.ca, l.share)
	srv, err := server.New(server.Options{
		CA: r.ca, Register: register, Dir: filepath.Join(r.dir, n.name), Cluster: cluster{l}, History: l.share, Catalogues: r.lib.catalogues,
		Clock: n.clock, Dial: r.net.dialer(p), Log: r.log(p.name), Version: "whole",
	})
	if err != nil {
		r.breaks("sim", "%s does not start: %v", p.name, err)
		return
	}
	l.srv, l.share.name = srv, srv.Subject().Name()
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	n.life = l
	at := r.net.listen(p, n.address())
	r.group.Go(func() {
		defer cancel()
		if err := srv.Serve(ctx, at); err != nil && !p.dead() {
			r.breaks("sim", "%s: %v", p.name, err)
		}
	})
	r.group.Go(func() { l.elected(ctx) })
	r.group.Go(func() { l.follow(ctx) })
	r.tell("%s starts", p.name)
}

// kill ends the server's life at once.
func (n *node) kill() {
	l := n.life
	if l == nil {
		return
	}
	n.life = nil
	n.r.tell("%s is killed", l.p.name)
	l.p.kill(false)
	l.stop()
}

// elected stands for election, and leads.
func (l *nodeLife) elected(ctx context.Context) {
	for ctx.Err() == nil {
		if l.share.campaign(ctx) != nil {
			return
		}
		leading, end := context.WithCancel(ctx)
		var group sync.WaitGroup
		group.Go(func() {
			defer end()
			l.share.lost(leading)
		})
		if err := l.lead(leading); err != nil && ctx.Err() == nil {
			l.n.r.note("%s leads no more: %v", l.p.name, err)
		}
		end()
		group.Wait()
		l.share.resign()
		_ = sleep(ctx, 200*time.Millisecond)
	}
}

// lead decides until ctx ends or another server leads.
func (l *nodeLife) lead(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := l.n.r
	mind := r.lib.mind.Fresh(r.policy)
	spins := &spinning{r: r, name: l.p.name, mind: mind, stop: cancel}
	lo := loop.New(loop.Options{
		OnInput: spins.took, Mind: mind, Store: l.share, Hands: l.srv, Clock: l.n.clock,
		OnChange: func(rec incident.Record, events []fettle.Event) {
			l.srv.Changed(rec, events)
			r.changed(l, rec, events)
		},
		OnCall: func(id, text string) { r.called(l, id, text) },
	})
	l.set(lo)
	defer l.set(nil)
	var group sync.WaitGroup
	errs := make(chan error, 2)                                   // one for each
	for what, do := range map[string]func(context.Context) error{ // any order: both at one time
		"loop": lo.Run, "server": func(ctx context.Context) error { return l.srv.Lead(ctx, lo) },
	} {
		group.Go(func() {
			if err := do(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, loop.ErrNotLeader) {
				errs <- fmt.Errorf("%s: %w", what, err)
			}
			cancel()
		})
	}
	group.Wait()
	close(errs)
	var failed error
	for err := range errs {
		failed = errors.Join(failed, err)
	}
	return failed
}

// spinning sees to it that a loop does not turn for ever in one instant, in which no
// time would pass for anybody.
type spinning struct {
	r    *run
	name string
	mind *incident.Mind
	stop context.CancelFunc
	at   time.Time
	n    int
}

// spinsMost is how often a loop may find in one instant that something is due: more
// often than there are incidents.
const spinsMost = 2000

func (s *spinning) took(in incident.Input) {
	if len(in.Observations)+len(in.Conditions) > 0 || in.Outcome != nil || in.Gathered != "" || !in.At.Equal(s.at) {
		s.at, s.n = in.At, 0
		return
	}
	if s.n++; s.n == spinsMost {
		due, _ := s.mind.Next()
		s.r.breaks("L", "the loop of %s turns at %v, for what was due at %v, and nothing comes of it", s.name, in.At, due)
		s.stop()
	}
}

func (l *nodeLife) set(lo *loop.Loop) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loop = lo
}

func (l *nodeLife) leads() *loop.Loop {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.loop
}

// follow tells the server who leads, while it reaches the store.
func (l *nodeLife) follow(ctx context.Context) {
	for ctx.Err() == nil {
		who, changed := l.n.r.depot.leader()
		if l.n.r.net.reach("store", l.n.name) {
			l.srv.Led(who.Address)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// cluster is server.Cluster.
type cluster struct{ l *nodeLife }

// Leader implements server.Cluster.
func (c cluster) Leader() (store.Leader, bool) {
	who, _ := c.l.n.r.depot.leader()
	return who, who.Name != ""
}

// Outside implements server.Cluster.
func (cluster) Outside() (string, bool) { return "", false }

// Members implements server.Cluster.
func (c cluster) Members(context.Context) ([]store.Member, error) { return nil, nil }

// Add implements server.Cluster.
func (c cluster) Add(context.Context, string, string) ([]store.Member, error) {
	return nil, fettle.ErrNotSupported
}

// Remove implements server.Cluster.
func (c cluster) Remove(context.Context, string) error { return fettle.ErrNotSupported }

// Addresses implements server.Cluster.
func (c cluster) Addresses(context.Context) (map[string]string, error) {
	out := map[string]string{}
	for _, n := range c.l.n.r.nodes {
		out[n.name] = n.address()
	}
	return out, nil
}
