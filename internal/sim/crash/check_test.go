package crash

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"

	"fettle/internal/act/journal"
	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/judge/incident"
)

// stepName is the step of a dispatch, with what is done of it and to what: two
// incidents of one run may have the same plan for two members.
func stepName(d fettle.Dispatch) string {
	if d.Undo {
		return d.Step.ID + ".undo of " + d.Step.Target.Name()
	}
	return d.Step.ID + " of " + d.Step.Target.Name()
}

// outcome is how a run ended, for comparison with another.
type outcome struct {
	state   state
	history history
	records []incident.Record
}

// inspect reads what a run left behind, and checks what must be so of any.
func (s *scenario) inspect(ctx context.Context, dir string, st state) (outcome, error) {
	o := outcome{state: st}
	var err error
	if o.history, err = (&machines{path: machinesFile(dir)}).read(); err != nil {
		return o, err
	}
	if o.records, err = s.stored(ctx, dir); err != nil {
		return o, err
	}
	for _, host := range append(append([]fettle.Subject(nil), s.acting...), s.watch...) {
		j, err := journal.Open(ctx, journalFile(dir, host), journal.Options{})
		if err != nil {
			return o, fmt.Errorf("the journal of %s: %w", host, err)
		}
		if err := j.Close(); err != nil {
			return o, err
		}
	}
	return o, o.sound()
}

// stored reads the incidents back and checks the chain.
func (s *scenario) stored(ctx context.Context, dir string) (records []incident.Record, err error) {
	ca, err := pki.Open(caDir(dir))
	if err != nil {
		return nil, err
	}
	disk, err := openStore(ctx, s.store, dir, ca.Fleet())
	if err != nil {
		return nil, fmt.Errorf("the store: %w", err)
	}
	defer func() {
		if cerr := disk.Close(); err == nil {
			err = cerr
		}
	}()
	if _, err := disk.Check(ctx); err != nil {
		return nil, fmt.Errorf("the store's chain: %w", err)
	}
	loaded, err := disk.Load(ctx)
	return loaded.Records, err
}

// sound checks that no key acted twice, nor a step of an incident under two keys,
// and that the stories tell of every effect once.
func (o outcome) sound() error {
	keys := map[string]int{}
	for _, e := range o.history.effects {
		if keys[e.Key]++; keys[e.Key] > 1 {
			return fmt.Errorf("done twice under one key: %s under %s\n%s", e.what(), e.Key, o)
		}
	}
	for incident, whats := range o.byIncident() {
		slices.Sort(whats)
		if len(slices.Compact(slices.Clone(whats))) != len(whats) {
			return fmt.Errorf("done twice in incident %s: %q\n%s", incident, whats, o)
		}
	}
	told := map[string]int{}
	for _, r := range o.records {
		for _, e := range r.Story {
			if e.Kind == fettle.EvDone || e.Kind == fettle.EvUndone {
				told[e.Key]++
			}
		}
	}
	for _, e := range o.history.effects {
		if told[e.Key] != 1 {
			return fmt.Errorf("the stories tell %d times of %s under %s\n%s", told[e.Key], e.what(), e.Key, o)
		}
		delete(told, e.Key)
	}
	for key := range told {
		return fmt.Errorf("a story tells of %s, which had no effect\n%s", key, o)
	}
	return nil
}

// byIncident lists what was done, in order, by the incident whose key it was.
func (o outcome) byIncident() map[string][]string {
	by := map[string][]string{}
	for _, e := range o.history.effects {
		id, _, _ := strings.Cut(e.Key, ".")
		by[id] = append(by[id], e.what())
	}
	return by
}

// done is byIncident without the incidents' names, which are new in each run; in
// which order the incidents of one run came is left open.
func (o outcome) done() []string {
	var list []string
	for _, whats := range o.byIncident() {
		list = append(list, strings.Join(whats, "\n"))
	}
	slices.Sort(list)
	return list
}

// calls are the times that a person was called, and what for.
func (o outcome) calls() []string {
	var list []string
	for _, r := range o.records {
		for _, e := range r.Story {
			if e.Kind == fettle.EvEscalated {
				list = append(list, r.Cause.String()+": "+e.Text)
			}
		}
	}
	return list
}

// callsBesides are those that were not in another run.
func (o outcome) callsBesides(calm outcome) []string {
	list := o.calls()
	for _, call := range calm.calls() {
		if i := slices.Index(list, call); i >= 0 {
			list = slices.Delete(list, i, i+1)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// String is what happened, for a failure.
func (o outcome) String() string {
	var b strings.Builder
	for _, e := range o.history.effects {
		fmt.Fprintf(&b, "effect: %s under %s\n", e.what(), e.Key)
	}
	for _, r := range o.records {
		fmt.Fprintf(&b, "incident %s on %s: %s %s\n", r.ID, r.Cause, r.State, r.Why)
		for _, e := range r.Story {
			fmt.Fprintf(&b, "  %s %-9s %s %s\n", e.At.Format("15:04:05.000"), e.Kind, e.Key, e.Text)
			for _, v := range e.Verdicts {
				if !v.Allow {
					fmt.Fprintf(&b, "      %s: %s %s\n", v.Guard, v.Why, v.Arithmetic)
				}
			}
		}
	}
	return b.String()
}

// differences holds a run against the one that nobody disturbed.
func (o outcome) differences(calm outcome) error {
	if d := cmp.Diff(calm.done(), o.done()); d != "" {
		return fmt.Errorf("other effects than when nobody died (-calm +now):\n%s%s", d, o)
	}
	if d := cmp.Diff(calm.history.sorted(), o.history.sorted()); d != "" {
		return fmt.Errorf("the machines are not as when nobody died (-calm +now):\n%s%s", d, o)
	}
	if d := cmp.Diff(calm.state.Raised, o.state.Raised); d != "" {
		return fmt.Errorf("other conditions than when nobody died (-calm +now):\n%s%s", d, o)
	}
	return nil
}
