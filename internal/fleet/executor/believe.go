package executor

import (
	"context"
	"errors"

	"fettle/internal/fleet/pki"
)

// Believe implements Hands. Only the authority's own word changes whom this executor
// believes: one that is believed already, and stays, must have signed it. Who hands it
// over, the agent, can hold one back, and no more.
func (e *Executor) Believe(_ context.Context, words []pki.SignedWord) (int64, error) {
	if e.o.Keep == nil { // who hands them over is this process, which believes already
		return e.o.Trust().Serial(), nil
	}
	e.telling.Lock()
	defer e.telling.Unlock()
	was := e.o.Trust()
	trust, err := was.After(words)
	if trust != was {
		if kerr := e.o.Keep(trust); kerr != nil {
			return was.Serial(), errors.Join(err, kerr)
		}
		e.o.Log.Warn("this executor believes other authorities than before, by the word of one that it believed", "serial", trust.Serial(), "authorities", trust.Pins())
	}
	if err != nil {
		e.o.Log.Error("an authority's word is not believed", "error", err)
	}
	return trust.Serial(), err
}
