package firewall

import (
	"context"
	"fmt"
	"strings"

	"fettle/internal/fettle"
)

// maxBefore bounds what can be put back: it travels with the step's outcome.
const maxBefore = 256 << 10

// restore puts the persisted ruleset in force. It is a fettle.Armable.
type restore struct{ *instance }

// plan says what a dispatch is about to do: the script, and the one that puts back.
type plan struct {
	state
	tables []string // that are touched
	script string
	before string
}

// plan looks at what is and at what the dispatch wants. The error has a class;
// nothing was touched.
func (a restore) plan(ctx context.Context, d fettle.Dispatch) (plan, error) {
	op, target := d.Step.Action, d.Step.Target
	if !a.mine(target) {
		return plan{}, fettle.Refuse(op, target, "this is a defect of the plan", "it is not the packet filter of this machine")
	}
	s, err := a.state(ctx)
	if err != nil {
		return plan{}, fail(op, target, err)
	}
	p := plan{state: s, tables: s.touched(), script: replace(s.touched(), s.persisted)}
	if d.Undo {
		script, ok := d.Outputs.Str("before")
		if !ok {
			return plan{}, fettle.Refuse(op, target, "put it back by hand", "what was in force before is not known")
		}
		if p.tables, err = named(script); err != nil {
			return plan{}, fettle.Refuse(op, target, "put it back by hand", "what was in force before cannot be read: %w", err)
		}
		p.script = script
	}
	// With its counters and what its sets were filled with.
	text, err := a.nft(ctx, "", "list", "ruleset")
	if err != nil {
		return plan{}, fail(op, target, err)
	}
	full, err := parse(text)
	if err != nil {
		return plan{}, fail(op, target, err)
	}
	p.before = replace(p.tables, full)
	switch {
	case len(p.before) > maxBefore:
		return plan{}, fettle.Refuse(op, target, "load the file by hand, with a console at hand", "what is in force has %d bytes, and at most %d are kept to be put back", len(p.before), maxBefore)
	case foreignRules(p.before):
		return plan{}, fettle.Refuse(op, target, "load the file by hand, with a console at hand", "what is in force has rules of iptables that nft cannot put back (xt)")
	}
	if _, err := a.nft(ctx, p.before, "-c", "-f", "-"); err != nil {
		return plan{}, fettle.Refuse(op, target, "load the file by hand, with a console at hand", "what is in force could not be put back: %w", err)
	}
	return p, nil
}

// named are the tables that a script of replace takes away first.
func named(script string) ([]string, error) {
	var out []string
	for line := range strings.Lines(script) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "delete table "); ok {
			if len(strings.Fields(name)) != 2 {
				return nil, fmt.Errorf("no table: %.80q", name)
			}
			out = append(out, name)
		}
	}
	return out, nil
}

// foreignRules reports whether a listing has matches or targets of xtables, which
// nft shows and does not take.
func foreignRules(listing string) bool {
	for line := range strings.Lines(listing) {
		for _, w := range words(line) {
			if w == "xt" || strings.HasPrefix(w, "xt_") {
				return true
			}
		}
	}
	return false
}

// Before implements fettle.Armable.
func (a restore) Before(ctx context.Context, d fettle.Dispatch) (fettle.PutBack, error) {
	p, err := a.plan(ctx, d)
	if err != nil {
		return fettle.PutBack{}, err
	}
	return fettle.PutBack{
		Program: "nft", Args: []string{"-f", "-"}, Stdin: p.before,
		Says: fmt.Sprintf("the firewall as it was in force, tables %s", strings.Join(p.tables, ", ")),
	}, nil
}

// Preview implements fettle.Action.
func (a restore) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	p, err := a.plan(ctx, fettle.Dispatch{Step: step})
	if err != nil {
		return fettle.Preview{}, err
	}
	if len(p.tables) == 0 {
		return fettle.Preview{Would: []string{"change nothing: what is in force is what " + a.config.File + " has"}}, nil
	}
	out := []string{fmt.Sprintf("replace the tables %s by those of %s, and put back what is in force now unless a server is reached anew in time", strings.Join(p.tables, ", "), a.config.File)}
	for _, l := range p.added {
		out = append(out, "take away "+l)
	}
	for _, l := range p.missing {
		out = append(out, "put in force "+l)
	}
	return fettle.Preview{Would: out}, nil
}

// pinned is what a plan was made on, "" where it does not say.
func pinned(d fettle.Dispatch, fact string) string {
	for _, g := range d.Step.Generations {
		if s, ok := g.Value.(string); ok && g.Subject == d.Step.Target && g.Fact == fact {
			return s
		}
	}
	return ""
}

// Apply implements fettle.Action.
func (a restore) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	d.Undo = false
	p, err := a.plan(ctx, d)
	if err != nil {
		return fettle.Result{}, err
	}
	for fact, now := range map[string]string{"live_hash": p.live.hash(), "persisted_hash": p.persisted.hash()} { // any order: one of them refuses
		if was := pinned(d, fact); was != "" && was != now {
			return fettle.Result{}, fettle.Refuse(d.Step.Action, d.Step.Target, "plan again on what is there now", "%s is %s, and the plan was made on %s", fact, now, was)
		}
	}
	return a.load(ctx, d, p)
}

// load puts a plan's script in force.
func (a restore) load(ctx context.Context, d fettle.Dispatch, p plan) (fettle.Result, error) {
	if len(p.tables) > 0 {
		if _, err := a.nft(ctx, p.script, "-f", "-"); err != nil {
			return fettle.Result{}, fail(d.Step.Action, d.Step.Target, err)
		}
	}
	return fettle.Result{
		Outputs: fettle.Facts{"before": p.before, "live_hash": p.persisted.hash()},
		Notes:   []string{fmt.Sprintf("tables in force anew: %s", strings.Join(p.tables, ", "))},
	}, nil
}

// Recover implements fettle.Action: the kernel's own ruleset tells.
func (a restore) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	s, err := a.state(ctx)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, fail(d.Step.Action, d.Step.Target, err)
	}
	now, was := s.live.hash(), pinned(d, "live_hash")
	switch {
	case d.Undo:
		return fettle.UnknownFate, fettle.Result{}, nil // whether it was done twice cannot be seen
	case was != "" && now == was:
		return fettle.NeverWillBe, fettle.Result{}, nil
	case len(s.touched()) == 0:
		return fettle.Done, fettle.Result{Notes: []string{"the persisted ruleset is in force"}}, nil
	}
	return fettle.UnknownFate, fettle.Result{}, nil
}

// Undo implements fettle.Action.
func (a restore) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	d.Undo = true
	p, err := a.plan(ctx, d)
	if err != nil {
		return fettle.Result{}, err
	}
	return a.load(ctx, d, p)
}
