package spine

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/labtest"
)

// Where things are in a host.
const (
	Program     = "/usr/local/bin/fettle"
	StateDir    = "/var/lib/fettle"
	policyFile  = "/etc/fettle/policy.yaml"
	actionsFile = "/etc/fettle/actions.yaml"
	configDir   = "/etc/fettle/adapters"
	port        = "7401"
)

// The units that run Fettle in the hosts: server and agent in one on h1 and the
// agent on the others, or, where there are several servers, these on the first hosts
// and the agent on all. They have no restart policy: a test that kills them starts
// them again, or Fettle does.
const (
	UpUnit     = "fettle-up.service"
	ServerUnit = "fettle-server.service"
	AgentUnit  = "fettle-agent.service"
	// ExecutorUnit is root's part of an agent, of a fleet that is split.
	ExecutorUnit = "fettle-executor.service"
)

// joinFile holds the token with which a further server joins, at its first start.
const joinFile = "/run/fettle-join"

// storeFile sets what Options.Store names, where that differs from test to test.
const storeFile = "/etc/fettle/store/env"

// Options is how a fleet is started.
type Options struct {
	Binary   string                       // made by Build
	Others   string                       // binary of another version, for all hosts but h1; "": Binary
	Servers  int                          // that `fettle server` runs on; 0: none, `fettle up` runs on h1
	Store    string                       // arguments of every server that name an existing etcd as the store; "": one of their own
	Split    bool                         // server and agents run under the packaged units: no root but the executor's; Servers is 1
	Actions  string                       // YAML of /etc/fettle/actions.yaml; empty: everything where there is a policy and no Split, else none
	Policy   string                       // YAML of /etc/fettle/policy.yaml; empty: none, what is shipped holds
	Adapters map[string]map[string]string // host ("h1") to file name ("systemd.yaml") to its content
	Prepare  func(*lab.Lab)               // called when the hosts run, before Fettle does
}

// Fleet is a lab that Fettle looks after. Its methods fail the test if what they
// ask cannot be asked. They may be called by one goroutine at a time.
type Fleet struct {
	*lab.Lab
	t       testing.TB
	servers int
	store   string
	split   bool
	asked   int               // which of the servers' hosts answered last
	ids     map[string]string // host name to the identity that it was given
}

// Start boots that many hosts, starts Fettle on all of them and returns when the
// server knows what all its agents see. Everything goes when the test ends; if it failed, first
// what Fettle logged and the incidents' stories go into the test's log.
func Start(t testing.TB, hosts int, o Options) *Fleet {
	t.Helper()
	f := &Fleet{Lab: labtest.Start(t, lab.Config{Hosts: hosts}), t: t, servers: o.Servers, store: o.Store, split: o.Split, ids: map[string]string{}}
	t.Cleanup(func() {
		if t.Failed() {
			f.show()
		}
	})
	if o.Prepare != nil {
		o.Prepare(f.Lab)
	}
	if o.Split && o.Servers != 1 {
		t.Fatal("a fleet that is split has one server here")
	}
	f.each(func(h *lab.Host) error { return f.install(h, o) })
	f.must(f.Host(1), "systemctl", "start", f.serverUnit())
	f.WaitServer()
	for _, h := range f.Hosts()[:max(1, f.servers)][1:] {
		f.joinServer(h)
	}
	f.each(func(h *lab.Host) error {
		if f.servers == 0 && h == f.Host(1) {
			return nil
		}
		return f.join(h)
	})
	f.WaitReady()
	return f
}

// serverUnit is the unit of a host that runs a server.
func (f *Fleet) serverUnit() string {
	if f.servers > 0 {
		return ServerUnit
	}
	return UpUnit
}

// joinServer makes a host one of the fleet's servers, as a person would.
func (f *Fleet) joinServer(h *lab.Host) {
	f.t.Helper()
	token := f.must(f.Host(1), Program, "token", "--server-token", "--address", f.Host(1).Addr().String()+":"+port)
	f.Write(h, joinFile, "JOIN=--join "+token+"\n")
	f.must(h, "systemctl", "start", ServerUnit)
	Until(f.t, h.Name()+" to be a server with a vote", func() bool {
		f.alive(h, ServerUnit)
		for _, s := range f.Servers() {
			if s.Label == h.Name() {
				return !s.Learner && s.Address != ""
			}
		}
		return false
	})
	f.must(h, "rm", joinFile)
}

// AddServer makes one more host a server of the fleet.
func (f *Fleet) AddServer(h *lab.Host) {
	f.t.Helper()
	if err := f.unit(h, ServerUnit, f.serverCommand(h)); err != nil {
		f.t.Fatal(err)
	}
	f.must(h, "systemctl", "daemon-reload")
	f.joinServer(h)
}

// Server is one of several servers, as `fettle servers` tells of it.
type Server struct {
	ID, Label, Address string
	Leader, Learner    bool
}

// Servers are the fleet's servers. None, where nobody answers at present.
func (f *Fleet) Servers() []Server {
	f.t.Helper()
	var list []Server
	r := f.command("servers", "-o", "json")
	if r.Code == 0 {
		if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil {
			f.t.Fatalf("fettle servers: %v: %s", err, r.Stdout)
		}
	}
	return list
}

// Leader is the host of the server that leads, nil where none does at present.
func (f *Fleet) Leader() *lab.Host {
	f.t.Helper()
	for _, s := range f.Servers() {
		for _, h := range f.Hosts() {
			if s.Leader && s.Label == h.Name() {
				return h
			}
		}
	}
	return nil
}

// WaitReady waits until the server knows what all agents see, after it or they
// were started.
func (f *Fleet) WaitReady() {
	f.t.Helper()
	f.WaitServer()
	Until(f.t, "all agents to be connected", func() bool { return len(f.connected()) == len(f.Hosts()) })
	Until(f.t, "all agents to have told what they see", func() bool {
		leads := f.Host(1)
		if f.servers > 0 {
			if leads = f.Leader(); leads == nil {
				return false
			}
		}
		id := f.Property(leads, f.serverUnit(), "InvocationID")
		log := f.must(leads, "journalctl", "-b", "-o", "cat", "--no-pager", "_SYSTEMD_INVOCATION_ID="+id)
		return strings.Count(log, saidAll) >= len(f.Hosts())
	})
}

// WaitServer waits until a server answers.
func (f *Fleet) WaitServer() {
	f.t.Helper()
	Until(f.t, "the server to answer", func() bool {
		f.alive(f.Host(1), f.serverUnit())
		return f.command("status").Code != noContact
	})
}

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
	binary := o.Binary
	if o.Others != "" && h != f.Host(1) {
		binary = o.Others
	}
	if err := h.CopyIn(binary, Program); err != nil {
		return err
	}
	run := map[string]string{}
	switch i := slices.Index(f.Hosts(), h); {
	case f.split:
		if err := f.packaged(h, i == 0); err != nil {
			return err
		}
	case f.servers == 0 && i == 0:
		run[UpUnit] = fmt.Sprintf("up -v --listen %s:%s", h.Addr(), port)
	case i < f.servers:
		run[ServerUnit] = f.serverCommand(h)
		fallthrough
	default:
		run[AgentUnit] = "agent -v"
	}
	for unit, args := range run {
		if err := f.unit(h, unit, args); err != nil {
			return err
		}
	}
	files := map[string]string{}
	if o.Policy != "" {
		files[policyFile] = o.Policy
		if !o.Split && o.Actions == "" {
			o.Actions = "allow: [\"*\"]\n" // what the policy makes automatic is meant
		}
	}
	if o.Actions != "" {
		files[actionsFile] = o.Actions
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

// packaged installs the units that are shipped, as a person would.
func (f *Fleet) packaged(h *lab.Host, server bool) error {
	parts := []string{"agent"}
	if server {
		parts = append(parts, "server")
		if err := h.WriteFile("/etc/default/fettle-server", fmt.Appendf(nil, "ARGS=-v --listen %s:%s\n", h.Addr(), port), 0o644); err != nil {
			return err
		}
	}
	for _, name := range []string{"agent", "executor"} {
		if err := h.WriteFile("/etc/default/fettle-"+name, []byte("ARGS=-v\n"), 0o644); err != nil {
			return err
		}
	}
	if _, err := h.Output(f.t.Context(), append([]string{Program, "install"}, parts...)...); err != nil {
		return err
	}
	_, err := h.Output(f.t.Context(), "systemd-sysusers")
	return err
}

// serverCommand is how a host runs one of several servers.
func (f *Fleet) serverCommand(h *lab.Host) string {
	return fmt.Sprintf("server -v --listen %s:%s %s $JOIN\nEnvironmentFile=-%s\nEnvironmentFile=-%s", h.Addr(), port, f.store, joinFile, storeFile)
}

// unit writes the unit file of a part of Fettle.
func (f *Fleet) unit(h *lab.Host, name, args string) error {
	return h.WriteFile("/etc/systemd/system/"+name, []byte("[Unit]\nDescription=Fettle\n[Service]\nType=exec\nExecStart="+Program+" "+args+"\n"), 0o644)
}

// join makes a host part of the fleet, as a person would.
func (f *Fleet) join(h *lab.Host) error {
	ctx := f.t.Context()
	first := f.Host(1)
	token, err := first.Output(ctx, Program, "token", "--address", first.Addr().String()+":"+port)
	if err != nil {
		return err
	}
	join := []string{Program, "join", token}
	if f.split {
		join = append(join, "--user", "fettle")
	}
	if _, err := h.Output(ctx, join...); err != nil {
		return err
	}
	_, err = h.Output(ctx, "systemctl", "start", AgentUnit) // the executor's unit with it, if there is one
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

// Connected reports whether the agent of a host has a session with the server.
func (f *Fleet) Connected(h *lab.Host) bool {
	f.t.Helper()
	return slices.Contains(f.connected(), h.Name())
}

// connected are the labels of the hosts that the server has; it learns their identities.
func (f *Fleet) connected() []string {
	f.t.Helper()
	var status struct {
		Machines []struct {
			ID, Label string
			Connected bool
		}
	}
	f.read(&status, "status")
	var labels []string
	for _, m := range status.Machines {
		f.ids[m.Label] = m.ID
		if m.Connected {
			labels = append(labels, m.Label)
		}
	}
	return labels
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

// Command runs fettle on the first host; of several servers on one that answers.
func (f *Fleet) command(args ...string) lab.Result {
	f.t.Helper()
	r := lab.Result{Code: noContact, Stderr: "no server runs"}
	for range max(1, f.servers) {
		if h := f.Hosts()[f.asked]; h.Power() == lab.On {
			var err error
			if r, err = h.Exec(f.t.Context(), append([]string{Program}, args...)...); err != nil {
				f.t.Fatal(err)
			}
			if r.Code != noContact {
				break
			}
		}
		f.asked = (f.asked + 1) % max(1, f.servers)
	}
	return r
}

// read runs fettle and reads its JSON.
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
		out, err := h.Output(ctx, "journalctl", "-b", "-o", "short-precise", "--no-pager", "-n", "400", "-u", UpUnit, "-u", ServerUnit, "-u", AgentUnit, "-u", ExecutorUnit)
		f.t.Logf("%s: what Fettle logged (%v):\n%s", h.Name(), err, out)
	}
	script := `for i in $(` + Program + ` incidents --all -o json | jq -r '.[].id'); do ` + Program + ` incident explain $i; done`
	for _, h := range f.Hosts()[:max(1, f.servers)] {
		if h.Power() != lab.On {
			continue
		}
		r, err := h.Exec(ctx, "sh", "-c", script)
		f.t.Logf("the incidents (%v):\n%s%s", err, r.Stdout, r.Stderr)
		if err == nil && r.Stdout != "" {
			break
		}
	}
}
