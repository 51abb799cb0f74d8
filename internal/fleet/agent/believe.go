package agent

import (
	"errors"
	"time"

	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

// errRenewed ends a session for one under the certificate of another authority.
var errRenewed = errors.New("the fleet's authority was changed, and this agent has a certificate of the new one")

// believes is the serial of the last word of the authority that agent and executor both
// keep.
func (x *session) believes() int64 {
	own := x.a.identity.Load().Serial()
	if x.a.o.Executor == nil { // it believes what this process does
		return own
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return min(own, x.executorBelieves)
}

// believe takes the authority's words of whom the fleet believes: first this process,
// then the executor beside it. What either does not take is told to the server, and ends
// nothing.
func (x *session) believe(words []*wire.AuthorityWord) {
	if len(words) == 0 {
		return
	}
	signed := make([]pki.SignedWord, 0, len(words))
	for _, w := range words {
		signed = append(signed, pki.SignedWord{Note: w.GetNote(), Authorities: w.GetAuthorities()})
	}
	err := errors.Join(x.a.believe(signed), x.executorBelieve(signed))
	text := ""
	if err != nil {
		text = err.Error()
		x.a.o.Log.Error("a word of the fleet's authority is not followed", "error", err)
	}
	x.push(func(time.Time) *wire.SessionRequest {
		return &wire.SessionRequest{What: &wire.SessionRequest_AuthorityState{AuthorityState: &wire.AuthorityState{Serial: x.believes(), Error: text}}}
	})
}

// believe keeps whom to believe with the identity.
func (a *Agent) believe(words []pki.SignedWord) error {
	a.renewing.Lock()
	defer a.renewing.Unlock()
	id := a.identity.Load()
	next, err := id.Believing(words)
	if next == id {
		return err
	}
	if a.o.IdentityDir != "" {
		if kerr := next.Save(a.o.IdentityDir); kerr != nil {
			return errors.Join(err, kerr)
		}
	}
	a.identity.Store(next)
	a.o.Log.Info("the fleet's authority says whom to believe from now on", "serial", next.Serial(), "authorities", next.Trust().Pins())
	return err
}

func (x *session) executorBelieve(words []pki.SignedWord) error {
	switch {
	case x.a.o.Executor == nil:
		return nil
	case x.greeting.Incarnation == away:
		return executor.ErrAway
	}
	ctx, cancel := x.soon()
	defer cancel()
	serial, err := x.a.hands.Believe(ctx, words)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.executorBelieves = serial
	return nil
}

// renewed says what follows from a renewal: an error ends the session.
func (x *session) renewed(err error) error {
	if err == nil || errors.Is(err, errRenewed) || x.ctx.Err() != nil {
		return err
	}
	x.a.o.Log.Error("the certificate is not renewed; it is tried again", "error", err, "expires", x.a.identity.Load().Expires())
	return nil
}
