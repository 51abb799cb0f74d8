package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"fettle/internal/adapter/all"
	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/judge/expr"
	"fettle/internal/machine"
)

// childEnv makes this test binary one process of a fleet: its brief, in JSON.
const childEnv = "FETTLE_CRASH_CHILD"

// brief is what a child is told.
type brief struct {
	Name    string           `json:"name"` // server, agent or witness
	Dir     string           `json:"dir"`  // of the run
	Hosts   []fettle.Subject `json:"hosts,omitempty"`
	Address string           `json:"address"` // of the server
	Clock   fastClock        `json:"clock"`
	Store   string           `json:"store"` // file or etcd
	Death   death            `json:"death"`
	Alone   bool             `json:"alone,omitempty"` // the agent may work without a server
}

func TestMain(m *testing.M) {
	text := os.Getenv(childEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	if err := live(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// live is a child's life, until its parent kills it.
func live(text string) error {
	var b brief
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		return err
	}
	f, err := newFate(b.Dir, b.Name, b.Death)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("process", b.Name)
	if b.Name == serverName {
		return serve(context.Background(), b, f, log)
	}
	return act(context.Background(), b, f, log)
}

// shipped are the catalogues of all that is shipped.
func shipped() []fettle.Catalogue {
	var list []fettle.Catalogue
	for _, a := range all.Adapters() {
		list = append(list, a.Catalogue())
	}
	return append(list, server.Catalogue())
}

// The folders and files of a run.
func caDir(dir string) string                        { return filepath.Join(dir, "ca") }
func hostDir(dir string, host fettle.Subject) string { return filepath.Join(dir, "hosts", host.Name()) }
func journalFile(dir string, host fettle.Subject) string {
	return filepath.Join(hostDir(dir, host), "journal")
}
func machinesFile(dir string) string { return filepath.Join(dir, "machines") }
func policyFile(dir string) string   { return filepath.Join(dir, "policy.json") }

// act runs the agents of some hosts.
func act(ctx context.Context, b brief, f *fate, log *slog.Logger) error {
	env, err := expr.New(fettle.Join(shipped()))
	if err != nil {
		return err
	}
	world := &machines{path: machinesFile(b.Dir)}
	var adapters []machine.Adapter
	for _, a := range all.Adapters() {
		adapters = append(adapters, pretend{catalogue: a.Catalogue(), machines: world, env: env, fate: f})
	}
	var group sync.WaitGroup
	errs := make([]error, len(b.Hosts))
	for i, host := range b.Hosts {
		dir := hostDir(b.Dir, host)
		id, err := pki.LoadIdentity(dir, pki.RoleAgent)
		if err != nil {
			return err
		}
		o := agent.Options{
			Server: b.Address, Identity: id, IdentityDir: dir, StateDir: dir, Adapters: adapters,
			Machine:    machine.Machine{Identity: machine.Identity{Host: host, Hostname: host.Name(), BootID: "boot"}, Clock: b.Clock},
			Catalogues: []fettle.Catalogue{server.Catalogue()}, Version: "crash", Log: log,
			OnDurable: f.journalled,
		}
		if b.Alone {
			o.Books, o.AloneAfter, o.OnAlone = shippedBooks, time.Second, f.ownLog
		}
		a, err := agent.New(o)
		if err != nil {
			return err
		}
		group.Go(func() { errs[i] = a.Run(ctx) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// listener is the socket that the parent holds, so that the address is the same
// in every life of the server.
func listener() (net.Listener, error) {
	f := os.NewFile(3, "listener")
	defer f.Close()
	return net.FileListener(f)
}
