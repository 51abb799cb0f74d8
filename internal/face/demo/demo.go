// Package demo breaks a real three-member etcd cluster on this machine, one way
// after another, and lets Fettle mend it before the viewer's eyes: the same
// judge, runbooks and adapter as anywhere, over the same sockets and
// certificates, without root.
//
// The members are child processes that run etcd's own main function. Each has a
// host of its own, with an agent, as far as Fettle can tell. Clients write and
// read all the time; at the end every acknowledged write is looked up, key and
// value, on every member.
//
// Nothing here decides or repairs anything: it breaks, waits, prints and counts.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"fettle/internal/face/control"
	"fettle/internal/face/show"
	"fettle/internal/face/single"
	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
	"fettle/internal/loop"
	"fettle/internal/machine"
	"fettle/internal/machine/linuxmachine"
	"fettle/internal/machine/procservices"
)

// Policy is the demo's policy file, shown before anything is broken. The shipped
// default asks a person before a member is removed; here nobody would answer, so
// the viewer is shown that this file lets Fettle go on.
const Policy = `# What Fettle may do by itself in this demo. Out of the box it would ask before
# it removes a member, compacts history or defragments; this file permits that.
# What loses something for good always asks, whatever a policy says.
autonomy:
  - {runbook: "*", rung: "*", subject: "*", level: automatic}
budgets:
  - {kind: etcd-member, pool: ">part-of", max_number: 1, max_permille: 340, floor: 1, min_stay: 2}
rate: {per_subject: 10, per_fleet: 50, window: 1h}
`

// Options is what the demo needs.
type Options struct {
	Adapters []machine.Adapter
	Books    func(*expr.Env, []fettle.Catalogue) (*runbook.Set, error)
	Self     string   // this program
	EtcdArgs []string // that make it an etcd server
	Record   string   // folder for a recording; "": none
	Keep     bool     // leave the demo's folder in place
	Version  string
	Printer  *show.Printer // what people see; nil: nothing
}

// Report is what came of it.
type Report struct {
	Results  []Result      `json:"results"`
	Took     time.Duration `json:"took_ns"`
	Recorded string        `json:"recorded,omitempty"`
	Dir      string        `json:"dir,omitempty"`
}

// Failed reports whether anything did not go as it must.
func (r Report) Failed() bool {
	for _, x := range r.Results {
		if x.Outcome == "failed" || x.Lost > 0 {
			return true
		}
	}
	return len(r.Results) != len(scenes())
}

// Run plays the demo. An error means that it could not be played.
func Run(ctx context.Context, o Options) (report Report, err error) {
	begin := time.Now()
	dir, err := os.MkdirTemp("", "fettle-demo-")
	if err != nil {
		return Report{}, fmt.Errorf("make the demo's folder: %w", err)
	}
	if o.Keep {
		report.Dir = dir
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	host, err := linuxmachine.Open(ctx, linuxmachine.Config{Host: "demo"})
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	d := &player{o: o, dir: dir, host: host, watch: newWatch(), recorder: &loop.Recorder{}}
	d.services = procservices.New(host.Ports().Clock.Now)
	report.Results, err = d.play(ctx)
	if err == nil && o.Record != "" {
		report.Recorded, err = d.record(o.Record)
	}
	report.Took = time.Since(begin)
	return report, err
}

// player is one performance.
type player struct {
	o         Options
	dir       string
	host      *linuxmachine.Host
	services  *procservices.Services
	watch     *watch
	recorder  *loop.Recorder
	recording incident.Recording
}

func (d *player) play(ctx context.Context) (results []Result, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	policy, err := runbook.ParsePolicy("policy.yaml", []byte(Policy))
	if err != nil {
		return nil, err
	}
	c, err := newCluster(d.dir, d.services, d.o.Self, d.o.EtcdArgs)
	if err != nil {
		return nil, err
	}
	fleet, err := d.fleet(ctx, c, policy)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fleet.Close()) }()
	// Everything that runs: the members' service manager, Fettle, the clients.
	// They are stopped in the opposite order, and waited for.
	l := newLoad(c.endpoints())
	var group sync.WaitGroup
	var mu sync.Mutex
	var failed error
	run := func(ctx context.Context, name string, do func(context.Context) error) {
		group.Go(func() {
			if err := do(ctx); err != nil && ctx.Err() == nil {
				mu.Lock()
				failed = errors.Join(failed, fmt.Errorf("%s: %w", name, err))
				mu.Unlock()
				cancel()
			}
		})
	}
	defer func() {
		cancel()
		group.Wait()
		mu.Lock()
		err = errors.Join(err, failed)
		mu.Unlock()
	}()
	run(ctx, "etcd members", d.services.Run)
	startCtx, done := context.WithTimeout(ctx, 30*time.Second)
	defer done()
	d.say("Starting three etcd members on loopback …")
	if err := c.start(startCtx); err != nil {
		return nil, err
	}
	run(ctx, "fettle", fleet.Run)
	run(ctx, "clients", l.Run)
	run(ctx, "narrator", d.narrate)
	s := &stage{cluster: c, load: l, watch: d.watch, out: d.writer()}
	d.intro(policy)
	if err := d.ready(ctx, fleet); err != nil {
		return nil, err
	}
	for _, sc := range scenes() {
		d.curtain(sc)
		r := s.play(ctx, sc)
		if !sc.refused && r.Outcome != "failed" {
			auditCtx, end := context.WithTimeout(ctx, 20*time.Second)
			if err := caughtUp(auditCtx, c.members); err != nil {
				r.Outcome, r.Wrong = "failed", err.Error()
			}
			s.audit(auditCtx, &r, c.members)
			end()
		}
		results = append(results, r)
		d.settle(ctx)
		if r.Outcome == "failed" {
			break
		}
	}
	if err := fleet.Loop().Ask(ctx, func(m *incident.Mind) { d.recording = d.recorder.Recording(m) }); err != nil {
		return results, err
	}
	return results, nil
}

// fleet is Fettle with one agent for each member.
func (d *player) fleet(ctx context.Context, c *cluster, policy fettle.Policy) (*single.Fleet, error) {
	var agents []single.Agent
	for _, m := range c.members {
		agentDir := filepath.Join(d.dir, "fettle", m.host)
		conf := filepath.Join(d.dir, "conf", m.host)
		if err := os.MkdirAll(conf, 0o700); err != nil {
			return nil, fmt.Errorf("configure the agent of %s: %w", m.host, err)
		}
		for name, text := range map[string][]byte{
			"etcd-demo.yaml": c.config(m),
			// Each agent looks after its own member's service and nothing else
			// of this machine.
			"systemd-demo.yaml":    fmt.Appendf(nil, "units: [%q]\n", m.unit),
			"filesystem-demo.yaml": []byte("types: [none]\n"),
		} {
			if err := os.WriteFile(filepath.Join(conf, name), text, 0o600); err != nil {
				return nil, fmt.Errorf("configure the agent of %s: %w", m.host, err)
			}
		}
		agents = append(agents, single.Agent{Label: m.host, Dir: agentDir, ConfigDir: conf, Machine: d.machine(agentDir)})
	}
	return single.Open(ctx, single.Options{Agents: agents, Options: control.Options{
		Dir: filepath.Join(d.dir, "fettle"), Listen: "127.0.0.1:0", Label: "demo", Adapters: d.o.Adapters, Books: d.o.Books, Policy: policy,
		Clock: d.host.Ports().Clock, Version: d.o.Version, OnChange: d.watch.onChange, Recorder: d.recorder,
	}})
}

// machine is this machine, with the demo's child processes in the place of
// systemd.
func (d *player) machine(dir string) func(context.Context, string) (machine.Machine, func() error, error) {
	return func(ctx context.Context, host string) (machine.Machine, func() error, error) {
		h, err := linuxmachine.Open(ctx, linuxmachine.Config{Host: host, StateDir: dir})
		if err != nil {
			return machine.Machine{}, nil, err
		}
		m := h.Ports()
		m.Services = d.services
		return m, h.Close, nil
	}
}

// ready waits until all three agents see the whole cluster as healthy.
func (d *player) ready(ctx context.Context, fleet *single.Fleet) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		serving, raised := 0, 0
		err := fleet.Loop().Ask(ctx, func(m *incident.Mind) {
			if g, ok := m.View().Quorum(fettle.NewSubject("etcd", "demo"), time.Time{}); ok {
				serving = g.ServingVotes()
				for _, x := range g.Members {
					if x.LogLost == fettle.Unknown {
						serving = 0
					}
				}
			}
			raised = len(m.View().Raised())
		})
		switch {
		case err != nil:
			return fmt.Errorf("wait for the agents: %w", err)
		case serving == 3 && raised == 0:
			return nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return errors.New("the agents did not come to see a healthy cluster within 30 s")
		}
	}
}

// record writes the recording where replay finds it.
func (d *player) record(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("record: %w", err)
	}
	data, err := json.Marshal(d.recording)
	if err != nil {
		return "", fmt.Errorf("record: %w", err)
	}
	file := filepath.Join(dir, "demo.json")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return "", fmt.Errorf("record: %w", err)
	}
	return file, nil
}
