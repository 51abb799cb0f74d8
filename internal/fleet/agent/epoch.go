package agent

import (
	"fmt"
	"sync/atomic"

	"fettle/internal/fettle"
	"fettle/internal/fleet/charter"
	"fettle/internal/fleet/wire"
)

// epochs is the administrator's word that this agent was shown last.
type epochs struct {
	last atomic.Pointer[charter.Charter]
}

// shown takes in what a server shows. What is not an administrator's word is passed
// over, and told to the log: without it the epoch that the server is in is refused,
// if it is a new one.
func (a *Agent) shown(signed *wire.SignedEpoch) {
	if signed == nil {
		return
	}
	c, err := charter.Open(charter.Signed{Note: signed.GetNote(), Certificate: signed.GetCertificate()}, a.identity.Load())
	if err != nil {
		a.o.Log.Error("the server shows an epoch that no administrator of this fleet has signed", "error", err)
		return
	}
	if before := a.epochs.last.Swap(&c); before == nil || before.Epoch != c.Epoch {
		a.o.Log.Info("an administrator has let an epoch begin", "epoch", c.Epoch, "why", c.Why, "at", c.At)
	}
}

// allow is execute.Options.NewEpoch.
func (e *epochs) allow(highest, offered fettle.Token) error {
	c := e.last.Load()
	if c == nil || c.Epoch != offered.Epoch {
		return fmt.Errorf("its epoch is %d, this host knows %d, and no administrator of the fleet has signed the change", offered.Epoch, highest.Epoch)
	}
	return nil
}
