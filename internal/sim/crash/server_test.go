package crash

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"fettle/internal/act/journal"
	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/store"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
	"fettle/internal/loop"
	"fettle/runbooks"
)

const serverName = "server"

// said is one line that a server tells its parent: what is durable, or how it
// stands.
type said struct {
	Records []standing `json:"records,omitempty"`
	Seen    bool       `json:"seen,omitempty"`  // in this life everything was seen once
	State   *state     `json:"state,omitempty"` // the answer to a question
}

// standing is where an incident stands.
type standing struct {
	ID       string               `json:"id"`
	Cause    fettle.ConditionKey  `json:"cause"`
	State    fettle.IncidentState `json:"state"`
	Why      string               `json:"why,omitempty"`
	Plan     string               `json:"plan,omitempty"` // hash
	Runbook  string               `json:"runbook,omitempty"`
	Rung     string               `json:"rung,omitempty"`
	Approved bool                 `json:"approved,omitempty"`
}

// state is everything that a mind thinks at one time.
type state struct {
	Incidents []standing            `json:"incidents"`
	Raised    []fettle.ConditionKey `json:"raised"`
}

func standingOf(in fettle.Incident) standing {
	s := standing{ID: in.ID, Cause: in.Cause, State: in.State, Why: in.Why}
	if in.Plan != nil {
		s.Plan, s.Runbook, s.Rung = in.Plan.Hash, in.Plan.Runbook, in.Plan.Rung
	}
	return s
}

func openStore(ctx context.Context, kind, dir, fleet string) (loop.Store, error) {
	path := filepath.Join(dir, "store")
	if kind == "etcd" {
		return store.OpenEtcd(ctx, store.EtcdOptions{Dir: path, Fleet: fleet})
	}
	return store.OpenFile(ctx, path, fleet, journal.Options{})
}

// newMind is the mind that a server here judges with: everything that is shipped.
// It judges the conditions of the given scopes itself; none: all.
func newMind(policy fettle.Policy, scopes ...fettle.Scope) (*incident.Mind, error) {
	return incident.New(incident.Options{
		Catalogues: shipped(), Policy: policy, Evaluates: scopes,
		Books: shippedBooks,
	})
}

func shippedBooks(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
	return runbook.Load(runbooks.FS(), env, cats)
}

// serve is the server's life.
func serve(ctx context.Context, b brief, f *fate, log *slog.Logger) error {
	ca, err := pki.Open(caDir(b.Dir))
	if err != nil {
		return err
	}
	data, err := os.ReadFile(policyFile(b.Dir))
	if err != nil {
		return err
	}
	var policy fettle.Policy
	if err := json.Unmarshal(data, &policy); err != nil {
		return err
	}
	mind, err := newMind(policy, fettle.ClusterScope)
	if err != nil {
		return err
	}
	first, err := (&machines{path: machinesFile(b.Dir)}).read()
	if err != nil {
		return err
	}
	disk, err := openStore(ctx, b.Store, b.Dir, ca.Fleet())
	if err != nil {
		return err
	}
	srv, err := server.New(server.Options{
		CA: ca, Register: pki.NewRegister(ca, pki.Folder(caDir(b.Dir))), Dir: filepath.Join(b.Dir, "server"), History: disk, Catalogues: shipped(), Clock: b.Clock, Log: log, Version: "crash",
		// As long outside as in a real fleet: a busy machine that does not answer
		// in time is not what is tested.
		Interval: speed * server0, LostAfter: speed * lost0,
	})
	if err != nil {
		return err
	}
	out := &reporter{encoder: json.NewEncoder(os.Stdout)}
	eye := &eye{missing: map[sight]bool{}}
	for s := range first.present {
		eye.missing[s] = true
	}
	brain := loop.New(loop.Options{
		Mind: mind, Store: &mortal{Store: disk, fate: f, out: out, steps: map[string]string{}}, Hands: srv, Clock: b.Clock, OnChange: srv.Changed, OnInput: eye.input,
	})
	l, err := listener()
	if err != nil {
		return err
	}
	eye.done = func() { go tell(ctx, brain, out, said{Seen: true}) }
	go questions(ctx, brain, out)
	var group sync.WaitGroup
	var errs [2]error
	group.Go(func() { errs[0] = brain.Run(ctx) })
	group.Go(func() { errs[1] = srv.Run(ctx, brain, l) })
	group.Wait()
	return errors.Join(errs[:]...)
}

// reporter writes lines to the parent.
type reporter struct {
	mu      sync.Mutex
	encoder *json.Encoder
}

func (r *reporter) say(s said) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.encoder.Encode(s); err != nil {
		os.Exit(1) // the parent is gone
	}
}

// questions answers each line of the parent with the mind's state; when the
// parent is gone, so is its child.
func questions(ctx context.Context, brain *loop.Loop, out *reporter) {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		tell(ctx, brain, out, said{})
	}
	os.Exit(1)
}

// tell says s together with the mind's state between two inputs.
func tell(ctx context.Context, brain *loop.Loop, out *reporter, s said) {
	s.State = &state{}
	err := brain.Ask(ctx, func(m *incident.Mind) {
		for _, in := range m.Incidents() {
			s.State.Incidents = append(s.State.Incidents, standingOf(in))
		}
		for _, c := range m.View().Raised() {
			s.State.Raised = append(s.State.Raised, c.ConditionKey)
		}
	})
	if err == nil {
		out.say(s)
	}
}

// eye watches for everything having been observed once in this life. Its input is
// called by one goroutine.
type eye struct {
	missing map[sight]bool
	done    func()
}

func (e *eye) input(in incident.Input) {
	if len(e.missing) == 0 {
		return
	}
	for _, o := range in.Observations {
		delete(e.missing, sightOf(o))
	}
	if len(e.missing) == 0 {
		e.done()
	}
}

// mortal is a store under a server that dies. What it tells the parent is durable.
type mortal struct {
	loop.Store
	fate  *fate
	out   *reporter
	steps map[string]string // what was intended in this life, by its key
}

func (m *mortal) Load(ctx context.Context) (loop.State, error) {
	s, err := m.Store.Load(ctx)
	if err == nil && len(s.Records) > 0 {
		m.tell(s.Records)
	}
	return s, err
}

func (m *mortal) tell(records []incident.Record) {
	var s said
	for _, r := range records {
		one := standingOf(r.Incident)
		one.Approved = r.Progress.Approval != nil && r.Progress.Approval.Plan == one.Plan
		s.Records = append(s.Records, one)
	}
	m.out.say(s)
}

func (m *mortal) Commit(ctx context.Context, t loop.Txn) error {
	number := m.fate.count("commit")
	m.meet("before", number, t)
	if err := m.Store.Commit(ctx, t); err != nil {
		return err
	}
	m.meet("after", number, t)
	if len(t.Records) > 0 {
		m.tell(t.Records)
	}
	return nil
}

// meet names a commit by its number and by what of steps is in it.
func (m *mortal) meet(when string, number int, t loop.Txn) {
	names := []string{when + " commit " + strconv.Itoa(number)}
	for _, in := range t.Intents {
		m.steps[in.Dispatch.Key] = stepName(in.Dispatch)
		names = append(names, fmt.Sprintf("%s the intent of %s is durable", when, stepName(in.Dispatch)))
	}
	for _, key := range t.Settled {
		// Of what an earlier life intended no name is known; it dies no more.
		names = append(names, fmt.Sprintf("%s the outcome of %s is durable", when, cmp.Or(m.steps[key], key)))
	}
	m.fate.meet(names...)
}

// ownLog is a commit of the log that an agent keeps while it reaches no server.
func (f *fate) ownLog(_ journal.Seq, _ int) {
	f.meet("after commit " + strconv.Itoa(f.count("own commit")) + " of its own log")
}

// journalled is a commit of an agent's journal.
func (f *fate) journalled(_ journal.Seq, _ int) {
	f.meet("after commit " + strconv.Itoa(f.count("commit")))
}
