package server_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/wire"
)

// TestAuthorityRotatesBeside: an executor of its own follows a change through its agent;
// one that is away holds the change up, and is named; steps are done all the while, each
// at most once.
func TestAuthorityRotatesBeside(t *testing.T) {
	f := newFleet(t, func(o *server.Options) { o.Shelf = pki.Folder(t.TempDir()) })
	id, dir := f.join("box")
	b := &box{f: f, id: id, dir: dir, state: filepath.Join(t.TempDir(), "state"), host: id.Name.Host(), toy: newToy("main")}
	e := &beside{dir: filepath.Join(t.TempDir(), "executor"), socket: filepath.Join(t.TempDir(), "s")}
	if err := executor.Save(e.dir, id); err != nil {
		t.Fatal(err)
	}
	startBeside(t, b, e)
	e.client = executor.Dial(e.socket)
	t.Cleanup(func() { _ = e.client.Close() })
	b.start(func(o *agent.Options) { o.Executor = e.client })
	b.connected(0, true)
	plain := f.box("plain")
	plain.connected(0, true)

	// Repairs go on.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var done atomic.Int64
	over := make(chan struct{})
	go func() {
		defer close(over)
		for n := 0; ctx.Err() == nil; n++ {
			for _, on := range []*box{b, plain} {
				inc, there := f.server.Incarnation(on.host)
				if !there || inc == wire.ExecutorAway {
					continue
				}
				key := fmt.Sprintf("busy-%d.%s", n, on.id.Name.ID)
				out, err := f.server.Do(ctx, on.dispatchTo(inc, key, f.token(5)))
				switch {
				case err == nil && out.Fate == fettle.Done:
					done.Add(1)
				case err == nil && out.Class == fettle.Refused && !strings.Contains(out.Error, "does not answer") && !strings.Contains(out.Error, "incarnation"):
					t.Errorf("%s: %s", key, out.Error)
				}
				if n := on.toy.applications(key); n > 1 {
					t.Errorf("%s was done %d times", key, n)
				}
			}
		}
	}()

	e.stop()
	wait(t, "the server to know that the executor is away", func() bool {
		inc, ok := f.server.Incarnation(b.host)
		return ok && inc == wire.ExecutorAway
	})
	if err := f.rotate(&wire.RotateRequest{}); err != nil {
		t.Fatal(err)
	}
	f.phase("the new authority is made known", func(s *wire.AuthorityStatus) bool {
		return len(s.GetWaits()) == 1 && s.GetWaits()[0].GetHost() == b.id.Name.ID && strings.Contains(s.GetWaits()[0].GetWhy(), "executor")
	})
	startBeside(t, b, e)
	fresh := f.phase("the new authority issues", waitsForNone).GetBelieved()[0]
	pin, err := executor.OpenPin(e.dir)
	if err != nil || len(pin.Trust().Pins()) != 2 {
		t.Fatalf("the executor believes %v, %v", pin.Trust().Pins(), err)
	}
	f.clock.set(overlapPassed)
	f.changed(fresh)
	wait(t, "the executor to believe the new one alone", func() bool {
		pin, err := executor.OpenPin(e.dir)
		return err == nil && slices.Equal(pin.Trust().Pins(), []string{fresh})
	})
	before := done.Load()
	wait(t, "steps to be done after it", func() bool { return done.Load() > before+4 })
	cancel()
	<-over
	t.Logf("%d steps were done", done.Load())
}
