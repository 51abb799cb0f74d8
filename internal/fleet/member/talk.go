package member

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/memberlist"
)

// outgoing is a message to one member.
type outgoing struct {
	to      memberlist.Node
	message message
}

// send hands a message to be sent as a packet, without waiting. One that finds no room
// is lost, as packets are.
func (n *Node) send(o outgoing) {
	o.message.from = n.o.Self.Host
	select {
	case n.outbox <- o:
	default:
		n.unsent.Add(1)
	}
}

// sendPackets sends what waits.
func (n *Node) sendPackets(ctx context.Context) {
	for {
		select {
		case o := <-n.outbox:
			if err := n.list.SendBestEffort(&o.to, o.message.write()); err != nil {
				n.o.Log.Debug("packet to a member", "host", o.to.Name, "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// sendStreams sends what waits for a connection, one after the other: they are answers
// to members whose packets may not come through, and few.
func (n *Node) sendStreams(ctx context.Context) {
	for {
		select {
		case o := <-n.streams:
			if err := n.list.SendReliable(&o.to, o.message.write()); err != nil {
				n.o.Log.Debug("connection to a member", "host", o.to.Name, "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// received acts on what a member said. It does not block.
func (n *Node) received(m message, now time.Time) {
	switch m.kind {
	case askMessage:
		// The answer goes to where the ring says that the asker is, not to where the
		// question came from.
		asker, ok := n.table.find(m.from)
		if !ok {
			return
		}
		here := outgoing{to: asker.node, message: message{kind: hereMessage, number: m.number, delay: n.ownDelay()}}
		n.send(here)
		if m.stream {
			here.message.from = n.o.Self.Host
			select {
			case n.streams <- here:
			default:
				n.unsent.Add(1)
			}
		}
	case hereMessage:
		q, ok := n.questions.answered(m.number, m.from)
		if !ok {
			return
		}
		n.table.heard(m.from, m.delay, now.Sub(q.at), now)
		if q.answer == nil {
			n.roundTrips.add(now.Sub(q.at))
			n.losses.add(false)
			return
		}
		select {
		case q.answer <- struct{}{}:
		default:
		}
	case heardMessage:
		n.spread.heard(m.number, m.from, now)
	}
}

// askAround asks a random member now and then, for the round trip and the loss.
func (n *Node) askAround(ctx context.Context) {
	// An answer that takes longer is not lost, but might as well be.
	const late = time.Second
	for wait(ctx, n.o.Settings.Ask) {
		now := time.Now()
		for _, name := range n.questions.expire(now.Add(-late)) {
			// Who has died meanwhile says nothing of the network.
			if e, ok := n.table.find(name); ok && e.State == Here {
				n.losses.add(true)
			}
		}
		here := n.table.here()
		if len(here) == 0 {
			continue
		}
		one := here[rand.IntN(len(here))]
		number, err := n.questions.ask(one.Label.Host, now, nil)
		if err != nil {
			n.o.Log.Debug("measure", "err", err)
			continue
		}
		n.send(outgoing{to: one.node, message: message{kind: askMessage, number: number}})
	}
}

func (n *Node) ownDelay() time.Duration { return n.lateness.Delay() }

// measured is what is known of the way to a member; "" for the ring in general. The
// member's own worst counts, and of the others only what most of them need: one host
// that stalled for seconds must not stretch everybody's window.
func (n *Node) measured(name string) Measured {
	m := Measured{RoundTrip: n.roundTrips.quantile(750), OwnDelay: n.ownDelay(), Loss: n.losses.perMille()}
	if e, ok := n.table.find(name); ok {
		m.TheirDelay = e.theirDelay
		m.RoundTrip = max(m.RoundTrip, e.trips.quantile(900))
	}
	return m
}

// wait waits; false if ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// jittered is d, between half and one and a half of it.
func jittered(d time.Duration) time.Duration { return d/2 + rand.N(d+1) }
