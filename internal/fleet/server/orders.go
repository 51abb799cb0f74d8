package server

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fleet/warrant"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
)

// nonce is what an agent's executor made, and when it came here. It was made before
// that: what is to be done within some time of its making is done no later than within
// that time of its coming.
type nonce struct {
	text string
	came time.Time
}

// order signs what a host's executor is to do with a body, until a time on our clock.
// An agent that gave no nonce gets no order: it is of a version that asks for none.
func (x *session) order(say warrant.Say, body []byte, until time.Time) (*wire.SignedOrder, error) {
	x.host.mu.Lock()
	n := x.nonce
	x.host.mu.Unlock()
	if n.text == "" {
		return nil, nil
	}
	within := until.Sub(n.came)
	if within <= 0 {
		return nil, fmt.Errorf("its time is over before it is sent")
	}
	s, err := warrant.SignOrder(warrant.Order{Fleet: x.host.s.o.CA.Fleet(), Say: say, Nonce: n.text, Within: within, Body: warrant.HashOf(body)}, x.host.s.identity.Load())
	if err != nil {
		return nil, err
	}
	return &wire.SignedOrder{Note: s.Note, Certificate: s.Certificate}, nil
}

// signedBy takes the person's signature into an approval. One that does not hold, or is
// somebody else's, is refused here: hosts would refuse it later.
func (s *Server) signedBy(ctx context.Context, a *incident.Answer, r *wire.AnswerRequest) error {
	a.Note, a.Certificate = nil, nil
	if len(r.GetNote()) == 0 {
		return nil
	}
	if a.Say != incident.SayApprove {
		return status.Error(codes.InvalidArgument, "only an approval is signed")
	}
	signed := warrant.Signed{Note: r.GetNote(), Certificate: r.GetCertificate()}
	w, by, err := warrant.OpenApproval(signed, s.identity.Load().Trust())
	now := s.o.Clock.Wall()
	switch {
	case err != nil:
		return status.Error(codes.InvalidArgument, err.Error())
	case by != callerOf(ctx).name || !bytes.Equal(signed.Certificate, callerOf(ctx).cert.Raw):
		return status.Errorf(codes.PermissionDenied, "%s signed the approval, and %s gives it", by.ID, callerOf(ctx).name.ID)
	case w.Incident != a.Incident || w.Plan != a.Plan:
		return status.Error(codes.InvalidArgument, "what was signed is the approval of another plan")
	case !now.Before(w.Until):
		return status.Errorf(codes.InvalidArgument, "the approval ended at %s, and it is %s here (are the clocks right?)", w.Until.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	// Nor does it hold longer than what was signed, as far as clocks agree.
	if end := s.o.Clock.Now().Add(w.Until.Sub(now)); end.Before(a.Until) {
		a.Until = end
	}
	a.Note, a.Certificate = signed.Note, signed.Certificate
	return nil
}
