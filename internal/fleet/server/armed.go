package server

import (
	"time"

	"fettle/internal/fleet/wire"
)

// maxArmed is how many changes of one message are looked at: a host has one or two.
const maxArmed = 64

// armed takes in which changes of a machine may have cut it off and wait for a
// confirmation (S8). One that ended before this session began is confirmed: the
// machine can be reached anew. For one that is younger the session is ended, so that
// the agent calls anew.
func (x *session) armed(at time.Time, w *wire.Armed) {
	log := x.host.s.o.Log
	x.host.mu.Lock()
	age := at.Sub(x.began)
	x.host.mu.Unlock()
	for _, c := range w.GetReverted()[:min(len(w.GetReverted()), maxArmed)] {
		log.Warn("a change was not confirmed and was taken back", "host", x.host.subject, "label", x.label, "change", c.GetId(), "key", c.GetKey(), "put back", c.GetSays())
	}
	for _, c := range w.GetChanges()[:min(len(w.GetChanges()), maxArmed)] {
		switch {
		case !c.GetEnded(): // it is being made, or it failed and is taken back
		case age < time.Duration(c.GetAgeNs()):
			log.Info("a change is confirmed over a new connection", "host", x.host.subject, "label", x.label, "change", c.GetId(), "key", c.GetKey())
			x.push(&wire.SessionResponse{What: &wire.SessionResponse_Confirm{Confirm: &wire.Confirm{Id: c.GetId()}}})
		default:
			x.end(errAnew)
			return
		}
	}
}
