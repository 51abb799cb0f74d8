package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Options are what a Node needs.
type Options struct {
	// Self is what this member says of itself; its Host must be unique in the ring.
	Self Label
	// Ring is the name of the ring. Members of another ring are not listened to, even if
	// they have the key: it is authenticated with every packet.
	Ring string
	// Bind is the address that is listened on, for packets and connections, and that the
	// others are told. It must be one address, not all. Port 0 takes any that is free.
	Bind netip.AddrPort
	// Keys are the ring's secrets, for this node alone.
	Keys *Keys
	// Seeds returns where other members may be found. It is called now and then, by one
	// goroutine, and must not block. nil: others come to us.
	Seeds func() []netip.AddrPort
	// Settings are the knobs; zero values take their defaults.
	Settings Settings
	// Log may be nil.
	Log *slog.Logger

	// open makes the transport; nil for the network. Tests have one with faults.
	open func(l *logs, settings Settings) (*transport, error)
}

// Node is one member of a gossip ring. It is used once: New, Run, done. All methods
// may be called by anybody at any time; before Run and after it they tell what there
// is to tell.
type Node struct {
	o         Options
	logs      *logs
	table     *table
	coords    *coordinates
	questions *questions
	spread    *spread
	outbox    chan outgoing // packets
	streams   chan outgoing // connections
	bound     chan struct{}

	lateness   *Lateness // how late this process wakes up
	roundTrips *samples
	losses     *losses

	knocks sync.WaitGroup // connections of looks; they may outlast the look

	used    atomic.Bool
	unsent  atomic.Int64 // messages that found no room to wait in
	leaving atomic.Bool
	beat    atomic.Uint64

	list *memberlist.Memberlist // set before bound is closed, and not changed
	net  *transport
	addr netip.AddrPort
}

// New checks the options and makes a node that does nothing yet.
func New(o Options) (*Node, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Settings = o.Settings.Filled()
	if err := o.Settings.check(); err != nil {
		return nil, err
	}
	switch {
	case o.Keys == nil:
		return nil, errors.New("gossip without a key is refused; make one with NewKeys")
	case o.Ring == "" || len(o.Ring) > memberlist.LabelMaxSize:
		return nil, fmt.Errorf("the ring's name has %d bytes; it takes 1 to %d", len(o.Ring), memberlist.LabelMaxSize)
	case !o.Bind.IsValid() || o.Bind.Addr().IsUnspecified():
		return nil, fmt.Errorf("gossip on %s: name the one address that the other hosts reach this one by", o.Bind)
	}
	w := o.Self.wire()
	w.Beat, w.Leaving = 1<<64-1, true // at its longest
	if _, err := w.write(); err != nil {
		return nil, err
	}
	coords, err := newCoordinates()
	if err != nil {
		return nil, err
	}
	return &Node{
		o:         o,
		logs:      &logs{to: o.Log},
		table:     newTable(o.Self.Host, o.Settings.Events),
		coords:    coords,
		questions: newQuestions(),
		spread:    newSpread(),
		outbox:    make(chan outgoing, 512),
		streams:   make(chan outgoing, 64),
		bound:     make(chan struct{}),
		lateness:  NewLateness(o.Settings.Tick), // of the last 6.4 s
		// Pings and questions together are about 12 a second.
		roundTrips: newSamples(128),
		losses:     newLosses(64),
	}, nil
}

// Run is the node's life. It blocks until ctx ends, takes leave of the ring (at most a
// second), and returns when everything that it started has returned: nil, or why it
// could not begin. A second Run is an error.
func (n *Node) Run(ctx context.Context) error {
	if !n.used.CompareAndSwap(false, true) {
		return errors.New("a gossip node runs once; make a new one")
	}
	open := n.o.open
	if open == nil {
		open = func(_ *logs, s Settings) (*transport, error) { return listen(n.o.Bind, s.Stream) }
	}
	net, err := open(n.logs, n.o.Settings)
	if err != nil {
		return err
	}
	n.net = net
	var carried sync.WaitGroup
	carried.Go(net.run)
	list, err := memberlist.Create(n.config())
	if err != nil {
		err = fmt.Errorf("begin gossip as %s: %w", n.o.Self.Host, err)
		return errors.Join(err, n.stopTransport(&carried))
	}
	n.list = list
	self := list.LocalNode()
	if ip, ok := netip.AddrFromSlice(self.Addr); ok {
		n.addr = netip.AddrPortFrom(ip.Unmap(), self.Port)
	}
	close(n.bound)

	var work sync.WaitGroup
	for _, run := range []func(context.Context){
		n.sendPackets, n.sendStreams, n.lateness.Run, n.askAround, n.lookAround, n.measureSpread, n.rejoin,
	} {
		work.Go(func() { run(ctx) })
	}
	<-ctx.Done()
	n.leave()
	err = list.Shutdown()
	if err != nil {
		err = fmt.Errorf("end gossip: %w", err)
	}
	err = errors.Join(err, n.stopTransport(&carried))
	work.Wait()
	n.knocks.Wait()
	return err
}

// stopTransport ends what memberlist may not have ended.
func (n *Node) stopTransport(carried *sync.WaitGroup) error {
	err := n.net.Shutdown()
	carried.Wait()
	if err != nil {
		return fmt.Errorf("end gossip: %w", err)
	}
	return nil
}

// leave tells the ring that this is meant. Who does not hear it will find the port
// closed, which is not a death either.
func (n *Node) leave() {
	n.leaving.Store(true)
	if err := n.list.UpdateNode(updatePatience); err != nil {
		n.o.Log.Debug("taking leave of the ring", "err", err)
	}
	if err := n.list.Leave(updatePatience); err != nil {
		n.o.Log.Debug("taking leave of the ring", "err", err)
	}
}

// config is memberlist's, from ours.
func (n *Node) config() *memberlist.Config {
	s := n.o.Settings
	c := memberlist.DefaultLANConfig()
	c.Name = n.o.Self.Host
	c.Label = n.o.Ring
	c.Transport = n.net
	// What is told to the others is the address that the transport bound.
	c.BindAddr, c.BindPort, c.AdvertisePort = n.o.Bind.Addr().String(), int(n.o.Bind.Port()), int(n.o.Bind.Port())
	c.Keyring = n.o.Keys.ring
	c.GossipVerifyIncoming, c.GossipVerifyOutgoing = true, true
	c.ProbeInterval, c.ProbeTimeout = s.Probe, s.Direct
	c.SuspicionMult = s.SuspicionMult
	c.GossipInterval, c.GossipNodes = s.Gossip, s.GossipTo
	c.PushPullInterval = s.Sync
	c.TCPTimeout = s.Stream
	// Long enough for a member that was wrongly held for dead to be told so, and object.
	c.GossipToTheDeadTime = time.Minute
	// A host that comes back with another address is the same host, once its old one has
	// been silent for a while.
	c.DeadNodeReclaimTime = 10 * s.Probe
	// Packets are small, and what is compressed before it is encrypted tells its contents
	// by its length.
	c.EnableCompression = false
	c.Logger = n.logs.logger()
	d := delegate{n}
	c.Delegate, c.Events, c.Ping, c.Alive, c.Conflict = d, d, d, d, d
	return c
}

// Ready is closed when the node is bound and answers.
func (n *Node) Ready() <-chan struct{} { return n.bound }

// Addr is where the node is bound; the zero value before Ready.
func (n *Node) Addr() netip.AddrPort {
	select {
	case <-n.bound:
		return n.addr
	default:
		return netip.AddrPort{}
	}
}

// Events is the news, from the first member on. There is one channel, for one reader; it
// is not closed.
func (n *Node) Events() <-chan Event { return n.table.news }

// Members returns all other members that are known, by host, those that are gone too.
func (n *Node) Members() []Member {
	all := n.table.all()
	for i := range all {
		all[i].RoundTrip, _ = n.RoundTrip(n.o.Self.Host, all[i].Label.Host)
	}
	return all
}

// RoundTrip estimates the round trip between any two members, this one too. False: one
// of them is not known well enough.
func (n *Node) RoundTrip(a, b string) (time.Duration, bool) {
	return n.coords.between(n.o.Self.Host, a, b)
}

// Doubt is the node's doubt in itself; see the function of that name.
func (n *Node) Doubt() (why string, ill bool) { return n.table.doubt() }

// Health is how well a node sees, for people and metrics.
type Health struct {
	Score       int           // Lifeguard's local health: 0 is well, 7 the worst; probes take (1+Score) times as long
	OwnDelay    time.Duration // how late this process wakes up: 98 in 100 times less
	RoundTrip   time.Duration // in the ring: 3 in 4 less
	Loss        int           // of questions without answer, per mille
	Silence     time.Duration // how long a member must be silent now
	Doubt       string        // "" or why it is ill
	Spread      Spread
	Undecrypted int // packets and streams that no key opened
	Shed        int // connections that were closed unserved: too many at once
	Unsent      int // messages that found no room to wait in
	Missed      int // events that found no room
}

// Health tells how well the node sees.
func (n *Node) Health() Health {
	m := n.measured("")
	why, _ := n.Doubt()
	h := Health{
		OwnDelay: m.OwnDelay, RoundTrip: m.RoundTrip, Loss: m.Loss, Silence: n.o.Settings.Windows.Silence(m),
		Doubt: why, Spread: n.spread.latest(),
		Undecrypted: n.logs.undecrypted(), Unsent: int(n.unsent.Load()), Missed: n.table.missedEvents(),
	}
	select {
	case <-n.bound:
		h.Score, h.Shed = n.list.GetHealthScore(), n.net.shedCount()
	default:
	}
	return h
}
