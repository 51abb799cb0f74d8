package server_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/act/armed"
	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/wire"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
	"fettle/internal/machine/units"
)

// confirmations reads a session until it ends, or until so many changes were
// confirmed, and returns which, and why it ended.
func confirmations(stream wire.AgentService_SessionClient, upTo int) ([]string, error) {
	var ids []string
	for {
		m, err := stream.Recv()
		if err != nil {
			return ids, err
		}
		if c := m.GetConfirm(); c != nil {
			if ids = append(ids, c.GetId()); len(ids) == upTo {
				return ids, nil
			}
		}
	}
}

// TestArmedChangeNeedsANewConnection (S8): a change is confirmed in a session that
// began after it had ended, and in no other: that one is ended.
func TestArmedChangeNeedsANewConnection(t *testing.T) {
	l := newLogged(t)
	tell := func(stream wire.AgentService_SessionClient, changes ...*wire.ArmedChange) {
		t.Helper()
		w := &wire.Armed{Changes: changes, Reverted: []*wire.ArmedChange{{Id: "r", Key: "k0", Says: "as it was"}}}
		if err := stream.Send(&wire.SessionRequest{NowNs: time.Now().UnixNano(), What: &wire.SessionRequest_Armed{Armed: w}}); err != nil {
			t.Fatal(err)
		}
	}
	old, _ := l.session(nil)
	tell(old, &wire.ArmedChange{Id: "made", Key: "k1", Ended: true, AgeNs: 0})
	if ids, err := confirmations(old, 1); err == nil || len(ids) != 0 || !strings.Contains(err.Error(), "anew") {
		t.Errorf("in the session in which it was made: confirmed %v, %v", ids, err)
	}
	anew, _ := l.session(nil)
	tell(anew, &wire.ArmedChange{Id: "failed", Key: "k2", AgeNs: int64(time.Hour)}, &wire.ArmedChange{Id: "made", Key: "k1", Ended: true, AgeNs: int64(time.Hour)})
	if ids, err := confirmations(anew, 1); err != nil || len(ids) != 1 || ids[0] != "made" {
		t.Errorf("in a session that began after it: confirmed %v, %v", ids, err)
	}
}

// Before implements fettle.Armable.
func (t *toyInstance) Before(context.Context, fettle.Dispatch) (fettle.PutBack, error) {
	return fettle.PutBack{Program: "nft", Says: "as it was"}, nil
}

// uptimes is the files of a machine whose time since boot passes.
type uptimes struct {
	machine.Files
	boot time.Time
}

func (f uptimes) ReadFile(ctx context.Context, name string, limit int64) ([]byte, error) {
	if name == "/proc/uptime" {
		return fmt.Appendf(nil, "%.2f 0.00\n", time.Since(f.boot).Seconds()), nil
	}
	return f.Files.ReadFile(ctx, name, limit)
}

// TestArmedStepIsDoneOnceItIsConfirmed: server and agent together. The step is
// running until the agent has called anew, and then it is done; the change stands.
func TestArmedStepIsDoneOnceItIsConfirmed(t *testing.T) {
	t.Run("by a server elsewhere", func(t *testing.T) { confirmedStep(t, false, false) })
	t.Run("by a server elsewhere, with an executor beside the agent", func(t *testing.T) { confirmedStep(t, false, true) })
	t.Run("by a person, where the server is on the same machine", func(t *testing.T) { confirmedStep(t, true, false) })
}

func confirmedStep(t *testing.T, local, split bool) {
	f := newFleet(t)
	b := f.box("one")
	b.connected(0, true)
	b.stop()
	mem := memmachine.New(memmachine.Options{Host: b.id.Name.ID, Hostname: "box"})
	for _, name := range []string{"/run/systemd/system/x", armed.UnitDir + "/x", "/var/lib/fettle/x"} {
		mem.Put(name, nil, 0o644)
	}
	mem.Define(units.Definition{Unit: machine.Unit{Name: "fettle-revert@" + armed.ID("k1") + ".service"}}, memmachine.Behaviour{})
	m := mem.Ports()
	m.Files = uptimes{m.Files, time.Now().Add(-time.Minute)}
	arms := armed.New(m, armed.Options{Dir: "/var/lib/fettle/armed", Program: "/usr/bin/fettle", PID: 1})
	var hands executor.Hands
	if split {
		e := &beside{dir: filepath.Join(t.TempDir(), "executor"), socket: filepath.Join(t.TempDir(), "s"), machine: &m, arms: arms}
		if err := executor.Save(e.dir, b.id); err != nil {
			t.Fatal(err)
		}
		startBeside(t, b, e)
		client := executor.Dial(e.socket)
		t.Cleanup(func() { _ = client.Close() })
		hands = client
	}
	from := f.brain.mark()
	b.start(func(o *agent.Options) {
		if o.Machine = m; split {
			o.Executor = hands
		} else {
			o.Arms = arms
		}
		if !local { // the test's server is on this machine
			o.Local = func(context.Context, string) bool { return false }
		}
	})
	b.connected(from, true)

	from = f.brain.mark()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	d := b.dispatch("k1", f.token(1))
	d.Step.Takes = []fettle.Taking{fettle.TakesReachability}
	out, err := f.server.Do(ctx, d)
	if err != nil || out.Fate != fettle.Running {
		t.Fatalf("%+v, %v", out, err)
	}
	b.connected(from, false)
	b.connected(from, true)
	if local {
		for n := 0; n < 5; {
			switch out, err = f.server.Recover(ctx, d); {
			case ctx.Err() != nil, err == nil && out.Fate != fettle.Running:
				t.Fatalf("%+v, %v", out, err)
			case err == nil: // else it is calling anew
				n++
			}
		}
		since, err := arms.Uptime(ctx)
		if err == nil {
			err = arms.Confirm(ctx, armed.ID("k1"), since)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for out.Fate != fettle.Done {
		if out, err = f.server.Recover(ctx, d); ctx.Err() != nil {
			t.Fatalf("it is never confirmed: %+v, %v", out, err)
		}
	}
	if out.Class != "" || len(out.Result.Notes) == 0 || out.Result.Notes[0] != "started" {
		t.Errorf("%+v", out)
	}
	if s, was, err := arms.State(t.Context(), "k1"); err != nil || !was || s.Decision != armed.Confirmed {
		t.Errorf("%+v, %v", s, err)
	}
	if n := b.toy.applications("k1"); n != 1 {
		t.Errorf("it was done %d times", n)
	}
}

// TestWithoutArmsNothingIsTouched: an agent that cannot arm a revert refuses.
func TestWithoutArmsNothingIsTouched(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	b.connected(0, true)
	d := b.dispatch("k1", f.token(1))
	d.Step.Takes = []fettle.Taking{fettle.TakesReachability}
	out, err := f.server.Do(t.Context(), d)
	if err != nil || out.Class != fettle.Refused || b.toy.applications("k1") != 0 {
		t.Errorf("%+v, %v", out, err)
	}
}
