package sim

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fettle/internal/fettle"
	fleetserver "fettle/internal/fleet/server"
	"fettle/internal/judge/condition"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
)

// Knowledge is what all runs judge with, compiled once. It may be used by one run at
// a time.
type Knowledge struct {
	Catalogues []fettle.Catalogue
	mind       *incident.Mind
	judge      *condition.Evaluator
	env        *expr.Env
}

// Know compiles catalogues and runbooks, with the careless ones. prepare, if it is
// not nil, is given the mind that all others are made from.
func Know(catalogues []fettle.Catalogue, shipped fs.FS, prepare func(*incident.Mind)) (*Knowledge, error) {
	cats := append(slices.Clone(catalogues), Careless(), fleetserver.Catalogue())
	books, err := Library(shipped)
	if err != nil {
		return nil, err
	}
	k := &Knowledge{Catalogues: cats}
	k.mind, err = incident.New(incident.Options{
		Catalogues: cats, Evaluates: []fettle.Scope{fettle.ClusterScope},
		Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
			return runbook.Load(books, env, cats)
		},
	})
	if err != nil {
		return nil, err
	}
	if prepare != nil {
		prepare(k.mind)
	}
	k.env = k.mind.Env()
	k.judge, err = condition.New(fettle.Join(cats), k.env, fettle.HostScope)
	return k, err
}

// Options is one run.
type Options struct {
	Seed uint64
	// Faults is for how long things break; afterwards everything is put right that
	// nobody but a person could, and Fettle has Calm to mend the rest. 0: two and a
	// half minutes, and four.
	Faults, Calm time.Duration
	// Waive names checks of the agent's side that are left out, to show what they
	// are for: agent-token, agent-key, agent-epoch, agent-head, agent-freeze.
	Waive map[string]bool
	// Trace is shown the story as it happens. nil: nobody is.
	Trace func(string)
	// Often names faults that are to come ten times as often.
	Often []string
	// Events puts every event into the story.
	Events bool
	// Dir is where journals are kept while it runs; "": a folder of its own.
	Dir string
}

// Result is what became of a run.
type Result struct {
	Seed    uint64
	Broken  []Breach
	Hash    string // over every event, in order
	Events  int
	Steps   int // effects of Fettle's on the world
	Mended  int // incidents that ended as mended
	Calls   int // times that a person was called
	Story   []string
	Elapsed time.Duration // pretended
}

// Short is the end of the story, for a failure.
func (r Result) Short(lines int) string {
	return strings.Join(r.Story[max(0, len(r.Story)-lines):], "\n")
}

// Sim is one run.
type Sim struct {
	o       Options
	ctx     context.Context // of everything; ends with the run
	end     context.CancelFunc
	lib     *Knowledge
	e       *engine
	w       *world
	f       faults
	dir     string
	agents  []*agent
	depot   *depot
	servers []*server
	policy  fettle.Policy
	skews   map[string]time.Duration
	lives   int
	signed  map[uint64]bool // epochs that an administrator has signed
	renamed int

	mu      sync.Mutex // what the loop's and the executors' goroutines touch
	board   map[string]incident.Record
	called  map[string]int
	agreed  map[string]time.Time // approvals, by the plan's hash, and until when
	begunBy map[fettle.Subject][]time.Time
	plans   map[string]bool
	flying  map[string]flight
	done    map[string]string // incident, plan and step, and the key that did it
}

// Run runs one seed in a bubble of its own.
func Run(t *testing.T, lib *Knowledge, o Options) Result {
	t.Helper()
	if o.Faults == 0 {
		o.Faults = 150 * time.Second
	}
	if o.Calm == 0 {
		o.Calm = 4 * time.Minute
	}
	var r Result
	synctest.Test(t, func(t *testing.T) { r = run(t, lib, o) })
	return r
}

func run(t *testing.T, lib *Knowledge, o Options) Result {
	t.Helper()
	dir := o.Dir
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp(shm(), "fettle-sim-"); err != nil { //nolint:usetesting // a folder in memory, gone with each of thousands of runs
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
	}
	s := &Sim{
		o: o, lib: lib, e: newEngine(o.Seed, o.Trace), dir: dir, skews: map[string]time.Duration{}, signed: map[uint64]bool{1: true},
		board: map[string]incident.Record{}, called: map[string]int{}, agreed: map[string]time.Time{}, begunBy: map[fettle.Subject][]time.Time{},
		plans: map[string]bool{}, flying: map[string]flight{}, done: map[string]string{},
	}
	s.e.each = o.Events
	s.ctx, s.end = context.WithCancel(context.Background())
	s.found()
	end := s.e.began.Add(o.Faults)
	s.nemesis(end)
	for s.e.step(end) && len(s.e.broken) == 0 {
	}
	if len(s.e.broken) == 0 {
		s.heal()
		calm := end.Add(o.Calm)
		for s.e.step(calm) && len(s.e.broken) == 0 {
		}
		if len(s.e.broken) == 0 {
			s.checkEnd()
		}
	}
	s.close()
	r := Result{Seed: o.Seed, Broken: s.e.broken, Events: s.e.ran, Story: s.e.story, Elapsed: s.e.now().Sub(s.e.began)}
	for _, in := range s.board {
		if in.State == fettle.Resolved {
			r.Mended++
		}
	}
	for _, n := range s.called {
		r.Calls += n
	}
	for _, e := range s.w.effects {
		r.Steps += e.times
	}
	r.Hash = s.e.hash()
	return r
}

// shm is a folder in memory where there is one: a journal's syncs are of no
// interest here.
func shm() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// found makes the world and the fleet.
func (s *Sim) found() {
	r := s.e.rng
	w := &world{e: s.e, cut: map[[2]string]bool{}, effects: map[string]*effect{}}
	w.changed = s.changed
	s.w = w
	n := 3
	if r.IntN(4) == 0 {
		n = 5
	}
	for i := range n {
		h := &host{w: w, name: "h" + itoa(i+1), rack: "r1", on: true, boot: 1}
		h.id = h.name
		h.skew = time.Duration(r.Int64N(int64(4*time.Minute))) - 2*time.Minute
		h.ppm = r.Int64N(200) - 100
		h.disk = &disk{host: h, kept: 100}
		h.units = append(h.units, &unit{host: h, name: "web.service", state: "active", result: "success", wasActive: true, health: true})
		w.hosts = append(w.hosts, h)
	}
	c := &cluster{w: w, name: "sys"}
	for i, h := range w.hosts {
		u := &unit{host: h, name: "etcd.service", state: "active", result: "success", wasActive: true}
		h.units = append(h.units, u)
		m := &member{c: c, name: string(rune('a' + i)), unit: u, state: "new"}
		u.member = m
		c.members = append(c.members, m)
		id := c.mint(m)
		m.data = &data{id: id}
		c.config = append(c.config, seat{id: id, member: m, voter: true, joined: true})
	}
	w.clusters = append(w.clusters, c)
	w.copies = &copies{hosts: w.hosts[:3], insync: []bool{true, true, true}, minimum: 2, stale: -1}
	s.policy = s.drawPolicy()
	s.depot = newDepot(s, r.IntN(3) == 0 || slices.Contains(s.o.Often, "copy of the store put back"))
	for _, name := range []string{"s1", "s2"} {
		s.servers = append(s.servers, &server{name: name, on: true})
		s.skews[name] = time.Duration(r.Int64N(int64(2 * time.Second)))
	}
	c.settle()
	s.lead(s.servers[0])
	for _, h := range w.hosts {
		s.newAgent(h)
	}
	s.client()
	s.elect()
	s.persons()
}

func (s *Sim) newAgent(h *host) {
	a := &agent{h: h, memory: map[fettle.ConditionKey]fettle.Condition{}}
	s.agents = append(s.agents, a)
	s.startAgent(a)
}

func (s *Sim) drawPolicy() fettle.Policy {
	p := fettle.Policy{
		Budgets: []fettle.Budget{{Kind: fettle.KindHost, Pool: ">in", MaxNumber: 1, MaxPermille: 1000, Floor: 1, MinStay: 2}},
		Hash:    fmt.Sprint("policy ", s.e.rng.IntN(2)),
	}
	if p.Hash == "policy 1" {
		p.Rules = []fettle.PolicyRule{{Runbook: "*", Rung: "*", Subject: "*", Level: fettle.Automatic}}
	}
	return p
}

// client writes to the clusters once a second.
func (s *Sim) client() {
	s.e.post("client", exactly(time.Second), func() {
		for _, c := range s.w.clusters {
			c.write()
		}
		s.client()
	})
}

// elect lets a server lead where none does, or where who does has lost the store
// for so long that its lease has ended.
func (s *Sim) elect() {
	s.e.post("election", spread{time.Second, 3 * time.Second}, func() {
		s.election()
		s.elect()
	})
}

func (s *Sim) election() {
	for _, srv := range s.servers {
		if srv.proc != nil && srv.proc.leads && srv.proc.resigned.IsZero() && s.w.linked(srv.name, "store") {
			return
		}
	}
	for _, srv := range s.servers {
		if srv.on && srv.proc == nil && s.w.linked(srv.name, "store") && !s.depot.refuses {
			s.lead(srv)
			return
		}
	}
}

// changed has the agent of a host told of a change, and the others that would be
// told of it.
func (s *Sim) changed(h *host) {
	for _, a := range s.agents {
		if a.h != h || a.proc == nil {
			continue
		}
		p := a.proc
		s.e.post("change on "+h.name, spread{5 * time.Millisecond, 50 * time.Millisecond}, func() {
			if !p.dead && !a.slow {
				p.look(p.clock.Now(), func(o fettle.Observation) bool { return stage(o.Probe) != 2 || o.Probe == "etcd.cluster" })
			}
		})
	}
}

// close ends everything that runs.
func (s *Sim) close() {
	for _, srv := range s.servers {
		if srv.proc != nil {
			s.killServer(srv.proc)
		}
	}
	for _, a := range s.agents {
		s.killAgent(a, "the end")
	}
	s.end()
	synctest.Wait()
}

func (s *Sim) delay() spread { return s.f.delay }

func (s *Sim) chance(permille int) bool { return permille > 0 && s.e.rng.IntN(1000) < permille }

// noted tells what became of an incident. Called by the loop, before it is durable.
func (s *Sim) noted(r incident.Record, events []fettle.Event) {
	for _, e := range events {
		text := e.Text
		for _, v := range e.Verdicts {
			if !v.Allow {
				text += " [" + v.Guard + ": " + v.Why + " " + v.Arithmetic + "]"
			}
		}
		s.e.tell("  %s on %s: %s %s %s", r.ID, r.Cause.String(), e.Kind, e.Key, text)
	}
}

// committed is how incidents stand by what is durable.
func (s *Sim) committed(records []incident.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		s.board[r.ID] = r
	}
}

// loaded is what a new leader knows of incidents.
func (s *Sim) loaded(records []incident.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.board)
	for _, r := range records {
		s.board[r.ID] = r
	}
}

func (s *Sim) calledFor(id, text string) {
	s.mu.Lock()
	s.called[id]++
	s.mu.Unlock()
	s.e.tell("  %s: a person is called: %s", id, text)
}

func (s *Sim) became(key string) *effect {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.effects[key]
}
