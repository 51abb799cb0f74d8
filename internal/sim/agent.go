package sim

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"fettle/internal/act/execute"
	"fettle/internal/act/journal"
	"fettle/internal/fettle"
	"fettle/internal/judge/condition"
	judged "fettle/internal/judge/world"
)

// pollEvery is how often an agent looks at what nobody tells of, and allEvery how many
// times until it looks at everything. What is told comes at once.
const (
	pollEvery = 2500 * time.Millisecond
	allEvery  = 4
)

// agent is what of an agent outlives its process: its files.
type agent struct {
	h       *host
	journal string
	starts  int
	frozen  bool // its freeze file is there
	frozeAt time.Time
	memory  map[fettle.ConditionKey]fettle.Condition // what was raised
	proc    *process                                 // nil: it does not run
	slow    bool                                     // its probes hang
	hung    time.Time                                // when they last did
	next    int                                      // the server that is called next
	head    execute.LogHead                          // that it took last
}

// process is one life of an agent.
type process struct {
	s       *Sim
	a       *agent
	h       *host
	name    string // incarnation
	clock   *clock
	gone    chan struct{} // closed when it is killed
	dead    bool
	journal *journal.Journal
	ex      *execute.Executor
	judge   *condition.Evaluator
	picture *judged.World
	seen    map[sight]fettle.Observation
	conds   map[fettle.ConditionKey]bool
	stage   int // of the first looks that were told
	link    *link
	polls   int
	tick    *event

	highest fettle.Token // of what was delivered to this host's agent in this life
	handed  map[string]*event
	durable map[string]bool // keys whose intent stands in its journal
}

// sight is one subject as one probe sees it.
type sight struct {
	subject fettle.Subject
	probe   string
}

// stages is how many portions the first looks are told in, services first: what
// starts anew tells one thing after another.
const stages = 3

func stage(probe string) int {
	switch probe {
	case "systemd.unit", hostProbe, unitProbe:
		return 1
	case "etcd.member", "etcd.cluster", "filesystem.usage":
		return 2
	}
	return stages
}

// startAgent begins a life.
func (s *Sim) startAgent(a *agent) {
	if a.proc != nil || !a.h.on {
		return
	}
	a.starts++
	name := fmt.Sprintf("%s-%d", a.h.id, a.starts)
	p := &process{
		s: s, a: a, h: a.h, name: name, gone: make(chan struct{}), judge: s.lib.judge.Fresh(), picture: judged.New(),
		seen: map[sight]fettle.Observation{}, conds: map[fettle.ConditionKey]bool{}, handed: map[string]*event{}, durable: map[string]bool{},
	}
	p.clock = &clock{e: s.e, owner: name, offset: a.h.skew, ppm: a.h.ppm}
	if a.journal == "" {
		a.journal = filepath.Join(s.dir, a.h.id)
	}
	var err error
	p.journal, err = journal.Open(context.Background(), a.journal, journal.Options{Reserve: journal.MinReserve, Clock: p.clock})
	if err != nil {
		s.e.breaks("S6", "the journal of %s: %v", a.h.name, err)
		return
	}
	actions := map[string]fettle.Action{}
	for _, c := range s.lib.Catalogues {
		for _, spec := range c.Actions {
			actions[spec.Name] = &doer{p, spec.Name}
		}
	}
	frozen := func() bool { return a.frozen }
	if s.o.Waive["agent-freeze"] {
		frozen = func() bool { return false }
	}
	p.ex, err = execute.New(execute.Options{
		Journal: p.journal, Actions: actions, Catalogues: s.lib.Catalogues, Clock: p.clock, Host: a.h.subject(), Fleet: fleet, Incarnation: name,
		Frozen: frozen, Allow: func(string) bool { return true }, NewEpoch: s.newEpoch,
	})
	if err != nil {
		s.e.breaks("S6", "the executor of %s: %v", a.h.name, err)
		return
	}
	a.proc = p
	if !s.o.Waive["agent-head"] { // who is killed knows an earlier head, never a wrong one
		a.head, _ = p.ex.Head()
	}
	raised := make([]fettle.Condition, 0, len(a.memory))
	for _, c := range a.memory {
		raised = append(raised, c)
	}
	slices.SortFunc(raised, func(x, y fettle.Condition) int { return x.Compare(y.ConditionKey) })
	p.judge.Resume(p.picture, raised, p.clock.Now())
	s.e.tell("agent %s starts", name)
	p.begin()
}

// newEpoch is the administrator's signature as agents see it.
func (s *Sim) newEpoch(highest, offered fettle.Token) error {
	if s.o.Waive["agent-epoch"] || s.signed[offered.Epoch] && offered.Epoch > highest.Epoch {
		return nil
	}
	return fmt.Errorf("epoch %d is not signed", offered.Epoch)
}

// begin tells the first looks in portions, then polls.
func (p *process) begin() {
	p.s.e.post("first look of "+p.name, spread{20 * time.Millisecond, 1500 * time.Millisecond}, func() {
		if p.dead {
			return
		}
		p.stage++
		p.look(p.clock.Now(), func(o fettle.Observation) bool { return true })
		if p.stage < stages {
			p.begin()
			return
		}
		if p.link != nil {
			p.link.settle()
		}
		p.poll()
	})
}

func (p *process) poll() {
	p.s.e.post("poll of "+p.name, spread{pollEvery - 200*time.Millisecond, pollEvery}, func() {
		if p.dead {
			return
		}
		if !p.a.slow {
			p.polls++
			p.look(p.clock.Now(), func(o fettle.Observation) bool { return stage(o.Probe) == 2 || p.polls%allEvery == 0 })
		}
		p.call()
		p.poll()
	})
}

// look looks and takes in what is wanted of it.
func (p *process) look(asked time.Time, want func(fettle.Observation) bool) []fettle.Observation {
	var list []fettle.Observation
	now := p.s.e.now()
	here := map[sight]bool{}
	for _, o := range p.h.sights(now) {
		o.Host, o.Asked = p.h.subject(), asked
		here[sight{o.Subject, o.Probe}] = true
		if stage(o.Probe) <= p.stage && want(o) {
			list = append(list, o)
		}
	}
	for _, key := range sortedSights(p.seen) {
		if o := p.seen[key]; !here[key] && o.Probe == "filesystem.fill" && want(o) {
			list = append(list, fettle.Observation{Subject: o.Subject, Host: o.Host, Probe: o.Probe, Asked: asked, Gone: true})
		}
	}
	p.take(list)
	return list
}

func sortedSights(m map[sight]fettle.Observation) []sight {
	keys := make([]sight, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compareSights)
	return keys
}

func compareSights(a, b sight) int {
	return cmp.Or(cmp.Compare(a.subject, b.subject), cmp.Compare(a.probe, b.probe))
}

// take takes in what was seen, judges it and tells the server.
func (p *process) take(list []fettle.Observation) {
	touched := map[fettle.Subject]bool{}
	var told []fettle.Observation
	for _, o := range list {
		if !p.picture.Observe(o) {
			continue
		}
		key := sight{o.Subject, o.Probe}
		if o.Gone {
			delete(p.seen, key)
		} else {
			p.seen[key] = o
		}
		touched[o.Subject] = true
		for _, e := range o.Edges {
			touched[e.From], touched[e.To] = true, true
		}
		told = append(told, o)
	}
	subjects := make([]fettle.Subject, 0, len(touched))
	for s := range touched {
		subjects = append(subjects, s)
	}
	slices.Sort(subjects)
	p.judged(told, p.judge.Touch(p.picture, p.clock.Now(), subjects...))
}

func (p *process) judged(told []fettle.Observation, changes []condition.Change) {
	var conds []fettle.Condition
	for _, c := range changes {
		key := c.After.ConditionKey
		if _, still := p.picture.Condition(key); still {
			p.conds[key] = true
		} else {
			delete(p.conds, key)
		}
		switch c.After.State {
		case fettle.Yes:
			p.a.memory[key] = c.After
		case fettle.No:
			delete(p.a.memory, key)
		}
		conds = append(conds, c.After)
	}
	if p.link != nil && len(told)+len(conds) > 0 {
		p.link.report(told, conds)
	}
	if p.tick != nil {
		p.s.e.cancel(p.tick)
	}
	if at, ok := p.judge.Next(); ok {
		p.tick = p.s.e.post("judge of "+p.name, exactly(max(0, at.Sub(p.clock.Now()))), func() {
			if p.tick = nil; !p.dead {
				p.judged(nil, p.judge.Tick(p.picture, p.clock.Now()))
			}
		})
	}
}

// hand notes that a step was handed over to the world.
func (p *process) hand(key string, ev *event) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.handed[key] = ev
}

// killAgent ends a process as SIGKILL does. What it had handed over happens, or
// does not.
func (s *Sim) killAgent(a *agent, why string) {
	p := a.proc
	if p == nil {
		return
	}
	s.e.tell("agent %s is killed (%s)", p.name, why)
	a.proc, p.dead = nil, true
	_ = p.journal.Close() // what was durable stays
	if p.link != nil {
		p.link.broken(!a.h.on)
	}
	s.mu.Lock()
	keys := make([]string, 0, len(p.handed))
	for key := range p.handed {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if e := s.w.effects[key]; e.pending && (!a.h.on || s.e.rng.IntN(2) == 0) {
			e.pending = false
			s.e.cancel(p.handed[key])
		}
	}
	s.mu.Unlock()
	close(p.gone)
}

// call connects to a server where there is no session.
func (p *process) call() {
	if p.link != nil {
		return
	}
	srv := p.s.servers[p.a.next%len(p.s.servers)]
	p.a.next++
	if srv.proc == nil || !srv.proc.leads || !p.s.w.linked(p.h.name, srv.name) {
		return
	}
	newLink(p, srv.proc)
}
