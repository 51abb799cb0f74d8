package execute

import (
	"errors"
	"fmt"
	"time"

	"fettle/internal/fettle"
)

// skew is by how much the clock of the server that signed a permit may be ahead of
// this host's before one of them is in doubt: servers need NTP (docs/design/0011).
const skew = time.Minute

// actsKept is how long it is remembered that a step was begun: as long as the
// longest window that a grant may have.
const actsKept = fettle.MaxPermitWindow

// Kept is a standing permit as this host keeps it.
type Kept struct {
	fettle.Permit
	Taken time.Time // by this host's wall clock
}

// act is a step that was begun, as far as the rate of a permit counts it.
type act struct {
	at     time.Time // on Options.Clock, or as the journal has it
	target fettle.Subject
	action string
	alone  bool // under a permit
}

// begins remembers that a step is begun. mu is held, or nobody else has e.
func (e *Executor) begins(at time.Time, d fettle.Dispatch) {
	if len(e.acts) > 0 && e.acts[0].at.Before(at.Add(-actsKept)) {
		kept := e.acts[:0]
		for _, a := range e.acts {
			if !a.at.Before(at.Add(-actsKept)) {
				kept = append(kept, a)
			}
		}
		e.acts = kept
	}
	e.acts = append(e.acts, act{at: at, target: d.Step.Target, action: d.Step.Action, alone: d.Permit != ""})
}

// Permit returns the standing permit that this host keeps, or why it has none that
// could be of use now.
func (e *Executor) Permit() (Kept, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, r := e.valid()
	return p, r.err(e.o.Host)
}

// standing checks a dispatch that is admitted by a standing permit instead of a
// leader's token, but for its rate (S12). What the permit is worth is decided here,
// not by who sent the dispatch: the port only vouches for the signature. mu is held.
func (e *Executor) standing(d fettle.Dispatch) *refusal {
	p, r := e.valid()
	if r != nil {
		return r
	}
	if d.Permit != p.Serial {
		return refuse("plan again under the present one", "it names permit %q, this host keeps %s", d.Permit, p.Serial)
	}
	if why := p.Refuses(d.Step, e.specs[d.Step.Action], d.Undo); why != "" {
		return refuse("it waits for a server: `fettle permits` shows what this host may do alone", "permit %s does not let it: %s", p.Serial, why)
	}
	if why := e.o.Paused(); why != "" {
		return refuse("it waits for a server", "nothing is done alone: %s", why)
	}
	return nil
}

// valid returns the permit that is kept, if it holds now. A clock that went back, or
// was never right, makes every end meaningless: then nothing is permitted. mu is held.
func (e *Executor) valid() (Kept, *refusal) {
	const again = "contact with a server renews it"
	p, err := e.o.Permit()
	if err != nil {
		return Kept{}, refuse(again, "there is no standing permit: %s", err)
	}
	wall := e.o.Clock.Wall()
	switch {
	case p.Serial == "":
		return p, refuse(again, "there is no standing permit")
	case p.Fleet != e.o.Fleet || p.Host != e.o.Host:
		return p, refuse(again, "the permit is for %s in fleet %s, this is %s in fleet %s", p.Host, p.Fleet, e.o.Host, e.o.Fleet)
	case p.Epoch < e.highest.Epoch:
		return p, refuse(again, "the permit is of epoch %d, which has ended: this host has seen epoch %d", p.Epoch, e.highest.Epoch)
	case p.From.IsZero() || !p.From.Before(p.Until) || p.Until.Sub(p.From) > fettle.MaxPermitLife:
		return p, refuse(again, "the permit's time makes no sense: from %s until %s", p.From, p.Until)
	case wall.Before(p.From.Add(-skew)), wall.Before(p.Taken), p.Serial == e.lastPermit && wall.Before(e.lastAlone):
		return p, refuse("set the clock; "+again, "this host's clock is in doubt: it says %s, and was at %s already", wall.UTC().Format(time.RFC3339), latest(p.From, p.Taken, e.lastAlone).UTC().Format(time.RFC3339))
	case !wall.Before(p.Until):
		return p, refuse(again, "permit %s ended at %s", p.Serial, p.Until.UTC().Format(time.RFC3339))
	}
	return p, nil
}

func latest(list ...time.Time) time.Time {
	var t time.Time
	for _, u := range list {
		if t.Before(u) {
			t = u
		}
	}
	return t
}

// spent checks the rate of the grant that a dispatch is done under: over this
// journal, whichever process wrote it. A time in the future counts as now. mu is held.
func (e *Executor) spent(d fettle.Dispatch) *refusal {
	p, err := e.o.Permit()
	if err != nil {
		return refuse("contact with a server renews it", "there is no standing permit: %s", err)
	}
	g, place, ok := p.Grant(d.Step.Action, d.Step.Target)
	if !ok {
		return refuse("it waits for a server", "permit %s does not grant it", p.Serial)
	}
	since := e.o.Clock.Now().Add(-g.Window)
	same, all := 0, 0
	for _, a := range e.acts {
		if a.at.Before(since) {
			continue
		}
		if a.target == d.Step.Target {
			same++
		}
		if _, i, _ := p.Grant(a.action, a.target); a.alone && i == place {
			all++
		}
	}
	switch {
	case same >= g.PerSubject:
		return refuse("a person, or a server, must look at it", "it was acted upon %d times within %v, and alone this host may %d times", same, g.Window, g.PerSubject)
	case all >= g.PerHost:
		return refuse("a person, or a server, must look at this host", "%d steps were done alone within %v under this grant, which allows %d", all, g.Window, g.PerHost)
	}
	return nil
}

// errNoPermit is what a host without the port has.
var errNoPermit = errors.New("this host keeps none")

// permitPorts sets the ports that are nil to what refuses.
func (o *Options) permitPorts() {
	if o.Permit == nil {
		o.Permit = func() (Kept, error) { return Kept{}, errNoPermit }
	}
	if o.Paused == nil {
		o.Paused = func() string { return "whether the fleet is frozen is not known" }
	}
}

// String says which permit it is and until when it holds.
func (k Kept) String() string {
	return fmt.Sprintf("permit %s until %s", k.Serial, k.Until.UTC().Format(time.RFC3339))
}
