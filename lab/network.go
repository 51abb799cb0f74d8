package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"fettle/lab/nfq"
)

// network is what stands between the hosts of a lab: its faults, and the goroutines that hold delayed packets.
type network struct {
	lab *Lab

	mu     sync.Mutex
	faults faults
	queues uint16
	held   map[uint16]func() // by queue: ends the holding of its packets, and waits for that
}

func newNetwork(l *Lab) *network {
	return &network{lab: l, faults: newFaults(), held: map[uint16]func(){}}
}

// Partition cuts all traffic between the hosts of a and those of b, both ways, ARP included: every frame is dropped and
// nobody is told. Hosts keep their link and address. It adds to the cuts that there are, until [Lab.Heal].
func (l *Lab) Partition(ctx context.Context, a, b []*Host) error {
	return l.net.change(ctx, func(f *faults) error {
		return errors.Join(cutAll(f, a, b), cutAll(f, b, a))
	})
}

// CutOneWay cuts what goes from the hosts of from to those of to, and lets the other direction be.
func (l *Lab) CutOneWay(ctx context.Context, from, to []*Host) error {
	return l.net.change(ctx, func(f *faults) error { return cutAll(f, from, to) })
}

func cutAll(f *faults, from, to []*Host) error {
	if len(from) == 0 || len(to) == 0 {
		return errors.New("cut: name at least one host on each side")
	}
	for _, a := range from {
		for _, b := range to {
			if a == b {
				return fmt.Errorf("cut: %s is on both sides", a.name)
			}
			f.cut[way{a.port(), b.port()}] = true
		}
	}
	return nil
}

// Isolate cuts a host off from all others and from the lab's bridge, both ways.
func (l *Lab) Isolate(ctx context.Context, h *Host) error {
	return l.net.change(ctx, func(f *faults) error {
		f.isolate(h)
		return nil
	})
}

// Loss drops that share of the IPv4 packets that go from one host to another; nil stands for everybody else. 0 ends it.
// For a loss in both directions call it twice.
func (l *Lab) Loss(ctx context.Context, from, to *Host, percent float64) error {
	return l.net.change(ctx, func(f *faults) error {
		if !(percent >= 0 && percent <= 100) {
			return fmt.Errorf("loss of %g %%: give 0 to 100", percent)
		}
		w, err := wayOf(from, to)
		if err != nil {
			return err
		}
		f.loss[w] = percent
		if percent == 0 {
			delete(f.loss, w)
		}
		return nil
	})
}

// Delay holds back the IPv4 packets that go from one host to another for base ± jitter; nil stands for all other hosts.
// Where two delays fit a packet, the one that names both hosts counts. 0 ends it. The packets are held by this process: when
// it hangs they are late, and when it ends the lab does.
func (l *Lab) Delay(ctx context.Context, from, to *Host, base, jitter time.Duration) error {
	return l.net.change(ctx, func(f *faults) error {
		if base < 0 || jitter < 0 || jitter > base || base > time.Minute {
			return fmt.Errorf("delay of %v ± %v: give 0 to 1m, and a jitter that is not larger", base, jitter)
		}
		w, err := wayOf(from, to)
		if err != nil {
			return err
		}
		f.delay[w] = wait{base: base, jitter: jitter}
		if base == 0 {
			delete(f.delay, w)
		}
		return nil
	})
}

func wayOf(from, to *Host) (way, error) {
	var w way
	if from == to {
		return w, errors.New("name two different hosts, or one and nil for all others")
	}
	if from != nil {
		w.from = from.port()
	}
	if to != nil {
		w.to = to.port()
	}
	return w, nil
}

// Heal takes all faults away from the network.
func (l *Lab) Heal(ctx context.Context) error {
	return l.net.change(ctx, func(f *faults) error { *f = newFaults(); return nil })
}

func (f *faults) isolate(h *Host) { f.cut[way{from: h.port()}], f.cut[way{to: h.port()}] = true, true }

// HealExcept takes all faults away and leaves one host cut off from all others, in one change: at no moment is it heard.
func (l *Lab) HealExcept(ctx context.Context, h *Host) error {
	return l.net.change(ctx, func(f *faults) error {
		*f = newFaults()
		f.isolate(h)
		return nil
	})
}

// Faults is one line for each fault in the network; none when it is sound.
func (l *Lab) Faults() []string {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	return l.net.faults.text(func(port string) string {
		for _, h := range l.hosts {
			if h.port() == port {
				return h.name
			}
		}
		return "*"
	})
}

// change makes the kernel's rules those of the changed faults. If that fails the faults stay as they were in the books,
// and the next change tells the kernel everything again.
func (n *network) change(ctx context.Context, edit func(*faults) error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := n.faults.clone()
	if err := edit(&next); err != nil {
		return fmt.Errorf("lab %s: %w", n.lab.cfg.Name, err)
	}
	if err := n.apply(ctx, next); err != nil {
		return fmt.Errorf("lab %s: change the network: %w", n.lab.cfg.Name, err)
	}
	n.faults = next
	return nil
}

func (n *network) apply(ctx context.Context, next faults) error {
	if _, err := run(ctx, strings.NewReader(next.ruleset()), n.lab.anchor.enter("nft", "-f", "-")...); err != nil {
		return err
	}
	if len(next.delay) == 0 && len(n.faults.delay) == 0 {
		return nil
	}
	// New queues are listened to before packets are sent there, old ones until none is.
	for _, w := range ways(next.delay) {
		d := next.delay[w]
		if old := n.faults.delay[w]; old.queue != 0 && old.base == d.base && old.jitter == d.jitter {
			next.delay[w] = old
			continue
		}
		n.queues++
		d.queue = n.queues
		end, err := n.hold(d)
		if err != nil {
			return err
		}
		n.held[d.queue], next.delay[w] = end, d
	}
	// Bridged packets come to iptables only where this is set; it is by default, once the kernel has the feature.
	const toggle = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	if _, err := run(ctx, nil, n.lab.anchor.enter("sh", "-c", "echo 1 >"+toggle)...); err != nil {
		return fmt.Errorf("this kernel does not pass bridged packets to iptables: modprobe br_netfilter: %w", err)
	}
	// iptables comes from the image, so that the machine needs none; the nft variant writes no file there.
	if _, err := run(ctx, strings.NewReader(next.queueRules()), n.lab.anchor.enter("chroot", n.lab.image, "iptables-nft-restore")...); err != nil {
		return err
	}
	wanted := map[uint16]bool{}
	for _, d := range next.delay {
		wanted[d.queue] = true
	}
	for queue, end := range n.held {
		if !wanted[queue] {
			end()
			delete(n.held, queue)
		}
	}
	return nil
}

// hold listens to a new queue until the returned function is called or the lab is closed.
func (n *network) hold(d wait) (end func(), err error) {
	var q *nfq.Queue
	opened := make(chan error, 1)
	go func() {
		opened <- inNamespace(n.lab.anchor.netns(), func() error {
			q, err = nfq.Open(d.queue)
			return err
		})
	}()
	if err := <-opened; err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(n.lab.life)
	done := make(chan struct{})
	serve := func() {
		defer close(done)
		// Should this fail, the closed queue is passed by, and the delay is gone: what it is there for will be missed.
		if err := q.Run(ctx, d.draw); err != nil {
			fmt.Fprintf(n.lab.cfg.Progress, "lab %s: %v\n", n.lab.cfg.Name, err)
		}
		q.Close()
	}
	if err := n.lab.started(serve); err != nil {
		cancel()
		serve()
		return nil, err
	}
	return func() { cancel(); <-done }, nil
}

func (d wait) draw() time.Duration {
	if d.jitter == 0 {
		return d.base
	}
	return d.base - d.jitter + rand.N(2*d.jitter+1)
}

func (f faults) clone() faults {
	c := newFaults()
	for w, v := range f.cut {
		c.cut[w] = v
	}
	for w, v := range f.loss {
		c.loss[w] = v
	}
	for w, v := range f.delay {
		c.delay[w] = v
	}
	return c
}
