package cli_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fettle/internal/adapter/all"
	"fettle/internal/adapter/systemd"
	"fettle/internal/face/control"
	"fettle/internal/face/demo"
	"fettle/internal/fettle"
	"fettle/internal/fleet/store"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
	"fettle/internal/loop"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
	"fettle/internal/machine/units"
	"fettle/runbooks"
)

// hands are those of one pretended host with the systemd adapter.
type hands struct{ fettle.Instance }

func (h hands) Look(ctx context.Context, looks []fettle.Look) []fettle.Observation {
	var out []fettle.Observation
	for _, l := range looks {
		for _, p := range h.Probes() {
			if p.Spec().Name == l.Probe {
				out = append(out, p.Observe(ctx, l.Subject)...)
			}
		}
	}
	return out
}

func (h hands) Do(ctx context.Context, d fettle.Dispatch) (fettle.Outcome, error) {
	r, err := h.Actions()[d.Step.Action].Apply(ctx, d)
	o := fettle.Outcome{Schema: 1, Key: d.Key, Fate: fettle.Done, Result: r, Class: fettle.ClassOf(err)}
	if err != nil {
		o.Error = err.Error()
	}
	return o, nil
}

func (h hands) Recover(context.Context, fettle.Dispatch) (fettle.Outcome, error) {
	return fettle.Outcome{}, loop.ErrNoContact
}

func (h hands) Preview(ctx context.Context, s fettle.Step) (fettle.Preview, error) {
	return h.Actions()[s.Action].Preview(ctx, s)
}

func (h hands) Incarnation(fettle.Subject) (string, bool) { return "one", true }

// recordings makes the files that replay is given: a service that was killed and
// started again, as it was recorded, with something changed in it, and by another
// catalogue. They are made here and not kept, because a recording pins the
// catalogue and the runbooks that it was made with.
func recordings(t *testing.T) map[string]string {
	t.Helper()
	rec := recorded(t)
	if len(rec.Incidents) != 1 || rec.Incidents[0].State != fettle.Resolved || rec.Incidents[0].Plan == nil {
		t.Fatalf("the recording should be of one mended trouble: %+v", rec.Incidents)
	}
	files := map[string]string{}
	write := func(name string, change func(*incident.Recording)) {
		var r incident.Recording
		if err := json.Unmarshal([]byte(text(t, rec)), &r); err != nil {
			t.Fatal(err)
		}
		change(&r)
		files[name] = text(t, r)
	}
	write("killed.json", func(*incident.Recording) {})
	write("changed.json", func(r *incident.Recording) { r.Incidents[0].Story[0].Text = "something else happened" })
	write("other-catalogue.json", func(r *incident.Recording) { r.Pins.Catalogue = "0123456789abcdef" })
	write("cut.json", func(r *incident.Recording) { r.Truncated = true })
	write("newer.json", func(r *incident.Recording) { r.Schema = 99 })
	return files
}

func text(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// recorded drives a loop over a pretended host, in a bubble where time costs
// nothing.
func recorded(t *testing.T) (rec incident.Recording) {
	t.Helper()
	policy, err := runbook.ParsePolicy("policy.yaml", []byte(demo.Policy))
	if err != nil {
		t.Fatal(err)
	}
	mind, err := incident.New(incident.Options{
		Catalogues: control.Catalogues(all.Adapters()), Policy: policy,
		Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
			return runbook.Load(runbooks.FS(), env, cats)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		m := memmachine.New(memmachine.Options{Host: "h1"})
		m.Define(units.Definition{Unit: machine.Unit{Name: "web.service", UnitFileState: "enabled"}}, memmachine.Behaviour{ReadyAfter: 5 * time.Millisecond})
		if _, err := m.Ports().Services.Start(t.Context(), "web.service"); err != nil {
			t.Fatal(err)
		}
		in, err := systemd.Adapter{}.Open(t.Context(), m.Ports(), nil)
		if err != nil {
			t.Fatal(err)
		}
		recorder := &loop.Recorder{Policy: policy}
		l := loop.New(loop.Options{Mind: mind, Store: store.NewMemory("f"), Hands: hands{in}, Clock: m.Ports().Clock, OnInput: recorder.Input})
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() {
			if err := l.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		group.Go(func() {
			_ = in.Watchers()[0].Watch(ctx, func(o fettle.Observation) { l.Feed(incident.Input{Observations: []fettle.Observation{o}}) })
		})
		<-time.After(time.Second)
		m.Crash("web.service", 9)
		<-time.After(time.Minute)
		if err := l.Ask(t.Context(), func(m *incident.Mind) { rec = recorder.Recording(m) }); err != nil {
			t.Error(err)
		}
		cancel()
		group.Wait()
	})
	return rec
}
