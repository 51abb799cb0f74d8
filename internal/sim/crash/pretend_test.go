package crash

import (
	"context"
	"fmt"
	"slices"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/machine"
)

// pretend is a shipped adapter's catalogue over the pretended machines: it sees
// what their file says and does what the catalogue says that its actions do.
type pretend struct {
	catalogue fettle.Catalogue
	machines  *machines
	env       *expr.Env
	fate      *fate
}

// Catalogue implements machine.Adapter.
func (p pretend) Catalogue() fettle.Catalogue { return p.catalogue }

// Discover implements machine.Adapter: every host has every system.
func (p pretend) Discover(context.Context, machine.Machine) ([]machine.Found, error) {
	return []machine.Found{{Name: "pretended", Config: []byte("{}\n"), Why: "it is pretended"}}, nil
}

// Open implements machine.Adapter.
func (p pretend) Open(_ context.Context, m machine.Machine, _ []byte) (fettle.Instance, error) {
	return instance{pretend: p, host: m.Identity.Host}, nil
}

type instance struct {
	pretend
	host fettle.Subject
}

func (i instance) Probes() []fettle.Probe {
	var list []fettle.Probe
	for _, spec := range i.catalogue.Probes {
		list = append(list, looker{i, spec})
	}
	return list
}

// Watchers are those of the probes that are told: the file tells of its changes.
func (i instance) Watchers() []fettle.Watcher {
	var list []fettle.Watcher
	for _, spec := range i.catalogue.Probes {
		if spec.Told {
			list = append(list, looker{i, spec})
		}
	}
	return list
}

func (i instance) Actions() map[string]fettle.Action {
	all := map[string]fettle.Action{}
	for _, spec := range i.catalogue.Actions {
		all[spec.Name] = doer{i, spec}
	}
	return all
}

func (i instance) Faults() map[string]fettle.Fault { return nil }

func (i instance) Close() error { return nil }

// looker is one probe on one host.
type looker struct {
	instance
	spec fettle.ProbeSpec
}

func (l looker) Spec() fettle.ProbeSpec { return l.spec }

func (l looker) Observe(_ context.Context, subjects ...fettle.Subject) []fettle.Observation {
	now, err := l.machines.read()
	if err != nil {
		return []fettle.Observation{{Subject: l.host, Reason: fettle.Failed, Detail: err.Error()}}
	}
	var list []fettle.Observation
	for _, o := range now.sorted() {
		if o.Host == l.host && o.Probe == l.spec.Name && (len(subjects) == 0 || slices.Contains(subjects, o.Subject)) {
			list = append(list, o)
		}
	}
	return list
}

// Watch implements fettle.Watcher.
func (l looker) Watch(ctx context.Context, emit func(fettle.Observation)) error {
	last := map[fettle.Subject]string{}
	return l.machines.watch(ctx, func() {
		for _, o := range l.Observe(ctx) {
			if text := string(toJSON(o)); last[o.Subject] != text {
				last[o.Subject] = text
				emit(o)
			}
		}
	})
}

// doer is one action on one host.
type doer struct {
	instance
	spec fettle.ActionSpec
}

func (a doer) Preview(_ context.Context, s fettle.Step) (fettle.Preview, error) {
	return fettle.Preview{Would: []string{fmt.Sprintf("%s on %s", s.Action, s.Target)}}, nil
}

// Apply implements fettle.Action. One who dies before the effect has touched
// nothing, one who dies after it has not answered.
func (a doer) Apply(_ context.Context, d fettle.Dispatch) (fettle.Result, error) {
	a.fate.meet("before the effect of " + d.Step.ID)
	e, err := a.machines.append(func(before history) (effect, error) { return a.change(before, d) })
	if err != nil {
		return fettle.Result{}, err
	}
	a.fate.meet("after the effect of " + d.Step.ID)
	return a.result(e), nil
}

// Undo implements fettle.Action: what the step changed is put back as it was.
func (a doer) Undo(_ context.Context, d fettle.Dispatch) (fettle.Result, error) {
	if !a.spec.Undo {
		return fettle.Result{}, fettle.ErrNotSupported
	}
	a.fate.meet("before the undo of " + d.Step.ID)
	_, err := a.machines.append(func(before history) (effect, error) { return a.restore(before, d) })
	if err != nil {
		return fettle.Result{}, err
	}
	a.fate.meet("after the undo of " + d.Step.ID)
	return fettle.Result{}, nil
}

// Recover implements fettle.Action: the machines themselves know what became of a
// key. What they have not taken they never will, since who asks has fenced it.
func (a doer) Recover(_ context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	now, err := a.machines.read()
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, err
	}
	e, ok := now.found(d.Key)
	if !ok {
		return fettle.NeverWillBe, fettle.Result{}, nil
	}
	return fettle.Done, a.result(e), nil
}

// result is what an effect's action answers.
func (a doer) result(e effect) fettle.Result {
	r := fettle.Result{Outputs: e.Outputs}
	if slices.Contains(a.spec.Takes, fettle.TakesData) && !e.Undo {
		receipt := fettle.Receipt{What: "what " + e.Step + " took"}
		if a.spec.Undo {
			receipt.Where, receipt.Back = "aside", "mv aside back"
		}
		r.Receipts = []fettle.Receipt{receipt}
	}
	return r
}
