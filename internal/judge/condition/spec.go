package condition

import (
	"errors"
	"fmt"
	"slices"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
)

// spec is a condition's catalogue entry with its rules compiled.
type spec struct {
	fettle.ConditionSpec
	raise, clear *expr.Rule // clear is nil where the raise rule's no is enough
	title        title
	reads        []string // facts of self that either rule reads
}

// compile checks one entry and compiles its rules. All that is wrong is in the
// error.
func compile(c fettle.ConditionSpec, probe *fettle.ProbeSpec, env *expr.Env) (*spec, error) {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{c.Code}, args...)...))
	}
	if c.Flap == (fettle.Flap{}) {
		c.Flap = fettle.DefaultFlap
	}
	switch {
	case probe == nil:
		bad("no catalogue declares its probe %q", c.Probe)
	case probe.Kind != c.Kind:
		bad("it is about kind %q, its probe %s observes %q", c.Kind, c.Probe, probe.Kind)
	}
	if c.Delay < 0 || c.ClearHold < 0 || c.Expiry < 0 {
		bad("delay, clear hold and expiry cannot be negative")
	}
	if c.Flap.Changes < 1 || c.Flap.Window <= 0 {
		bad("flap: %d changes in %v damps nothing; both must be above 0", c.Flap.Changes, c.Flap.Window)
	}
	if !slices.Contains([]fettle.Agreement{"", fettle.AnyObserver, fettle.AllObservers, fettle.MostHosts}, c.Observers) {
		bad("unknown agreement %q; the agreements are any, all and majority", c.Observers)
	}
	s := &spec{ConditionSpec: c}
	var err error
	if probe != nil {
		if s.title, err = parseTitle(c.Title, probe.Facts); err != nil {
			bad("title: %w", err)
		}
		if s.raise, err = env.Rule(c, c.Raise); err != nil {
			errs = append(errs, err)
		}
		if c.Clear != "" {
			if s.clear, err = env.Rule(c, c.Clear); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	s.reads = s.raise.Reads()
	if s.clear != nil {
		s.reads = slices.Compact(slices.Sorted(slices.Values(slices.Concat(s.reads, s.clear.Reads()))))
	}
	return s, nil
}

// rules calls f for the raise rule and, where there is one, the clear rule, and
// reports whether one of them is true of it.
func (s *spec) either(f func(*expr.Rule) bool) bool {
	return f(s.raise) || s.clear != nil && f(s.clear)
}

func (s *spec) readsPeers() bool { return s.either((*expr.Rule).ReadsPeers) }
func (s *spec) readsParts() bool { return s.either((*expr.Rule).ReadsParts) }
func (s *spec) readsWhole() bool { return s.either((*expr.Rule).ReadsWhole) }
func (s *spec) readsHost() bool  { return s.either((*expr.Rule).ReadsHost) }
