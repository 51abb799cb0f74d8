package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"fettle/internal/fleet/member"
	"fettle/internal/fleet/wire"
)

// GossipPort is where agents gossip unless they are told otherwise.
const GossipPort = 7403

// GossipAuto as Options.GossipListen is the address by which this machine reaches its
// server, and GossipPort.
const GossipAuto = "auto"

const (
	// gossipAgain is how long a gossip that could not begin, or broke, waits for the next try.
	gossipAgain = 5 * time.Second
	// gossipDigest is how often all that the node sees is told, besides each change. It is
	// well below how old a sighting may be for the servers to believe it (member.Rules.Fresh).
	gossipDigest = 5 * time.Second
	// routeWait bounds the question by which way a server is reached.
	routeWait = 2 * time.Second
)

// gossip takes part in the ring that the server names, through the server's absence and
// over restarts, and tells the server what its node sees first-hand.
type gossip struct {
	a       *Agent
	kept    ringFile
	changed chan struct{} // has a value when the word may have changed

	mu      sync.Mutex
	word    ring // the last; the zero ring: in none
	session *session
	node    *member.Node // nil: none runs
	keys    *member.Keys
	why     string // why none runs, although it should
}

func newGossip(a *Agent) *gossip {
	return &gossip{a: a, kept: ringFileIn(a.o.StateDir), changed: make(chan struct{}, 1)}
}

// recall begins with the word that was kept.
func (g *gossip) recall() {
	if g.a.o.GossipListen == "" {
		return
	}
	word, err := g.kept.read()
	if err != nil {
		g.a.o.Log.Warn("the gossip ring of the last time is not known; it begins when a server names one", "error", err)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.word = word
}

// run takes part in the ring as it changes, until ctx ends.
func (g *gossip) run(ctx context.Context) error {
	if g.a.o.GossipListen == "" {
		<-ctx.Done()
		return nil
	}
	for ctx.Err() == nil {
		word := g.current()
		var again <-chan time.Time
		stop := func() {}
		if word.Name != "" && word.Bind != "" {
			if err := g.takePart(ctx, word); err != nil && ctx.Err() == nil {
				g.failed(err)
				again, stop = g.a.o.Machine.Clock.After(gossipAgain)
			} else if ctx.Err() == nil {
				continue // another ring
			}
		}
		select {
		case <-g.changed:
		case <-again:
		case <-ctx.Done():
		}
		stop()
	}
	return nil
}

func (g *gossip) current() ring {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.word
}

// takePart is one node's life: until ctx ends, it breaks (an error), or the word names
// something that takes another node.
func (g *gossip) takePart(ctx context.Context, word ring) error {
	bind, err := netip.ParseAddrPort(word.Bind)
	if err != nil {
		return fmt.Errorf("gossip on %q: %w", word.Bind, err)
	}
	keys, err := word.newKeys()
	if err != nil {
		return err
	}
	node, err := member.New(member.Options{
		Self: member.Label{
			Host: g.a.host.Root(), Zone: word.Zone, Rack: word.Rack,
			Incarnation: g.a.process, BootID: g.a.o.Machine.Identity.BootID,
		},
		Ring: word.Name, Bind: bind, Keys: keys, Settings: word.Settings, Log: g.a.o.Log,
		Seeds: func() []netip.AddrPort { return g.current().seeds() },
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }() // waited for below
	select {
	case <-node.Ready():
	case err := <-done:
		return cmp.Or(err, ctx.Err())
	}
	g.began(node, keys)
	defer g.ended()
	digest, stop := g.a.o.Machine.Clock.After(gossipDigest)
	defer func() { stop() }()
	for {
		select {
		case e := <-node.Events():
			g.happened(node, e)
		case <-digest:
			g.tellAll()
			digest, stop = g.a.o.Machine.Clock.After(gossipDigest)
		case <-g.changed:
			next := g.current()
			if next.otherNode(word) {
				cancel()
				return <-done
			}
			if err := next.install(keys); err != nil {
				g.a.o.Log.Error("the gossip's keys are not as the server wants them", "error", err)
			}
			g.tellState()
		case err := <-done:
			if err == nil && ctx.Err() == nil {
				err = errors.New("the gossip ended by itself (a defect)")
			}
			return err
		}
	}
}

func (g *gossip) began(node *member.Node, keys *member.Keys) {
	g.mu.Lock()
	g.node, g.keys, g.why = node, keys, ""
	g.mu.Unlock()
	g.a.o.Log.Info("gossip has begun", "ring", g.current().Name, "address", node.Addr())
	g.tellState()
	g.tellAll()
}

func (g *gossip) ended() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.node, g.keys = nil, nil
}

// failed notes why there is no gossip, and tells the log and the server, once.
func (g *gossip) failed(err error) {
	g.mu.Lock()
	fresh := g.why != err.Error()
	g.why = err.Error()
	g.mu.Unlock()
	if !fresh {
		return
	}
	level := slog.LevelWarn
	if errors.Is(err, errLoopback) {
		level = slog.LevelInfo
	}
	g.a.o.Log.Log(context.Background(), level, "this host does not gossip; it is tried again", "error", err)
	g.tellState()
}

// told takes in the server's word of the ring.
func (g *gossip) told(x *session, w *wire.Ring) {
	if g.a.o.GossipListen == "" {
		return
	}
	word, err := readRing(w)
	if err == nil && word.Name != "" {
		word.Bind, err = bindFor(x.ctx, g.a.o.GossipListen, x.server, g.current().Bind)
	}
	if err != nil {
		g.failed(err)
		return
	}
	g.mu.Lock()
	same := reflect.DeepEqual(word, g.word)
	g.word = word
	g.mu.Unlock()
	if !same {
		// Kept before it is confirmed: a key that everybody is said to have must be there
		// after a restart.
		if err := g.kept.write(word); err != nil {
			g.failed(fmt.Errorf("keep the gossip ring for a restart: %w", err))
			return
		}
	}
	signal(g.changed)
}

// link begins to tell a session.
func (g *gossip) link(x *session) {
	g.mu.Lock()
	g.session = x
	g.mu.Unlock()
	g.tellState()
	g.tellAll()
}

func (g *gossip) unlink(x *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.session == x {
		g.session = nil
	}
}

// errLoopback: this machine and its server are one, most often the only ones.
var errLoopback = errors.New("the server is reached over loopback, where no other host is (name the address for gossip with --gossip-listen)")

// bindFor is where to gossip: as listen says, or, for GossipAuto, the address by which
// the server is reached. The address of before stays as long as this machine has it: the
// way to another server may begin at another, and who moves is taken for gone.
func bindFor(ctx context.Context, listen, server, before string) (string, error) {
	if listen != GossipAuto {
		if _, err := netip.ParseAddrPort(listen); err != nil {
			return "", fmt.Errorf("gossip on %q: %w (want one address of this host and a port, as 10.0.0.5:%d)", listen, err, GossipPort)
		}
		return listen, nil
	}
	if at, err := netip.ParseAddrPort(before); err == nil && isHere(at.Addr()) {
		return before, nil
	}
	ctx, cancel := context.WithTimeout(ctx, routeWait) // a name is looked up
	defer cancel()
	// Connecting a datagram socket sends nothing; it asks for the route (udp(7)).
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", server)
	if err != nil {
		return "", fmt.Errorf("by which address the server %s is reached: %w (name one with --gossip-listen)", server, err)
	}
	defer conn.Close()
	at, err := netip.ParseAddrPort(conn.LocalAddr().String())
	switch {
	case err != nil:
		return "", fmt.Errorf("by which address the server %s is reached: %w (name one with --gossip-listen)", server, err)
	case at.Addr().IsLoopback():
		return "", errLoopback
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), GossipPort).String(), nil
}

// isHere reports whether this machine has an address.
func isHere(a netip.Addr) bool {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, have := range list {
		if p, err := netip.ParsePrefix(have.String()); err == nil && p.Addr().Unmap() == a.Unmap() {
			return true
		}
	}
	return false
}
