package etcd

import (
	"context"
	"errors"
	"testing"

	"fettle/internal/fettle"
)

// TestWatch: the end of the process is told, of the member and of the cluster; no
// poll is waited for.
func TestWatch(t *testing.T) {
	r := newRig(t, rigOptions{})
	_, others := r.leader()
	m := others[0]
	for _, w := range m.in.Watchers() {
		t.Run(w.Spec().Name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(r.ctx)
			told := make(chan fettle.Observation, 64)
			ended := make(chan error, 1)
			go func() { ended <- w.Watch(ctx, func(o fettle.Observation) { told <- o }) }()
			down := func(o fettle.Observation) bool {
				if o.Probe == localProbe {
					return o.Facts["unit_active"] == false && o.Facts["log_state"] == "whole"
				}
				q, _ := o.Quorum.Member(m.in.member)
				return q.Serving == fettle.No && q.LogLost == fettle.No
			}
			if first := <-told; !first.Known() || down(first) {
				t.Fatalf("the present state comes first: %+v", first)
			}
			if _, err := m.in.Faults()["etcd.kill"].Inject(r.ctx, m.in.member, nil); err != nil {
				t.Fatal(err)
			}
			for o := range told {
				if down(o) {
					break
				}
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("Watch ended with %v", err)
			}
			r.do(m, "etcd.start", m.in.member, nil)
			r.until("it serves again", func() bool {
				q, _ := r.observe(m, clusterProbe, m.in.cluster.subject).Quorum.Member(m.in.member)
				return q.Serving == fettle.Yes
			})
		})
	}
}
