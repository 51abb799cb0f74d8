//go:build compare

package fleet_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"fettle/internal/adapter/systemd"
	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

// mini is an agent without a machine.
type mini struct {
	id      *pki.Identity
	label   string
	address string

	mu   sync.Mutex // held while something is sent; guards what follows
	send func(*wire.SessionRequest) error
}

// illService is the one that fails.
const illService = "service-0.service"

// falls says that the service failed, or that it is well again.
func (a *mini) falls(ill bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.send == nil {
		return fmt.Errorf("%s is not connected", a.label)
	}
	o := a.machine()[2] // the first service
	state, now := fettle.No, time.Now()
	o.Asked = now
	if ill {
		state = fettle.Yes
		o.Facts["active_state"], o.Facts["sub_state"], o.Facts["result"] = "failed", "failed", "exit-code"
	}
	c := fettle.Condition{ConditionKey: fettle.ConditionKey{Code: systemd.UnitFailed, Subject: o.Subject}, State: state, Since: now, FirstSeen: now, Title: "unit failed (exit-code)",
		Evidence: []fettle.Evidence{{Observer: fettle.Observer{Host: a.id.Name.Host(), Probe: o.Probe}, Asked: now, Says: state}}}
	seen, err := wire.Pack(o)
	if err != nil {
		return err
	}
	judged, err := wire.Pack(c)
	if err != nil {
		return err
	}
	return a.send(&wire.SessionRequest{What: &wire.SessionRequest_Report{Report: &wire.Report{Observations: []*wire.Observation{{Json: seen}}, Conditions: [][]byte{judged}}}})
}

// run keeps a session, with an agent's pauses.
func (a *mini) run(ctx context.Context, ends *ends) {
	pause := 100 * time.Millisecond
	for ctx.Err() == nil {
		began := time.Now()
		ends.add(a.session(ctx)) // it is tried again
		if time.Since(began) > 10*time.Second {
			pause = 100 * time.Millisecond
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		case <-ctx.Done():
		}
		pause = min(2*pause, 5*time.Second)
	}
}

func (a *mini) session(ctx context.Context) error {
	stream, err := wire.Dialer(nil).Direct(ctx, a.address, pki.ClientTLS(func() *pki.Identity { return a.id }, time.Now))
	if err != nil {
		return err
	}
	defer func() { _ = stream.CloseSend() }()
	raw := func(m *wire.SessionRequest) error {
		m.NowNs = time.Now().UnixNano()
		return stream.Send(m)
	}
	send := func(m *wire.SessionRequest) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		return raw(m)
	}
	host := a.id.Name.Host()
	if err := send(&wire.SessionRequest{What: &wire.SessionRequest_Hello{Hello: &wire.Hello{
		Schema: wire.Schema, Host: string(host), Incarnation: "i1", BootId: "b1", Label: a.label, Version: "bench", Commands: true, SignedCommands: true, Nonce: "bench"}}}); err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetWelcome() == nil {
		return fmt.Errorf("no welcome: %v", first)
	}
	seen := a.machine()
	report := &wire.Report{}
	digest := &wire.Digest{}
	for _, o := range seen {
		data, err := wire.Pack(o)
		if err != nil {
			return err
		}
		report.Observations = append(report.Observations, &wire.Observation{Json: data})
		digest.Seen = append(digest.Seen, &wire.Seen{Subject: string(o.Subject), Probe: o.Probe})
	}
	if err := send(&wire.SessionRequest{What: &wire.SessionRequest_Report{Report: report}}); err != nil {
		return err
	}
	if err := send(&wire.SessionRequest{What: &wire.SessionRequest_Settled{Settled: &wire.Settled{}}}); err != nil {
		return err
	}
	a.mu.Lock()
	a.send = raw
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.send = nil
		a.mu.Unlock()
	}()
	last := time.Now()
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		answer := &wire.SessionRequest{}
		switch w := m.GetWhat().(type) {
		case *wire.SessionResponse_Ping:
			if time.Since(last) >= 5*time.Second { // as often as an agent confirms what did not change
				last = time.Now()
				if err := send(&wire.SessionRequest{What: &wire.SessionRequest_Digest{Digest: digest}}); err != nil {
					return err
				}
			}
			answer.What = &wire.SessionRequest_Pong{Pong: &wire.Pong{Id: w.Ping.GetId()}}
		case *wire.SessionResponse_Command:
			answer.What = &wire.SessionRequest_CommandEnd{CommandEnd: &wire.CommandEnd{Id: w.Command.GetId()}}
		default:
			continue
		}
		if err := send(answer); err != nil {
			return err
		}
	}
}

// machine is what an agent sees on a small machine: two filesystems, and some
// services.
func (a *mini) machine() []fettle.Observation {
	host := a.id.Name.Host()
	var list []fettle.Observation
	for _, mount := range []string{"/", "/var"} {
		fs := fettle.NewSubject(fettle.KindFilesystem, host.Name(), mount)
		list = append(list, fettle.Observation{Subject: fs, Probe: "filesystem.usage", Edges: []fettle.Edge{{From: fs, Rel: fettle.RunsOn, To: host}},
			Facts: fettle.Facts{"type": "ext4", "device": "/dev/vda1", "read_only": false, "bytes": int64(100 << 30), "bytes_used_permille": int64(412), "inodes_used_permille": int64(31)}})
	}
	for i := range 8 {
		unit := fettle.NewSubject(fettle.KindUnit, host.Name(), fmt.Sprintf("service-%d.service", i))
		list = append(list, fettle.Observation{Subject: unit, Probe: "systemd.unit", Edges: []fettle.Edge{{From: unit, Rel: fettle.RunsOn, To: host}},
			Facts: fettle.Facts{"load_state": "loaded", "active_state": "active", "sub_state": "running", "result": "success", "invocation_id": "0123456789abcdef0123456789abcdef",
				"restart": "no", "enabled": true, "was_active": true, "stopped_by": "", "starts_10m": int64(0)}})
	}
	return list
}
