package member

import (
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls. It holds locks of its own while it does: nothing
// here calls it back, and nothing blocks.
type delegate struct{ n *Node }

// NodeMeta is what this member says of itself.
func (d delegate) NodeMeta(int) []byte {
	w := d.n.o.Self.wire()
	w.Beat, w.Leaving = d.n.beat.Load(), d.n.leaving.Load()
	data, err := w.write()
	if err != nil {
		// New has written it at its longest.
		d.n.o.Log.Error("this member's own label", "err", err)
		return nil
	}
	return data
}

// NotifyAlive refuses members whose label is not one, or of another host.
func (d delegate) NotifyAlive(peer *memberlist.Node) error {
	w, err := parseLabel(peer.Meta)
	if err != nil {
		return err
	}
	if w.Host != peer.Name {
		return fmt.Errorf("it is called %.*q and says that it is %q", fieldMax, peer.Name, w.Host)
	}
	return nil
}

// NotifyJoin is told that a member is there.
func (d delegate) NotifyJoin(peer *memberlist.Node) {
	if w, ok := d.other(peer); ok {
		d.n.table.joined(peer, w, time.Now())
	}
}

// NotifyUpdate is told that a member says something else of itself.
func (d delegate) NotifyUpdate(peer *memberlist.Node) {
	w, ok := d.other(peer)
	if ok && d.n.table.updated(peer, w, time.Now()) {
		d.n.send(outgoing{to: *peer, message: message{kind: heardMessage, number: w.Beat}})
	}
}

// NotifyLeave is told that a member is dead, or left.
func (d delegate) NotifyLeave(peer *memberlist.Node) {
	if peer.Name != d.n.o.Self.Host {
		d.n.table.departed(peer.Name, time.Now())
	}
}

// other reads the label of a member that is not this one.
func (d delegate) other(peer *memberlist.Node) (wireLabel, bool) {
	if peer.Name == d.n.o.Self.Host {
		return wireLabel{}, false
	}
	w, err := parseLabel(peer.Meta) // NotifyAlive has read it already
	return w, err == nil
}

// NotifyConflict is told that somebody else has the identity of a member.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.n.o.Log.Warn("two machines in the ring have one identity: a copied disk? Let one of them join the fleet anew",
		"host", existing.Name, "one", existing.Address(), "other", other.Address())
}

// AckPayload goes with the answer to a ping.
func (d delegate) AckPayload() []byte { return d.n.coords.payload(d.n.ownDelay()) }

// NotifyPingComplete is told that a member answered a ping.
func (d delegate) NotifyPingComplete(peer *memberlist.Node, rtt time.Duration, payload []byte) {
	at, delay, err := parseCoordinate(payload)
	if err == nil {
		err = d.n.coords.met(peer.Name, at, rtt)
	}
	if err != nil {
		d.n.o.Log.Debug("where a member says that it is", "host", peer.Name, "err", err)
		return
	}
	d.n.roundTrips.add(rtt)
	d.n.table.heard(peer.Name, delay, rtt, time.Now())
}

// NotifyMsg is told what a member said to this one.
func (d delegate) NotifyMsg(data []byte) {
	m, err := parseMessage(data)
	if err != nil {
		d.n.o.Log.Debug("message from a member", "err", err)
		return
	}
	d.n.received(m, time.Now())
}

// GetBroadcasts: nothing of ours is gossiped; see message.
func (d delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState: there is none besides memberlist's.
func (d delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState ignores what a newer version may have.
func (d delegate) MergeRemoteState([]byte, bool) {}
