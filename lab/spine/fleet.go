package spine

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"sync"
	"testing"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/labtest"
)

// Where things are in a host.
const (
	Program    = "/usr/local/bin/fettle"
	StateDir   = "/var/lib/fettle"
	policyFile = "/etc/fettle/policy.yaml"
	configDir  = "/etc/fettle/adapters"
	port       = "7401"
)

// The units that run Fettle in the hosts: the first on h1, the second on the
// others. They have no restart policy: a test that kills them starts them again.
const (
	UpUnit    = "fettle-up.service"
	AgentUnit = "fettle-agent.service"
)

// Options is how a fleet is started.
type Options struct {
	Binary   string                       // made by Build
	Policy   string                       // YAML of /etc/fettle/policy.yaml; empty: none, what is shipped holds
	Adapters map[string]map[string]string // host ("h1") to file name ("systemd.yaml") to its content
	Prepare  func(*lab.Lab)               // called when the hosts run, before Fettle does
}

// Fleet is a lab that Fettle looks after. Its methods fail the test if what they
// ask cannot be asked. They may be called by one goroutine at a time.
type Fleet struct {
	*lab.Lab
	t   testing.TB
	ids map[string]string // host name to the identity that it was given
}

// Start boots that many hosts, starts Fettle on all of them and returns when the
// server knows what all its agents see. Everything goes when the test ends; if it failed, first
// what Fettle logged and the incidents' stories go into the test's log.
func Start(t testing.TB, hosts int, o Options) *Fleet {
	t.Helper()
	f := &Fleet{Lab: labtest.Start(t, lab.Config{Hosts: hosts}), t: t, ids: map[string]string{}}
	t.Cleanup(func() {
		if t.Failed() {
			f.show()
		}
	})
	if o.Prepare != nil {
		o.Prepare(f.Lab)
	}
	f.each(func(h *lab.Host) error { return f.install(h, o) })
	f.must(f.server(), "systemctl", "start", UpUnit)
	f.waitServer()
	f.each(func(h *lab.Host) error {
		if h == f.server() {
			return nil
		}
		return f.join(h)
	})
	f.WaitReady()
	return f
}

// WaitReady waits until the server knows what all agents see, after it or they
// were started.
func (f *Fleet) WaitReady() {
	f.t.Helper()
	f.waitServer()
	Until(f.t, "all agents to be connected", func() bool { return f.connected() == len(f.Hosts()) })
	Until(f.t, "all agents to have told what they see", func() bool {
		id := f.Property(f.server(), UpUnit, "InvocationID")
		log := f.must(f.server(), "journalctl", "-b", "-o", "cat", "--no-pager", "_SYSTEMD_INVOCATION_ID="+id)
		return strings.Count(log, saidAll) >= len(f.Hosts())
	})
}

func (f *Fleet) waitServer() {
	f.t.Helper()
	Until(f.t, "the server to answer", func() bool {
		f.alive(f.server(), UpUnit)
		return f.command("status").Code != noContact
	})
}

func (f *Fleet) server() *lab.Host { return f.Host(1) }

// each does something on all hosts at once.
func (f *Fleet) each(do func(*lab.Host) error) {
	f.t.Helper()
	errs := make([]error, len(f.Hosts()))
	var group sync.WaitGroup
	for i, h := range f.Hosts() {
		group.Go(func() { errs[i] = do(h) })
	}
	group.Wait()
	for i, err := range errs {
		if err != nil {
			f.t.Fatalf("%s: %v", f.Hosts()[i].Name(), err)
		}
	}
}

func (f *Fleet) install(h *lab.Host, o Options) error {
	if err := h.CopyIn(o.Binary, Program); err != nil {
		return err
	}
	unit, args := AgentUnit, "agent -v"
	if h == f.server() {
		unit, args = UpUnit, fmt.Sprintf("up -v --listen %s:%s", h.Addr(), port)
	}
	files := map[string]string{
		"/etc/systemd/system/" + unit: "[Unit]\nDescription=Fettle\n[Service]\nType=exec\nExecStart=" + Program + " " + args + "\n",
	}
	if o.Policy != "" {
		files[policyFile] = o.Policy
	}
	for name, text := range o.Adapters[h.Name()] {
		files[path.Join(configDir, name)] = text
	}
	for name, text := range files {
		if err := h.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	_, err := h.Output(f.t.Context(), "systemctl", "daemon-reload")
	return err
}

// join makes a host part of the fleet, as a person would.
func (f *Fleet) join(h *lab.Host) error {
	ctx := f.t.Context()
	token, err := f.server().Output(ctx, Program, "token", "--address", f.server().Addr().String()+":"+port)
	if err != nil {
		return err
	}
	if _, err := h.Output(ctx, Program, "join", token); err != nil {
		return err
	}
	_, err = h.Output(ctx, "systemctl", "start", AgentUnit)
	return err
}

// alive fails the test if a unit that should run has ended.
func (f *Fleet) alive(h *lab.Host, unit string) {
	f.t.Helper()
	if state := f.Property(h, unit, "ActiveState"); state != "active" && state != "activating" {
		f.t.Fatalf("%s: %s is %s", h.Name(), unit, state)
	}
}

// saidAll is what a server logs when an agent has told of everything that it
// sees; before that it would miss what comes and goes.
const saidAll = "an agent has told all that it sees"

// noContact is the exit status of a command that could not reach the server.
const noContact = 4

// connected counts the hosts that the server has, and learns their identities.
func (f *Fleet) connected() int {
	f.t.Helper()
	var status struct {
		Machines []struct {
			ID, Label string
			Connected bool
		}
	}
	f.read(&status, "status")
	n := 0
	for _, m := range status.Machines {
		f.ids[m.Label] = m.ID
		if m.Connected {
			n++
		}
	}
	return n
}

// Subject is something on a host, as Fettle names it.
func (f *Fleet) Subject(kind fettle.Kind, h *lab.Host, name string) fettle.Subject {
	f.t.Helper()
	id, ok := f.ids[h.Name()]
	if !ok {
		f.t.Fatalf("%s has not joined", h.Name())
	}
	return fettle.NewSubject(kind, id, name)
}

// Unit is a unit of a host, as Fettle names it.
func (f *Fleet) Unit(h *lab.Host, name string) fettle.Subject {
	f.t.Helper()
	return f.Subject(fettle.KindUnit, h, name)
}

// Command runs fettle on the first host.
func (f *Fleet) command(args ...string) lab.Result {
	f.t.Helper()
	r, err := f.server().Exec(f.t.Context(), append([]string{Program}, args...)...)
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// read runs fettle on the first host and reads its JSON.
func (f *Fleet) read(into any, args ...string) {
	f.t.Helper()
	r := f.command(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(r.Stdout), into); err != nil {
		f.t.Fatalf("fettle %s: exit status %d, %v: %s%s", strings.Join(args, " "), r.Code, err, r.Stdout, r.Stderr)
	}
}

// must runs a command on a host and returns what it printed.
func (f *Fleet) must(h *lab.Host, argv ...string) string {
	f.t.Helper()
	out, err := h.Output(f.t.Context(), argv...)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// Shell runs a script on a host, where every command must succeed, and returns
// what it printed.
func (f *Fleet) Shell(h *lab.Host, script string) string {
	f.t.Helper()
	out, err := h.Shell(f.t.Context(), script)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// show puts what a person would look at first into the test's log.
func (f *Fleet) show() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(f.t.Context()), patience) // a test's own context has ended
	defer cancel()
	for _, h := range f.Hosts() {
		if h.Power() != lab.On {
			continue
		}
		out, err := h.Output(ctx, "journalctl", "-b", "-o", "short-precise", "--no-pager", "-n", "400", "-u", UpUnit, "-u", AgentUnit)
		f.t.Logf("%s: what Fettle logged (%v):\n%s", h.Name(), err, out)
	}
	if f.server().Power() != lab.On {
		return
	}
	script := `for i in $(` + Program + ` incidents --all -o json | jq -r '.[].id'); do ` + Program + ` incident explain $i; done`
	r, err := f.server().Exec(ctx, "sh", "-c", script)
	f.t.Logf("the incidents (%v):\n%s%s", err, r.Stdout, r.Stderr)
}
