package adaptertest

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"fettle/internal/fettle"
)

// observes asks whether what the probes see is as they declare it, and free of
// the planted secret.
func (s Suite) observes(t *testing.T) {
	r := s.New(t)
	in := open(t, r)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	seen := 0
	for _, p := range in.Probes() {
		spec := p.Spec()
		types := map[string]fettle.FactType{}
		for _, f := range spec.Facts {
			types[f.Name] = f.Type
		}
		for _, o := range p.Observe(ctx) {
			seen++
			if err := o.Facts.Validate(); err != nil {
				t.Errorf("%s of %s: %v", spec.Name, o.Subject, err)
			}
			for name, v := range o.Facts {
				if types[name] != fettle.TypeOf(v) {
					t.Errorf("%s of %s: fact %s is of type %s, declared %q", spec.Name, o.Subject, name, fettle.TypeOf(v), types[name])
				}
			}
			noSecret(t, r.Canary, o)
		}
	}
	if seen == 0 {
		t.Error("no probe sees anything of the rig")
	}
}

// noSecret fails if the canary is anywhere in a value.
func noSecret(t *testing.T, canary string, v any) {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Errorf("%T has no JSON: %v", v, err)
	}
	if canary == "" {
		t.Error("the rig planted no secret, so nothing is proven")
	} else if strings.Contains(string(data), canary) {
		t.Errorf("the planted secret shows up in %s", data)
	}
}

// hang asks whether a peer that accepts and never answers becomes unknown in
// time, and whether anything is left behind.
func (s Suite) hang(t *testing.T) {
	if s.Hang == nil {
		if !s.excused(t, "hang") {
			t.Error("no rig whose peer never answers")
		}
		return
	}
	before := goleak.IgnoreCurrent()
	t.Run("in time", func(t *testing.T) {
		r, looks := s.Hang(t)
		in := open(t, r)
		for _, l := range looks {
			s.hung(t, in, l)
		}
	})
	if err := goleak.Find(before); err != nil {
		t.Errorf("something is left behind: %v", err)
	}
}

func (s Suite) hung(t *testing.T, in fettle.Instance, l fettle.Look) {
	for _, p := range in.Probes() {
		if p.Spec().Name != l.Probe {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), p.Spec().Timeout)
		list := p.Observe(ctx, l.Subject)
		late := ctx.Err() != nil
		cancel()
		if late {
			t.Errorf("%s did not come back before its own deadline", l.Probe)
		}
		for _, o := range list {
			if o.Subject != l.Subject {
				continue
			}
			if answers, has := o.Facts.Bool("answers"); o.Known() && (!has || answers) {
				t.Errorf("%s claims to know %s of a peer that never answered: %v", l.Probe, o.Subject, o.Facts)
			}
		}
		return
	}
	t.Errorf("there is no probe %s", l.Probe)
}
