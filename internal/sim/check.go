package sim

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
	"fettle/internal/loop"
)

// flight is a step that was intended and whose outcome its server does not know.
type flight struct {
	d  fettle.Dispatch
	at time.Time
}

// slack is what an observation takes to come, and the clocks' error.
const slack = 1500 * time.Millisecond

// asked is what a checker of an intent may look at.
type asked struct {
	s      *Sim
	sp     *serverProcess
	record incident.Record
	in     loop.Intent
	step   fettle.Step
	now    time.Time // when it was decided
	since  time.Time // what changed later, nobody need have known
}

// checkIntent holds a step that was just made durable against the truth: one
// checker for each invariant.
func (s *Sim) checkIntent(sp *serverProcess, t loop.Txn, in loop.Intent) {
	// It was decided before it was durable: the disk may have been slow.
	a := asked{s: s, sp: sp, in: in, step: in.Dispatch.Step, now: in.At.Add(-s.skews[sp.srv.name])}
	a.since = a.now.Add(-a.step.Fresh - slack)
	for _, r := range t.Records {
		if r.ID == in.Dispatch.Incident {
			a.record = r
		}
	}
	if a.record.ID == "" || a.record.Plan == nil {
		s.e.breaks("S6", "the intent of %s came without its incident's record", in.Dispatch.Key)
		return
	}
	a.checkS1Facts()
	a.checkS1Settled()
	a.checkS2Votes()
	a.checkS2OwnStore()
	a.checkS2Identity()
	a.checkS2Replicas()
	a.checkS3Budget()
	a.checkS7Leader()
	a.checkS7Autonomy()
	a.checkS7Preconditions()
	a.checkS7Generations()
	a.checkS8Reach()
	a.checkS10Flapping()
	a.checkS11Person()
	a.checkS11Freeze()
	a.checkS14Secrets()
	s.mu.Lock()
	s.flying[in.Dispatch.Key] = flight{in.Dispatch, a.now}
	s.mu.Unlock()
	s.midway()
}

// landed forgets the steps whose outcome is known.
func (s *Sim) landed(keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		delete(s.flying, key)
	}
}

func (a asked) undo() bool  { return a.in.Dispatch.Undo }
func (a asked) key() string { return a.in.Dispatch.Key }
func (a asked) first() bool {
	return !slices.ContainsFunc(a.record.Progress.Done, func(d incident.DoneStep) bool { return !d.Skipped })
}

func (a asked) breaks(invariant, format string, args ...any) {
	a.s.e.breaks(invariant, "%s (%s on %s): %s", a.key(), a.step.Action, a.step.Target, fmt.Sprintf(format, args...))
}

// checkS1Facts: what the step rests on was asked for no longer ago than it says.
func (a asked) checkS1Facts() {
	want := []sight{{a.step.Target, ""}}
	for _, l := range a.step.Looks {
		want = append(want, sight{l.Subject, l.Probe})
	}
	for _, w := range want {
		var newest time.Time
		for _, c := range a.sp.sorted() {
			a.sp.mu.Lock()
			for key, t := range c.seen {
				if key.subject == w.subject && (w.probe == "" || key.probe == w.probe) && t.made.After(newest) {
					newest = t.made
				}
			}
			if c.host == w.subject && w.probe == "" { // the server's own word on it
				newest = a.now
			}
			a.sp.mu.Unlock()
		}
		if age := a.now.Sub(newest); !newest.IsZero() && age > a.step.Fresh+slack {
			a.breaks("S1", "%s %s was last seen %v ago, and it says %v", w.subject, w.probe, age, a.step.Fresh)
		}
	}
}

// late is how long what the server was told may wait until it is taken in: who waited
// for the disk decides on what came before.
func (a asked) late() time.Duration {
	if a.s.depot.wasSlow {
		return 4 * time.Second
	}
	return 100 * time.Millisecond
}

// checkS1Settled: the acting host's agent has told everything that it sees.
func (a asked) checkS1Settled() {
	if a.undo() {
		return
	}
	for _, c := range a.sp.sorted() {
		if c.host == a.step.Host && c.link != nil && c.settledAt.IsZero() && a.now.Sub(c.began) > a.late() && a.now.Sub(c.began) < 28*time.Second {
			a.breaks("S1", "the agent on %s has not told everything yet", c.host)
		}
	}
}

// takes is the member whose vote a step takes, and for good or not.
func (s *Sim) takes(st fettle.Step, undo bool) (m *member, removes bool) {
	switch st.Action {
	case "etcd.stop":
		if undo {
			return nil, false
		}
		return s.w.member(st.Target), false
	case "etcd.member_remove":
		return s.w.member(st.Target), true
	case "etcd.start":
		if !undo {
			return nil, false
		}
		return s.w.member(st.Target), false
	case "systemd.restart", "systemd.stop":
		if u := s.w.unit(st.Target); u != nil && !undo {
			return u.member, false
		}
	case "systemd.start":
		if u := s.w.unit(st.Target); u != nil && undo {
			return u.member, false
		}
	}
	return nil, false
}

// checkS2Votes: a group keeps min(what it had, its majority) of serving votes, also
// with all that others have under way.
func (a asked) checkS2Votes() {
	m, removes := a.s.takes(a.step, a.undo())
	if m == nil {
		return
	}
	c := m.c
	seat := c.seat(m)
	if seat == nil || !seat.voter {
		return
	}
	before := c.serving()
	after, majority := c.without(m, removes)
	others, keys := 0, []string{}
	a.s.mu.Lock()
	for key, f := range a.s.flying {
		o, _ := a.s.takes(f.d.Step, f.d.Undo)
		e := a.s.w.effects[key]
		if o != nil && o != m && o.c == c && o.serves() && (e == nil || e.times == 0) {
			others++
			keys = append(keys, key)
		}
	}
	a.s.mu.Unlock()
	need := min(before, majority)
	if after-others < need && quiet(a.since, c.moved) {
		a.breaks("S2", "%d votes serve, %d after it, %d taken by others %v; needs %d", before, after, others, keys, need)
	}
	a.s.mu.Lock()
	_, agreed := a.s.agreed[a.record.Plan.Hash]
	a.s.mu.Unlock()
	if removes && !agreed && before < c.majority() && quiet(a.since, c.moved) {
		a.breaks("S2", "the membership is changed without a quorum")
	}
}

// starts is the unit that a step starts.
func (s *Sim) starts(st fettle.Step, undo bool) *unit {
	switch st.Action {
	case "systemd.start", "systemd.restart":
		if !undo {
			return s.w.unit(st.Target)
		}
	case "etcd.start":
		if m := s.w.member(st.Target); m != nil && !undo {
			return m.unit
		}
	}
	return nil
}

// checkS2OwnStore: nothing is done to the group that holds the servers' own store.
func (a asked) checkS2OwnStore() {
	if !a.s.outside() {
		return
	}
	u, k := a.s.w.unit(a.step.Target), a.step.Target.Kind()
	if k == kindMember || k == kindCluster || u != nil && u.member != nil {
		a.breaks("S2", "it holds the store of Fettle's own servers")
	}
}

// checkS2Identity: who lost its log never votes under its old identity.
func (a asked) checkS2Identity() {
	u := a.s.starts(a.step, a.undo())
	if u == nil || u.member == nil || u.state == "active" {
		return
	}
	m := u.member
	if s := m.c.seat(m); s != nil && s.voter && m.lostLog() && quiet(a.since, m.touched, m.c.touched, u.host.touched) {
		a.breaks("S2", "it starts %s, whose log is lost, under its identity %s", m.name, s.id)
	}
}

// checkS2Replicas: as many copies as must, stay in sync.
func (a asked) checkS2Replicas() {
	c := a.s.w.copies
	if a.step.Action != "careless.drop" || a.undo() {
		return
	}
	i := slices.IndexFunc(c.hosts, func(h *host) bool { return h.subject() == a.step.Host })
	if i < 0 || !c.insync[i] {
		return
	}
	touched := []time.Time{c.touched}
	for _, h := range c.hosts {
		touched = append(touched, h.touched)
	}
	before := c.count()
	if before-1 < min(before, c.minimum) && quiet(a.since, touched...) {
		a.breaks("S2", "%d copies are in sync, %d must stay", before, c.minimum)
	}
}

// checkS3Budget: no more hosts of a rack are away or being taken away than the
// policy permits.
func (a asked) checkS3Budget() {
	if a.step.Action != "careless.drain" || a.undo() {
		return
	}
	away, flying := 0, 0
	touched, keys := []time.Time{}, []string{}
	for _, h := range a.s.w.hosts {
		touched = append(touched, h.touched)
		if h.subject() != a.step.Host && h.drained {
			away++
		}
	}
	a.s.mu.Lock()
	for key, f := range a.s.flying {
		if e := a.s.w.effects[key]; f.d.Step.Action == "careless.drain" && !f.d.Undo && f.d.Step.Host != a.step.Host && (e == nil || e.times == 0) {
			flying++
			keys = append(keys, key)
		}
	}
	a.s.mu.Unlock()
	if away+flying+1 > 1 && quiet(a.since, touched...) {
		a.breaks("S3", "%d of %d hosts are drained and %d are about to be %v; one may be", away, len(a.s.w.hosts), flying, keys)
	}
}

// checkS7Leader: who knows that it does not lead begins nothing.
func (a asked) checkS7Leader() {
	if r := a.sp.resigned; !r.IsZero() && r.Before(a.now.Add(-slack-a.late())) {
		a.breaks("S7", "the server was told %v before that it does not lead", a.now.Sub(r))
	}
}

// checkS7Autonomy: the policy lets Fettle do it, or a person approved exactly this.
func (a asked) checkS7Autonomy() {
	if a.undo() || !a.first() {
		return
	}
	level, _ := runbook.Level(a.s.policy, *a.record.Plan, runbook.Reversible(*a.record.Plan))
	if level >= fettle.Automatic {
		return
	}
	a.s.mu.Lock()
	until, yes := a.s.agreed[a.record.Plan.Hash]
	a.s.mu.Unlock()
	switch {
	case !yes:
		a.breaks("S7", "nobody approved plan %.12s", a.record.Plan.Hash)
	case a.in.At.After(until):
		a.breaks("S7", "the approval of plan %.12s ended %v ago", a.record.Plan.Hash, a.in.At.Sub(until))
	}
}

// lastChange is when what a step's facts are about changed last.
func (s *Sim) lastChange(st fettle.Step) time.Time {
	var at time.Time
	add := func(t time.Time) {
		if t.After(at) {
			at = t
		}
	}
	if h := s.w.host(st.Host); h != nil {
		add(h.touched)
		add(h.disk.touched)
		for _, u := range h.units {
			add(u.touched)
		}
	}
	for _, c := range s.w.clusters {
		if st.Group != "" || st.Target.Kind() == kindCluster || st.Target.Kind() == kindMember {
			add(c.lastChange())
		}
	}
	return at
}

// checkS7Generations: what the plan pinned is still what it was.
func (a asked) checkS7Generations() {
	if a.undo() || !quiet(a.since, a.s.lastChange(a.step)) {
		return
	}
	for _, g := range a.step.Generations {
		var now string
		switch u, m := a.s.w.unit(g.Subject), a.s.w.member(g.Subject); {
		case u != nil && g.Fact == "invocation_id":
			now = u.invocation()
		case m != nil && g.Fact == "member_id" && m.c.seat(m) != nil:
			now = m.c.seat(m).id
		default:
			continue
		}
		if was, _ := g.Value.(string); was != now {
			a.breaks("S7", "%s of %s is %s, and the plan was made on %s", g.Fact, g.Subject, now, was)
		}
	}
}

// checkS8Reach: nothing cuts a machine off by an action that arms no revert.
func (a asked) checkS8Reach() {
	if a.step.Action == "careless.cut" {
		a.breaks("S8", "it cuts the machine off, and no revert is armed")
	}
}

// checkS10Flapping: what comes and goes is not joined in.
func (a asked) checkS10Flapping() {
	if a.undo() || !a.first() {
		return
	}
	a.s.mu.Lock()
	_, yes := a.s.agreed[a.record.Plan.Hash]
	a.s.mu.Unlock()
	for _, c := range a.sp.sorted() {
		if cond, ok := c.judged[a.record.Cause]; ok && cond.Flapping && !yes && a.now.Sub(c.flaps[a.record.Cause]) > a.late() {
			a.breaks("S10", "%s comes and goes", a.record.Cause)
		}
	}
}

// checkS11Person: what a person stopped stays stopped.
func (a asked) checkS11Person() {
	u := a.s.starts(a.step, a.undo())
	if u == nil || u.state == "active" {
		return
	}
	// Where the host's own probes hang, others' word on a member is taken for fresh: see
	// docs/design/0010-simulator.md.
	if at := a.s.agentOf(u.host); at.slow || at.hung.After(a.since) {
		return
	}
	if (u.stoppedBy == "person" && u.wasActive || u.masked) && quiet(a.since, u.touched, u.host.touched) {
		a.breaks("S11", "a person stopped %s (masked: %v)", u.subject(), u.masked)
	}
}

// checkS11Freeze: frozen, or where people work, nothing begins, and nothing goes on
// behind a safe point. The depot's mu is held.
func (a asked) checkS11Freeze() {
	why := ""
	if a.s.depot.frozen {
		why = "the fleet is frozen"
	}
	for _, w := range a.s.depot.windows {
		if _, open := w.Open(a.in.At); open && (w.Covers(a.step.Host) || w.Covers(a.step.Target)) {
			why = "people work there: " + w.Text()
		}
	}
	if why == "" || a.undo() {
		return
	}
	i := slices.IndexFunc(a.record.Plan.Steps, func(st fettle.Step) bool { return st.ID == a.step.ID })
	if a.first() || i > 0 && a.record.Plan.Steps[i-1].SafePoint {
		a.breaks("S11", "%s", why)
	}
}

var secret = regexp.MustCompile(`(?i)\b(password|passwd)=`)

// checkS14Secrets: no secret is in a plan that is kept and sent.
func (a asked) checkS14Secrets() {
	for _, v := range a.step.Params {
		if text, ok := v.(string); ok && secret.MatchString(text) {
			a.breaks("S14", "a secret stands in its parameters")
		}
	}
}
