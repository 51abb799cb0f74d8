package sim

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"fettle/internal/fettle"
	fleetserver "fettle/internal/fleet/server"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

const (
	agentProbe    = "fettle.agent"
	placeProbe    = "fettle.place"
	agentsEvery   = 5 * time.Second
	lostAfter     = 10 * time.Second
	answersWithin = 2500 * time.Millisecond // what comes later is not waited for
)

// server is one that may lead.
type server struct {
	name string
	proc *serverProcess
	on   bool
}

// serverProcess is one life of a server: the loop over the store, and its side of
// the sessions. It implements loop.Hands.
type serverProcess struct {
	s        *Sim
	srv      *server
	name     string
	mind     *incident.Mind
	loop     *loop.Loop
	share    *share
	cancel   context.CancelFunc
	dead     bool
	leads    bool
	branch   int       // of the store that it began with
	resigned time.Time // since when it knows that it does not lead; zero: it does not

	mu       sync.Mutex // the loop's hands are goroutines
	contacts map[fettle.Subject]*contact
}

// contact is what a server knows of one host's agent.
type contact struct {
	host        fettle.Subject
	link        *link
	clocks      wire.Clocks
	incarnation string
	round       int
	began       time.Time
	settledAt   time.Time
	lost        time.Time
	unsaid      bool
	seen        map[sight]told
	judged      map[fettle.ConditionKey]fettle.Condition
	flaps       map[fettle.ConditionKey]time.Time // since when each does that comes and goes
}

// lead begins the life of a server that was elected.
func (s *Sim) lead(srv *server) {
	s.lives++
	sp := &serverProcess{s: s, srv: srv, name: srv.name + "-" + itoa(s.lives), leads: true, contacts: map[fettle.Subject]*contact{}}
	sp.mind = s.lib.mind.Fresh(s.policy)
	sp.share, sp.branch = s.depot.open(sp), s.depot.branch
	ctx, cancel := context.WithCancel(context.Background())
	sp.cancel = cancel
	srv.proc = sp
	sp.loop = loop.New(loop.Options{
		Mind: sp.mind, Store: sp.share, Hands: sp, Clock: &clock{e: s.e, owner: sp.name, offset: s.skews[srv.name]}, OnChange: s.noted, OnCall: s.calledFor,
	})
	s.e.tell("server %s leads", sp.name)
	go func() {
		err := sp.loop.Run(ctx)
		s.e.post("end of "+sp.name, exactly(0), func() { s.ended(sp, err) })
	}()
	sp.feedStore()
	for _, h := range s.w.hosts { // of the register; the topology says where they stand
		sp.feed(incident.Input{Observations: []fettle.Observation{sp.placeOf(h), sp.agentSeen(sp.contact(h.subject()))}})
	}
	sp.tickAgents()
}

// ended is the end of a loop, by itself or killed.
func (s *Sim) ended(sp *serverProcess, err error) {
	s.e.tell("server %s ended: %v", sp.name, err)
	s.killServer(sp)
}

// killServer ends a server's life as SIGKILL does: nothing more is kept.
func (s *Sim) killServer(sp *serverProcess) {
	if sp.dead {
		return
	}
	sp.dead, sp.leads = true, false
	sp.share.die(sp.cancel)
	for _, c := range sp.sorted() {
		if c.link != nil {
			c.link.broken(false)
		}
	}
	if sp.srv.proc == sp {
		sp.srv.proc = nil
	}
}

func (sp *serverProcess) sorted() []*contact {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	list := make([]*contact, 0, len(sp.contacts))
	for _, c := range sp.contacts {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *contact) int { return cmp.Compare(a.host, b.host) })
	return list
}

func (sp *serverProcess) contact(h fettle.Subject) *contact {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	c := sp.contacts[h]
	if c == nil {
		c = &contact{host: h, seen: map[sight]told{}, judged: map[fettle.ConditionKey]fettle.Condition{}, flaps: map[fettle.ConditionKey]time.Time{}}
		sp.contacts[h] = c
	}
	return c
}

func (sp *serverProcess) feed(in incident.Input) {
	if !sp.dead {
		sp.loop.Feed(in)
	}
}

func (sp *serverProcess) now() time.Time { return sp.s.e.now().Add(sp.s.skews[sp.srv.name]) }

// agentSeen is what the server says of an agent.
func (sp *serverProcess) agentSeen(c *contact) fettle.Observation {
	f := fettle.Facts{"connected": c.link != nil, "label": c.host.Name()}
	if c.link != nil {
		f["settled"] = !c.settledAt.IsZero() || sp.s.e.now().Sub(c.began) > 30*time.Second
	}
	if c.incarnation != "" {
		f["incarnation"], f["boot_id"], f["version"] = c.incarnation, "boot", "sim"
	}
	return fettle.Observation{Subject: c.host, Host: fettle.NewSubject("fettle-server", sp.srv.name), Probe: agentProbe, Asked: sp.now(), Facts: f}
}

// groupID is the name that the cluster gave itself.
const groupID = "f00d"

// outside reports whether the servers' store is in the cluster that they look after, as
// it is in some of the runs.
func (s *Sim) outside() bool { return s.o.Seed%outsideEvery == 0 }

// outsideEvery is how many runs have one of that kind among them.
const outsideEvery = 8

// holds is what the server says of its store.
func (sp *serverProcess) holds() []fettle.Observation {
	if !sp.s.outside() {
		return nil
	}
	self := fettle.NewSubject(fettle.KindServer, sp.srv.name)
	return []fettle.Observation{{Subject: self, Host: self, Probe: fleetserver.StoreProbe, Asked: sp.now(), Facts: fettle.StoreGroup{Kind: kindCluster, ID: groupID}.Facts()}}
}

func (sp *serverProcess) feedStore() {
	if list := sp.holds(); len(list) > 0 {
		sp.feed(incident.Input{Observations: list})
	}
}

// tickAgents says again which agents are there, and makes unknown what those had
// judged that are lost.
func (sp *serverProcess) tickAgents() {
	sp.s.e.post("agents of "+sp.name, exactly(agentsEvery), func() {
		if sp.dead {
			return
		}
		sp.feedStore()
		for _, c := range sp.sorted() {
			in := incident.Input{Observations: []fettle.Observation{sp.agentSeen(c)}}
			if c.link == nil && !c.unsaid && !c.lost.IsZero() && sp.s.e.now().Sub(c.lost) >= lostAfter {
				c.unsaid = true
				in.Conditions = sp.unknown(c)
			}
			sp.feed(in)
		}
		sp.tickAgents()
	})
}

func (sp *serverProcess) unknown(c *contact) []fettle.Condition {
	var out []fettle.Condition
	for _, cond := range c.judged {
		if cond.State != fettle.Unknown {
			cond.State, cond.Since, cond.Evidence = fettle.Unknown, sp.now(), nil
			out = append(out, cond)
		}
	}
	clear(c.judged)
	slices.SortFunc(out, func(a, b fettle.Condition) int { return a.Compare(b.ConditionKey) })
	return out
}

func (sp *serverProcess) detach(l *link) {
	c := sp.contact(l.host)
	if sp.dead || c.link != l {
		return
	}
	sp.mu.Lock()
	c.link, c.lost = nil, sp.s.e.now()
	sp.mu.Unlock()
	sp.s.e.post("gone: "+l.p.name+" at "+sp.name, exactly(0), func() { close(l.gone) })
	sp.feed(incident.Input{Observations: []fettle.Observation{sp.agentSeen(c)}})
}

func (sp *serverProcess) report(l *link, theirs int64, list []fettle.Observation, conds []fettle.Condition) {
	c := sp.contact(l.host)
	if sp.dead || c.link != l {
		return
	}
	in := incident.Input{Observations: sp.place(l, theirs, list)}
	for _, cond := range conds {
		cond.Since, cond.LastClear, cond.FirstSeen = c.clocks.Shift(cond.Since), c.clocks.Shift(cond.LastClear), c.clocks.Shift(cond.FirstSeen)
		cond.Evidence = slices.Clone(cond.Evidence)
		for i := range cond.Evidence {
			cond.Evidence[i].Asked = c.clocks.Shift(cond.Evidence[i].Asked)
		}
		if before := c.judged[cond.ConditionKey]; cond.Flapping && !before.Flapping {
			c.flaps[cond.ConditionKey] = sp.s.e.now()
		}
		c.judged[cond.ConditionKey] = cond
		if ended(cond) {
			delete(c.judged, cond.ConditionKey)
		}
		in.Conditions = append(in.Conditions, cond)
	}
	if len(in.Observations)+len(in.Conditions) > 0 {
		sp.feed(in)
	}
}

// settled forgets what this session did not tell.
func (sp *serverProcess) settled(l *link) {
	c := sp.contact(l.host)
	if sp.dead || c.link != l {
		return
	}
	var in incident.Input
	sp.mu.Lock()
	keys := make([]sight, 0, len(c.seen))
	for key, t := range c.seen {
		if t.round != c.round {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, compareSights)
	for _, key := range keys {
		delete(c.seen, key)
		in.Observations = append(in.Observations, fettle.Observation{Subject: key.subject, Host: c.host, Probe: key.probe, Asked: sp.now(), Gone: true})
	}
	c.settledAt = sp.s.e.now()
	sp.mu.Unlock()
	in.Observations = append(in.Observations, sp.agentSeen(c))
	sp.feed(in)
}

// Look implements loop.Hands.
func (sp *serverProcess) Look(ctx context.Context, looks []fettle.Look) []fettle.Observation {
	wants := map[*contact][]fettle.Look{}
	var order []*contact
	for _, c := range sp.sorted() {
		sp.mu.Lock()
		for _, k := range looks {
			if _, sees := c.seen[sight{k.Subject, k.Probe}]; sees && c.link != nil && (k.Host == "" || k.Host == c.host) {
				if wants[c] == nil {
					order = append(order, c)
				}
				wants[c] = append(wants[c], k)
			}
		}
		sp.mu.Unlock()
	}
	key := sp.name + " looks for " + loop.Reason(ctx) + " at " + named(looks)
	if len(order) == 0 {
		sp.turn(ctx, "nobody: "+key)
		return nil
	}
	type part struct{ list []fettle.Observation }
	got := make(chan part, len(order)+1)
	late := make(chan struct{})
	within := answersWithin
	if at, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(at)-10*time.Millisecond)
	}
	end := sp.s.e.post("end of "+key, exactly(max(0, within)), func() { close(late) })
	sp.s.e.post(key, exactly(0), func() { // sessions are the driver's
		for _, c := range order {
			if c.link == nil {
				got <- part{}
				continue
			}
			c.link.ask(wants[c], func(list []fettle.Observation) { got <- part{list} })
		}
	})
	var out []fettle.Observation
	for range order {
		select {
		case p := <-got:
			out = append(out, p.list...)
			continue
		case <-late:
			return out
		case <-ctx.Done():
		}
		break
	}
	sp.s.e.cancel(end)
	return out
}

// turn waits for an event of its own: what several goroutines answer at once would
// come in any order.
func (sp *serverProcess) turn(ctx context.Context, key string) {
	come := make(chan struct{})
	sp.s.e.post(key, exactly(0), func() { close(come) })
	select {
	case <-come:
	case <-ctx.Done():
	}
}

// named tells looks apart.
func named(looks []fettle.Look) string {
	var b strings.Builder
	for _, k := range looks {
		b.WriteString(string(k.Subject) + " " + k.Probe + " " + string(k.Host) + ";")
	}
	return b.String()
}

// Do implements loop.Hands.
func (sp *serverProcess) Do(ctx context.Context, d fettle.Dispatch) (fettle.Outcome, error) {
	return sp.exchange(ctx, d, false)
}

// Recover implements loop.Hands.
func (sp *serverProcess) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Outcome, error) {
	return sp.exchange(ctx, d, true)
}

func (sp *serverProcess) exchange(ctx context.Context, d fettle.Dispatch, recovers bool) (fettle.Outcome, error) {
	sp.mu.Lock()
	c := sp.contacts[d.Step.Host]
	if c == nil || c.link == nil || !recovers && c.incarnation != d.Incarnation {
		sp.mu.Unlock()
		sp.turn(ctx, "nobody for "+d.Key)
		return fettle.Outcome{}, loop.ErrNoContact
	}
	l := c.link
	d.Deadline = c.clocks.Theirs(d.Deadline)
	sp.mu.Unlock()
	got, late := make(chan fettle.Outcome, 4), make(chan struct{})
	within := 4 * time.Second
	if at, ok := ctx.Deadline(); ok {
		within = max(0, time.Until(at)-10*time.Millisecond)
	}
	word := "wait for "
	if recovers {
		word = "wait for the fate of "
	}
	end := sp.s.e.post(word+d.Key, exactly(within), func() { close(late) })
	sp.s.e.post("send "+d.Key, exactly(0), func() {
		if sp.dead {
			return
		}
		if tip, ok := sp.share.tip(); ok && l.up {
			l.head(tip)
		}
		sp.s.deliver(sp, l.p.a, d, recovers, func(o fettle.Outcome) {
			select {
			case got <- o:
			default: // its answers came already
			}
		})
	})
	select {
	case o := <-got:
		sp.s.e.cancel(end)
		o.Key = d.Key
		return o, nil
	case <-late:
	case <-l.gone:
		sp.s.e.cancel(end)
		sp.turn(ctx, "gone, and with it what became of "+d.Key)
	case <-ctx.Done():
		sp.s.e.cancel(end)
	}
	return fettle.Outcome{}, errors.New("the agent did not answer in time")
}

// Preview implements loop.Hands.
func (sp *serverProcess) Preview(context.Context, fettle.Step) (fettle.Preview, error) {
	return fettle.Preview{}, fettle.ErrNotSupported
}

// Incarnation implements loop.Hands.
func (sp *serverProcess) Incarnation(host fettle.Subject) (string, bool) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	c := sp.contacts[host]
	if c == nil || c.link == nil {
		return "", false
	}
	return c.incarnation, true
}
