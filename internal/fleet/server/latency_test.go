package server_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/store"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// reflex answers every raised condition with a dispatch, at once: what is left
// between a watcher's word and Apply is the way there and back.
type reflex struct {
	*brain
	raised, cleared chan time.Time
}

func (r *reflex) Feed(in incident.Input) {
	for _, c := range in.Conditions {
		if c.Code != "toy.down" {
			continue
		}
		switch c.State {
		case fettle.Yes:
			r.raised <- time.Now()
		case fettle.No:
			r.cleared <- time.Now()
		case fettle.Unknown:
		}
	}
}

// BenchmarkToldToApply measures our own part of the way from a fact told on a
// machine to the action called there: agent, judge of the host, mutual TLS, server,
// and back through the executor with its intent synced to disk. The loop's decision
// is not in it, but what it writes to its log is: each step is sent with a head of
// the log that was signed for it, and kept with the step's intent (S13).
func BenchmarkToldToApply(b *testing.B) {
	var history *store.Memory
	f := newFleet(b, func(o *server.Options) {
		history = store.NewMemory(o.CA.Fleet())
		o.History = history
	})
	state, err := history.Load(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	box := f.box("one")
	box.seen(0, "the first look", true)
	f.stop()
	r := &reflex{brain: f.brain, raised: make(chan time.Time, 16), cleared: make(chan time.Time, 16)}
	s, err := server.New(f.options)
	if err != nil {
		b.Fatal(err)
	}
	f.run(s, r, f.address)
	<-r.cleared // all that is has been sent
	var there, all []time.Duration
	for i := 0; b.Loop(); i++ {
		d := box.dispatch("k"+time.Duration(i).String(), f.token(5))
		began := time.Now()
		box.toy.setUp(false)
		at := <-r.raised
		done := make(chan error, 1)
		if err := history.Commit(b.Context(), loop.Txn{Token: state.Token, Log: []loop.Entry{{At: at, Kind: "step", Text: d.Key}}}); err != nil {
			b.Fatal(err)
		}
		go func() {
			_, err := s.Do(context.Background(), d)
			done <- err
		}()
		<-box.toy.applied
		all = append(all, time.Since(began))
		there = append(there, at.Sub(began))
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		<-r.cleared
	}
	report := func(name string, list []time.Duration) {
		slices.Sort(list)
		b.ReportMetric(float64(list[len(list)/2].Microseconds()), name+"-p50-us")
		b.ReportMetric(float64(list[len(list)*99/100].Microseconds()), name+"-p99-us")
	}
	report("told-to-server", there)
	report("told-to-apply", all)
}
