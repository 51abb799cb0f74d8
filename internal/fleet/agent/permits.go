package agent

import (
	"context"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/permit"
	"fettle/internal/fleet/wire"
)

// permit is the standing permit of this host, as its executor keeps it. why it is of no
// use now; "": it is.
func (a *Agent) permit(ctx context.Context) (p fettle.Permit, why string) {
	ctx, cancel := context.WithTimeout(ctx, handsWait)
	defer cancel()
	s, err := a.hands.Permit(ctx)
	if err != nil {
		return fettle.Permit{}, err.Error()
	}
	return s.Kept.Permit, s.Why
}

// permitted takes a permit of the server, and tells it which one this host keeps. A
// server that is not obeyed permits nothing.
func (x *session) permitted(w *wire.Permit) {
	a := x.a
	if w != nil && x.refuses.now() == "" {
		x.keep(executor.Word{Permit: &permit.Signed{Note: w.GetNote(), Certificate: w.GetCertificate()}})
	}
	state := &wire.PermitState{}
	p, why := a.permit(x.ctx)
	if state.Why = why; why == "" {
		state.Serial, state.LeftNs = p.Serial, int64(p.Until.Sub(a.o.Machine.Clock.Wall()))
	}
	if why != "" && why != a.permitless {
		a.o.Log.Warn("without a server this host does nothing", "why", why)
	}
	a.permitless = why
	x.push(func(time.Time) *wire.SessionRequest {
		return &wire.SessionRequest{What: &wire.SessionRequest_PermitState{PermitState: state}}
	})
}
