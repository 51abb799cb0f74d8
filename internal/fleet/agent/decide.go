package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/store"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// endWait is how long what was begun alone may take to come to its end once a server
// is back: as long as a service manager lets a start take, and its verification.
const endWait = 2 * time.Minute

// elsewhere is the scope of no condition: this host's conditions are judged by its
// picture, as they are for a server, and the fleet's by nobody while it is cut off.
const elsewhere fettle.Scope = "elsewhere"

// decide runs the one loop on this host's own picture and hands, under its standing
// permit, until a server is there again and what was begun has come to its end. With
// cutOff false there is a server already, and only what an earlier process began is
// brought to its end. The mind is built when it is needed and forgotten afterwards.
func (a *Agent) decide(ctx context.Context, st *store.File, cutOff bool) error {
	hands := &ownHands{a: a, ctx: ctx}
	permit, why := a.permit(ctx)
	if why == "" {
		hands.serial = permit.Serial
	}
	mind, err := incident.New(incident.Options{
		Catalogues: append(append([]fettle.Catalogue(nil), a.cats...), a.o.Catalogues...), Books: a.o.Books,
		Policy: permit.Policy, Evaluates: []fettle.Scope{elsewhere}, Permit: &permit,
	})
	if err != nil {
		return fmt.Errorf("decide without a server: %w", err)
	}
	changed := make(chan struct{}, 1)
	l := loop.New(loop.Options{Mind: mind, Store: st, Hands: hands, Clock: a.o.Machine.Clock,
		OnChange: func(r incident.Record, events []fettle.Event) {
			for _, e := range events {
				a.o.Log.Info("without a server", "incident", r.ID, "on", r.Cause.Subject, "event", e.Kind, "text", e.Text)
			}
			signal(changed)
		},
		OnCall: func(id, text string) {
			a.o.Log.Error("a person must look at this host, which reaches no server", "incident", id, "why", text)
		},
	})
	defer a.solo.busy()()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		defer cancel()
		failed = l.Run(ctx)
	})
	err = a.drive(ctx, l, cutOff, permit, changed)
	cancel()
	wg.Wait()
	if errors.Is(err, context.Canceled) || errors.Is(err, loop.ErrStopped) {
		err = nil // the loop says why
	}
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("decide without a server: %w", err)
	}
	return nil
}

// drive feeds a loop that runs.
func (a *Agent) drive(ctx context.Context, l *loop.Loop, cutOff bool, permit fettle.Permit, changed <-chan struct{}) error {
	x, lost, _ := a.contact.now()
	if cutOff = cutOff && x == nil; cutOff {
		may := "it may do nothing by itself"
		if permit.Serial != "" {
			may = fmt.Sprintf("permit %s holds until %s", permit.Serial, permit.Until.UTC().Format(time.RFC3339))
		}
		a.o.Log.Warn("no server is reached: this host does what its standing permit lets it", "permit", permit.Serial, "until", permit.Until)
		text := fmt.Sprintf("no server has been reached since %s; %s", lost.UTC().Format(time.RFC3339), may)
		head, err := a.followed(ctx)
		if err != nil {
			return err
		}
		if err := l.Record(ctx, "alone", text, map[string]any{"permit": permit, "head": head, "boot_id": a.o.Machine.Identity.BootID}); err != nil {
			return err
		}
	} else {
		l.Feed(follows())
	}
	stop := a.picture.listen(func(o []fettle.Observation, c []fettle.Condition) {
		l.Feed(incident.Input{Observations: o, Conditions: c})
	})
	defer stop()
	if cutOff {
		for x, _, again := a.contact.now(); x == nil; x, _, again = a.contact.now() {
			select {
			case <-again:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		l.Feed(follows())
	}
	late, stopLate := a.o.Machine.Clock.After(endWait)
	defer stopLate()
	for {
		busy := false
		if err := l.Ask(ctx, func(m *incident.Mind) { busy = m.Busy() }); err != nil || !busy {
			return err
		}
		select {
		case <-changed:
		case <-late:
			return nil // what is under way goes on; a server sees what comes of it
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follows is the word that somebody else decides: nothing new is begun.
func follows() incident.Input {
	leads := false
	return incident.Input{Leader: &leads}
}

// followed is the last head of the servers' log that this host keeps; zero: none.
func (a *Agent) followed(ctx context.Context) (executor.Head, error) {
	ctx, cancel := context.WithTimeout(ctx, handsWait)
	defer cancel()
	g, err := a.hands.Greet(ctx)
	if err != nil || g.Head == nil {
		return executor.Head{}, err
	}
	return *g.Head, nil
}

// ownHands are loop.Hands on the agent's own machine: what it does is done under its
// standing permit, which the executor judges.
type ownHands struct {
	a      *Agent
	ctx    context.Context // of its decisions
	serial string          // of the permit; "": there is none, and only what was begun is asked about
}

// Look implements loop.Hands.
func (h *ownHands) Look(ctx context.Context, looks []fettle.Look) []fettle.Observation {
	return h.a.crew.look(ctx, looks)
}

// Do implements loop.Hands.
func (h *ownHands) Do(ctx context.Context, d fettle.Dispatch) (fettle.Outcome, error) {
	if h.serial == "" {
		return fettle.Outcome{}, loop.ErrNoContact
	}
	return h.order(ctx, d, h.a.hands.Do)
}

// Recover implements loop.Hands.
func (h *ownHands) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Outcome, error) {
	return h.order(ctx, d, h.a.hands.Recover)
}

// order names the permit instead of the token of this host's own log, and nobody signs.
func (h *ownHands) order(ctx context.Context, d fettle.Dispatch, act func(context.Context, executor.Order) (fettle.Outcome, error)) (fettle.Outcome, error) {
	d.Token, d.Permit = fettle.Token{}, cmp.Or(h.serial, "none")
	body, err := json.Marshal(d)
	if err != nil {
		return fettle.Outcome{}, fmt.Errorf("order %s: %w", d.Key, err)
	}
	out, err := act(ctx, executor.Order{Body: body})
	return handed(d, out, err), nil
}

// Preview implements loop.Hands.
func (h *ownHands) Preview(ctx context.Context, s fettle.Step) (fettle.Preview, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return fettle.Preview{}, fmt.Errorf("preview of %s: %w", s.Action, err)
	}
	return h.a.hands.Preview(ctx, executor.Order{Body: body})
}

// Incarnation implements loop.Hands: of no other host there is contact.
func (h *ownHands) Incarnation(host fettle.Subject) (string, bool) {
	if host != h.a.host {
		return "", false
	}
	ctx, cancel := context.WithTimeout(h.ctx, handsWait)
	defer cancel()
	p, err := h.a.hands.Pulse(ctx)
	return p.Incarnation, err == nil
}
