package execute

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"fettle/internal/fettle"
)

// maxKey bounds a key's length in bytes; keys are some identifiers joined.
const maxKey = 256

// refusal is why a dispatch is not done, and what to do next.
type refusal struct{ why, hint string }

func refuse(hint, why string, args ...any) *refusal {
	return &refusal{fmt.Sprintf(why, args...), hint}
}

// wellFormed is the first check: is this a dispatch that this version understands?
func wellFormed(d fettle.Dispatch) *refusal {
	switch {
	case d.Schema < 1 || d.Schema > Schema:
		return refuse("upgrade the agent, or have the server speak an older version", "schema %d of the dispatch is not known here, up to %d is", d.Schema, Schema)
	case !validKey(d.Key):
		return refuse("this is a defect of the server", "key %q: want 1 to %d printable characters without blanks", d.Key, maxKey)
	}
	return nil
}

func validKey(k string) bool {
	return k != "" && len(k) <= maxKey && !strings.ContainsFunc(k, func(r rune) bool { return r <= ' ' || r > '~' })
}

// lead checks that a token comes from the present leader and remembers it. mu is
// held.
func (e *Executor) lead(t fettle.Token) *refusal {
	switch {
	case t.Fleet != e.o.Fleet:
		return refuse("this host belongs to another fleet; have it join this one first", "the token is of fleet %q, this host's is %q", t.Fleet, e.o.Fleet)
	case t.Epoch == 0:
		return refuse("this is a defect of the server", "the token has no epoch")
	case t.Less(e.highest):
		return refuse("the sender is no longer the leader and must step down", "the token is of epoch %d, revision %d; this host has seen epoch %d, revision %d", t.Epoch, t.Revision, e.highest.Epoch, e.highest.Revision)
	}
	// The first token after joining is taken: there is nothing yet to change from.
	if e.highest.Epoch != 0 && t.Epoch != e.highest.Epoch {
		if err := e.o.NewEpoch(e.highest, t); err != nil {
			return refuse("an administrator signs the new epoch after restoring or moving the store", "%s", err)
		}
	}
	e.highest = t
	return nil
}

// leads checks the leader's token, where a dispatch is not admitted by a standing
// permit instead: that is checked for new keys only, since to say what became of a key
// touches nothing. mu is held.
func (e *Executor) leads(d fettle.Dispatch) *refusal {
	if d.Permit != "" {
		return nil
	}
	return e.lead(d.Token)
}

// permitted checks what does not depend on the key's past. mu is held.
func (e *Executor) permitted(d fettle.Dispatch) *refusal {
	if r := e.possible(d.Step); r != nil {
		return r
	}
	spec := e.specs[d.Step.Action]
	switch {
	case d.Undo && !spec.Undo:
		return refuse("undo it by hand, or let the next rung of the ladder follow", "it is forward-only: %s", spec.NoUndo)
	case !e.o.Allow(d.Step.Action):
		return refuse("add it to this host's list of allowed actions if that is wanted", "this host does not allow the action")
	}
	step := stepOf(d)
	past := Past{Plan: e.begun[d.Plan], Step: e.begun[step], Done: e.done[step]}
	if err := e.o.Approved(d, spec, past); err != nil {
		return refuse("`fettle incident approve` signs it", "%s", err)
	}
	return e.timely(d)
}

// timely checks what time and people may change, once more right before the
// touch. mu is held.
func (e *Executor) timely(d fettle.Dispatch) *refusal {
	now := e.o.Clock.Now()
	switch {
	case e.closed:
		return refuse("plan again when the agent is back", "the agent is stopping")
	case e.o.Frozen() && !d.Undo:
		return refuse("`fettle thaw` lifts it", "this host is frozen")
	case d.Deadline.IsZero():
		return refuse("this is a defect of the server", "it has no deadline")
	case now.After(d.Deadline):
		return refuse("plan again on fresh facts", "its deadline passed %s ago", now.Sub(d.Deadline))
	}
	if d.Permit != "" {
		return e.standing(d)
	}
	return nil
}

// possible checks a step against the catalogue.
func (e *Executor) possible(s fettle.Step) *refusal {
	spec, ok := e.specs[s.Action]
	switch {
	case !ok:
		return refuse("configure the adapter on this host, or upgrade the agent", "action %q is not known here", s.Action)
	case spec.Version != s.Version:
		return refuse("upgrade the older of agent and server", "version %d of the action is wanted, this agent has %d", s.Version, spec.Version)
	case s.Target.Kind() != spec.Target:
		return refuse("this is a defect of the runbook or the server", "the target is a %s, the action works on a %s", s.Target.Kind(), spec.Target)
	case len(s.Late) > 0:
		return refuse("this is a defect of the server", "parameter %q still waits for step %q", s.Late[0].Param, s.Late[0].Step)
	}
	return fitting(s.Params, spec.Params)
}

// fitting checks parameters against their specs.
func fitting(params fettle.Facts, specs []fettle.ParamSpec) *refusal {
	const hint = "this is a defect of the runbook or the server"
	known := map[string]bool{}
	for _, p := range specs {
		known[p.Name] = true
		v, ok := params[p.Name]
		switch {
		case !ok && p.Required:
			return refuse(hint, "parameter %q is missing", p.Name)
		case ok && fettle.TypeOf(v) != p.Type:
			return refuse(hint, "parameter %q is a %T, want a %s", p.Name, v, p.Type)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		if !known[name] {
			return refuse(hint, "parameter %q is not one of the action's", name)
		}
	}
	return nil
}

// refused makes the outcome of a refusal.
func (e *Executor) refused(d fettle.Dispatch, fate fettle.Fate, r *refusal) fettle.Outcome {
	err := fettle.Refuse(d.Step.Action, d.Step.Target, r.hint, "%s", r.why)
	return fettle.Outcome{Schema: Schema, Key: d.Key, Fate: fate, Class: fettle.Refused, Error: err.Error(), Started: e.o.Clock.Now()}
}
