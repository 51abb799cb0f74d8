package whole_test

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"fettle/internal/adapter/systemd"
	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
	"fettle/runbooks"
)

// secret is what services say in their logs, and nobody may hear.
const secret = "hunter2-f00d"

// library is what is judged with, compiled once for all servers.
type library struct {
	catalogues []fettle.Catalogue
	books      fs.FS
	mind       *incident.Mind
}

func know(t *testing.T) *library {
	t.Helper()
	books := fstest.MapFS{"ballot/stale.yaml": &fstest.MapFile{Data: []byte(ballotBook)}}
	names, err := fs.Glob(runbooks.FS(), "systemd/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := fs.ReadFile(runbooks.FS(), name)
		if err != nil {
			t.Fatal(err)
		}
		books[name] = &fstest.MapFile{Data: data}
	}
	lib := &library{catalogues: []fettle.Catalogue{server.Catalogue(), systemd.Catalogue(), ballotCatalogue()}, books: books}
	lib.mind, err = incident.New(incident.Options{
		Catalogues: lib.catalogues, Evaluates: []fettle.Scope{fettle.ClusterScope},
		Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
			return runbook.Load(books, env, cats)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return lib
}

// options is one run.
type options struct {
	Seed   uint64
	Hosts  int
	Nodes  int
	Votes  int           // of the hosts have a voter
	Plain  bool          // agents do nothing alone
	Exact  bool          // clocks are right
	Apart  time.Duration // between two faults, besides what is drawn
	Trace  bool          // tell the story as it happens
	Script func(*run)
}

// run is a fleet in a bubble.
type run struct {
	o     options
	t     *testing.T
	rng   *rand.Rand // the driver's only
	began time.Time
	dir   string
	lib   *library
	ca    *pki.CA
	admin *pki.Identity
	ctx   context.Context // of what the faults run
	end   context.CancelFunc
	over  bool // nothing starts any more
	net   *network
	depot *depot
	nodes []*node
	hosts []*host
	group sync.WaitGroup

	policy   fettle.Policy
	adminOff time.Duration
	lost     map[string]bool // keys of what was done on a host that was imaged anew
	restores int             // copies of the store that were put back
	forked   bool            // the last of them without an administrator's word

	mu      sync.Mutex
	broken  []string
	story   []string
	turned  chan struct{}
	touches map[string]int // by key
	effects []effect       // in order
	board   map[string]incident.Record
	calls   map[string]int
	flying  map[string]fettle.Dispatch // intents whose outcome is not known
}

// effect is one thing that was done to a machine.
type effect struct {
	at                            time.Duration
	host, id, key, action, target string
	alone, undo                   bool
}

// result is what became of a run.
type result struct {
	Broken  []string
	Story   []string
	Effects []effect
	Board   map[string]incident.Record
	Calls   int
	Fake    time.Duration
	Names   map[string]bool // of the hosts that were there from the beginning
}

func play(t *testing.T, lib *library, o options) result {
	t.Helper()
	var out result
	dir, err := os.MkdirTemp(shm(), "fettle-whole-") //nolint:usetesting // a folder in memory, gone with each of many runs
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	synctest.Test(t, func(t *testing.T) {
		r := &run{
			o: o, t: t, lib: lib, dir: dir, rng: rand.New(rand.NewPCG(o.Seed, 0x407e)), began: time.Now(), turned: make(chan struct{}),
			touches: map[string]int{}, board: map[string]incident.Record{}, calls: map[string]int{}, flying: map[string]fettle.Dispatch{}, lost: map[string]bool{}, net: newNetwork(o.Seed),
		}
		r.ctx, r.end = context.WithCancel(context.Background())
		if err := r.found(); err != nil {
			t.Fatal(err)
		}
		o.Script(r)
		r.close()
		out = result{Broken: r.broken, Story: r.story, Effects: r.effects, Board: r.board, Fake: time.Since(r.began)}
		out.Names = map[string]bool{"b": true}
		for _, h := range r.hosts {
			out.Names[h.name] = true
		}
		for _, n := range r.calls {
			out.Calls += n
		}
	})
	return out
}

// shm is a folder in memory where there is one.
func shm() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// found makes the fleet and starts it.
func (r *run) found() error {
	var err error
	if r.ca, err = pki.Init(filepath.Join(r.dir, "ca"), r.began.Add(-10*time.Minute)); err != nil {
		return err
	}
	if r.admin, err = r.ca.Mint(pki.RoleAdmin, "ann", r.began.Add(-10*time.Minute), 240*time.Hour); err != nil {
		return err
	}
	r.policy = fettle.Policy{
		Rules: []fettle.PolicyRule{{Runbook: "*", Rung: "*", Subject: "*", Level: fettle.Automatic}},
		Rate:  fettle.Rate{PerFleet: 100000}, Hash: "whole",
	}
	r.depot = newDepot(r)
	for i := range r.o.Nodes {
		n := &node{r: r, name: fmt.Sprintf("s%d", i+1), clock: r.skewed()}
		n.clock.offset /= 60 // servers have a time source: two seconds at most
		if _, err := r.ca.Issue(filepath.Join(r.dir, n.name), pki.RoleServer, n.name+"id", r.began.Add(-10*time.Minute), pki.ServerLife); err != nil {
			return err
		}
		r.enter("servers", n.name+"id", n.name)
		r.nodes = append(r.nodes, n)
	}
	for i := range r.o.Hosts {
		r.hosts = append(r.hosts, r.newHost(fmt.Sprintf("h%04d", i+1), i < r.o.Votes))
	}
	for _, n := range r.nodes {
		n.start()
	}
	for _, h := range r.hosts {
		h.start()
	}
	return nil
}

// enter puts a machine into the register.
func (r *run) enter(kind, id, label string) {
	data, err := json.Marshal(pki.Host{Schema: 1, ID: id, Label: label, Joined: time.Now()})
	if err == nil {
		err = r.depot.put(kind, id, data)
	}
	if err != nil {
		r.breaks("sim", "%s is not in the register: %v", id, err)
	}
}

// skewed is a clock that is wrong by up to two minutes and a hundred millionths.
func (r *run) skewed() *clock {
	c := &clock{began: r.began}
	if !r.o.Exact {
		c.offset = time.Duration(r.rng.Int64N(int64(4*time.Minute))) - 2*time.Minute
		c.ppm = r.rng.Int64N(200) - 100
	}
	return c
}

// close ends everything that runs.
func (r *run) close() {
	r.end()
	synctest.Wait()
	r.over = true
	for _, h := range r.hosts {
		if l := h.alive(); l != nil {
			l.stop()
		}
	}
	for _, h := range r.hosts {
		h.halt()
	}
	for _, n := range r.nodes {
		n.kill()
	}
	r.group.Wait()
}

// elapsed is how long the run has lasted, in the bubble.
func (r *run) elapsed() time.Duration { return time.Since(r.began) }

// pass lets time pass, which takes none.
func (r *run) pass(d time.Duration) { _ = sleep(context.Background(), d) }

// later is a time drawn by the seed and what it is for, whatever came before.
func (r *run) later(what string, least, most time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%d %s", r.o.Seed, what)
	return least + time.Duration(h.Sum64()>>1)%max(1, most-least)
}

func (r *run) voters() []*host {
	return slices.DeleteFunc(slices.Clone(r.hosts), func(h *host) bool { return !h.votes })
}

// turn wakes those who watch the votes.
func (r *run) turn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.turned)
	r.turned = make(chan struct{})
}

func (r *run) turning() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.turned
}

// tell adds a line to the story.
func (r *run) tell(format string, args ...any) {
	r.note(format, args...)
}

func (r *run) note(format string, args ...any) {
	line := fmt.Sprintf("%9.3f  ", time.Since(r.began).Seconds()) + fmt.Sprintf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.story = append(r.story, line)
	if r.o.Trace {
		r.t.Log(line)
	}
}

// breaks notes that an invariant is broken.
func (r *run) breaks(invariant, format string, args ...any) {
	text := invariant + ": " + fmt.Sprintf(format, args...)
	r.note("BROKEN %s", text)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = append(r.broken, text)
}

// log is the log of a process. It is looked through for secrets, and told with the story.
func (r *run) log(name string) *slog.Logger { return slog.New(&logHandler{r: r, name: name}) }

type logHandler struct {
	r    *run
	name string
	with []slog.Attr
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h *logHandler) Handle(_ context.Context, rec slog.Record) error {
	var b strings.Builder
	b.WriteString(rec.Message)
	add := func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		return true
	}
	for _, a := range h.with {
		add(a)
	}
	rec.Attrs(add)
	if strings.Contains(b.String(), secret) {
		h.r.breaks("S14", "a secret is in the log of %s: %s", h.name, b.String())
	}
	if strings.Contains(b.String(), "panicked") {
		h.r.breaks("sim", "%s: %s", h.name, b.String())
	}
	if h.r.o.Trace || rec.Level >= slog.LevelWarn {
		h.r.note("  %s: %s", h.name, b.String())
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(list []slog.Attr) slog.Handler {
	return &logHandler{r: h.r, name: h.name, with: append(slices.Clone(h.with), list...)}
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(string) slog.Handler { return h }
