package probe

import (
	"fmt"
	"slices"
	"time"

	"fettle/internal/fettle"
)

// checked completes an observation and turns one that its spec does not allow
// into Failed. seen says that this subject has been checked before. It returns
// what is wrong; an observation whose subject is not well
// formed cannot be told at all and comes back with the zero Subject.
func checked(spec fettle.ProbeSpec, host fettle.Subject, o fettle.Observation, asked, now time.Time, seen bool) (fettle.Observation, error) {
	if !seen {
		if _, err := fettle.ParseSubject(string(o.Subject)); err != nil {
			return fettle.Observation{}, err
		}
	}
	// Who looked is not for the probe to say.
	o.Host, o.Probe = host, spec.Name
	if o.Asked.IsZero() || o.Asked.After(now) {
		o.Asked = asked // one that is earlier is kept: the probe answered from what it knew
	}
	if o.Took == 0 {
		o.Took = now.Sub(o.Asked)
	}
	if err := fitting(spec, o); err != nil {
		return unknown(spec, host, o.Subject, fettle.Failed, "defect of the probe: "+err.Error(), o.Asked, now), err
	}
	if !o.Known() {
		o.Facts, o.Edges, o.Quorum, o.Replicas = nil, nil, nil, nil
	}
	return o, nil
}

// unknown is an observation that could not be made.
func unknown(spec fettle.ProbeSpec, host, subject fettle.Subject, reason fettle.Reason, detail string, asked, now time.Time) fettle.Observation {
	return fettle.Observation{Subject: subject, Host: host, Probe: spec.Name, Asked: asked, Took: now.Sub(asked), Reason: reason, Detail: detail}
}

// fitting reports what of an observation its spec does not allow.
func fitting(spec fettle.ProbeSpec, o fettle.Observation) error {
	switch o.Reason {
	case "", fettle.Unreachable, fettle.TimedOut, fettle.PermissionDenied, fettle.NotSupported, fettle.Failed:
	default:
		return fmt.Errorf("reason %q is none of the reasons", o.Reason)
	}
	bad := "" // the first in order of name, so that the message stays the same
	for name, v := range o.Facts {
		if i := declared(spec, name); (i < 0 || fettle.TypeOf(v) != spec.Facts[i].Type) && (bad == "" || name < bad) {
			bad = name
		}
	}
	if i := declared(spec, bad); bad != "" && i < 0 {
		return fmt.Errorf("fact %s is not declared by probe %s", bad, spec.Name)
	} else if bad != "" {
		return fmt.Errorf("fact %s is a %T, probe %s declares a %s", bad, o.Facts[bad], spec.Name, spec.Facts[i].Type)
	}
	for _, e := range o.Edges {
		for _, end := range []fettle.Subject{e.From, e.To} {
			if _, err := fettle.ParseSubject(string(end)); err != nil {
				return fmt.Errorf("edge: %w", err)
			}
		}
		switch e.Rel {
		case fettle.RunsOn, fettle.PartOf, fettle.Uses, fettle.In:
		default:
			return fmt.Errorf("edge from %s: relation %q is none of the relations", e.From, e.Rel)
		}
	}
	return nil
}

// declared is where a spec has a fact of this name, -1 where it has none.
func declared(spec fettle.ProbeSpec, name string) int {
	return slices.IndexFunc(spec.Facts, func(f fettle.FactSpec) bool { return f.Name == name })
}
