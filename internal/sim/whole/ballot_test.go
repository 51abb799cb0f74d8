package whole_test

import (
	"context"
	"fmt"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

const (
	kindBallot fettle.Kind = "ballot"
	kindVoter  fettle.Kind = "ballot-voter"
	voteUnit               = "vote.service"
)

// ballot is an adapter for a pretended system that decides by votes: one voter on each
// of some hosts, each the service vote.service of its machine. A voter that is stale
// wants a restart, which takes its vote for a moment. The adapter does as it is told:
// what keeps the votes together is the safety kernel alone.
type ballot struct{ h *host }

func ballotCatalogue() fettle.Catalogue {
	spec := func(name string, kind fettle.Kind, facts ...fettle.FactSpec) fettle.ProbeSpec {
		return fettle.ProbeSpec{Name: name, Kind: kind, Interval: 2 * time.Second, Timeout: time.Second, Told: true, Facts: facts, Doc: "it looks"}
	}
	flag := func(name string) fettle.FactSpec {
		return fettle.FactSpec{Name: name, Type: fettle.BoolFact, Doc: name}
	}
	return fettle.Catalogue{
		Adapter: "ballot", Doc: "A pretended system that decides by votes.",
		Kinds: []fettle.KindSpec{{Kind: kindBallot, Doc: "NAME"}, {Kind: kindVoter, Doc: "NAME/HOST"}},
		Probes: []fettle.ProbeSpec{
			spec("ballot.voter", kindVoter, flag("stale"), flag("serves")),
			spec("ballot.group", kindBallot, fettle.FactSpec{Name: "serving", Type: fettle.IntFact, Doc: "votes"}),
		},
		Conditions: []fettle.ConditionSpec{{
			Code: "ballot.stale", Title: "it is stale", Kind: kindVoter, Layer: fettle.Application, Severity: fettle.Warning, Scope: fettle.HostScope,
			Probe: "ballot.voter", Raise: "self.stale", Expiry: 30 * time.Second, Doc: "it wants a restart",
		}},
		Actions: []fettle.ActionSpec{{
			Name: "ballot.stop", Version: 1, Target: kindVoter, Risk: fettle.LowRisk, Scope: fettle.HostScope, Timeout: 20 * time.Second, Undo: true,
			Takes: []fettle.Taking{fettle.TakesVotes}, Doc: "stop it", Effects: []fettle.EffectSpec{{Fact: "serves", To: "false"}, {Quorum: fettle.QuorumStop}},
		}, {
			Name: "ballot.start", Version: 1, Target: kindVoter, Risk: fettle.LowRisk, Scope: fettle.HostScope, Timeout: 20 * time.Second, Undo: true,
			Doc: "start it", Effects: []fettle.EffectSpec{{Fact: "serves", To: "true"}, {Quorum: fettle.QuorumStart}},
		}},
	}
}

const ballotBook = `runbook: ballot.stale
for: ballot.stale
doc: Restart what is stale.
vars:
  group: one(cause, '>part-of')
rungs:
  - rung: again
    doc: Off and on.
    proved_by: TestNothing
    steps:
      - {id: stop, action: ballot.stop, target: "${cause}", group: "${vars.group}", fresh: 5s, look: [{subject: "${vars.group}", probe: ballot.group}], claims: [{what: votes, of: "${vars.group}", member: "${cause}"}], expect: "!fact(target, 'serves')", within: 10s}
      - {id: start, action: ballot.start, target: "${cause}", group: "${vars.group}", fresh: 5s, look: [{subject: "${vars.group}", probe: ballot.group}], expect: "fact(target, 'serves')", within: 20s, safe_point: true}
`

func ballotSubject() fettle.Subject { return fettle.NewSubject(kindBallot, "b") }

func (h *host) voter() fettle.Subject { return fettle.NewSubject(kindVoter, "b", h.id) }

// Catalogue implements machine.Adapter.
func (b ballot) Catalogue() fettle.Catalogue { return ballotCatalogue() }

// Discover implements machine.Adapter.
func (b ballot) Discover(context.Context, machine.Machine) ([]machine.Found, error) {
	if !b.h.votes {
		return nil, nil
	}
	return []machine.Found{{Name: "b", Config: []byte("name: b\n"), Why: "it votes"}}, nil
}

// Open implements machine.Adapter.
func (b ballot) Open(context.Context, machine.Machine, []byte) (fettle.Instance, error) {
	return ballotInstance(b), nil
}

type ballotInstance struct{ h *host }

func (b ballotInstance) Probes() []fettle.Probe {
	return []fettle.Probe{ballotProbe{b.h, "ballot.voter"}, ballotProbe{b.h, "ballot.group"}}
}

func (b ballotInstance) Watchers() []fettle.Watcher {
	return []fettle.Watcher{ballotProbe{b.h, "ballot.voter"}, ballotProbe{b.h, "ballot.group"}}
}

func (b ballotInstance) Actions() map[string]fettle.Action {
	return map[string]fettle.Action{"ballot.stop": vote{b.h, false}, "ballot.start": vote{b.h, true}}
}
func (b ballotInstance) Faults() map[string]fettle.Fault { return nil }
func (b ballotInstance) Close() error                    { return nil }

type ballotProbe struct {
	h    *host
	name string
}

// Spec implements fettle.Probe and fettle.Watcher.
func (p ballotProbe) Spec() fettle.ProbeSpec {
	for _, s := range ballotCatalogue().Probes {
		if s.Name == p.name {
			return s
		}
	}
	return fettle.ProbeSpec{}
}

// Observe implements fettle.Probe.
func (p ballotProbe) Observe(context.Context, ...fettle.Subject) []fettle.Observation {
	if p.name == "ballot.voter" {
		return []fettle.Observation{p.h.voterSeen()}
	}
	return []fettle.Observation{p.h.r.groupSeen(p.h)}
}

// Watch implements fettle.Watcher.
func (p ballotProbe) Watch(ctx context.Context, emit func(fettle.Observation)) error {
	for {
		turned := p.h.r.turning()
		emit(p.Observe(ctx)[0])
		select {
		case <-turned:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// serves reports whether the host's voter has its vote.
func (h *host) serves() bool {
	h.mu.Lock()
	off := h.off
	h.mu.Unlock()
	return !off && h.unit(voteUnit).ActiveState == "active"
}

func (h *host) voterSeen() fettle.Observation {
	h.mu.Lock()
	stale := h.stale
	h.mu.Unlock()
	return fettle.Observation{
		Subject: h.voter(), Probe: "ballot.voter", Facts: fettle.Facts{"stale": stale, "serves": h.serves()},
		Edges: []fettle.Edge{
			{From: h.voter(), Rel: fettle.PartOf, To: ballotSubject()}, {From: h.voter(), Rel: fettle.RunsOn, To: fettle.HostSubject(h.id)},
			{From: h.voter(), Rel: fettle.Uses, To: fettle.NewSubject(fettle.KindUnit, h.id, voteUnit)},
		},
	}
}

// groupSeen is the whole as one host sees it: of whom it does not reach it knows nothing.
func (r *run) groupSeen(from *host) fettle.Observation {
	g := &fettle.QuorumGroup{}
	for _, h := range r.voters() {
		m := fettle.QuorumMember{Subject: h.voter(), ID: h.id, Voter: true, LogLost: fettle.No}
		if from == h || r.net.reach(from.name, h.name) && r.net.reach(h.name, from.name) {
			m.Serving = fettle.No
			if h.serves() {
				m.Serving = fettle.Yes
			}
		}
		g.Members = append(g.Members, m)
	}
	return fettle.Observation{
		Subject: ballotSubject(), Probe: "ballot.group", Quorum: g, Facts: fettle.Facts{"serving": int64(g.ServingVotes())},
	}
}

// vote starts or stops a voter.
type vote struct {
	h  *host
	up bool
}

// Preview implements fettle.Action.
func (a vote) Preview(context.Context, fettle.Step) (fettle.Preview, error) {
	return fettle.Preview{Would: []string{"start or stop it"}}, nil
}

// Apply implements fettle.Action.
func (a vote) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	return fettle.Result{}, a.do(ctx, d, a.up)
}

// Undo implements fettle.Action.
func (a vote) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	return fettle.Result{}, a.do(ctx, d, !a.up)
}

func (a vote) do(ctx context.Context, d fettle.Dispatch, up bool) error {
	act := a.h.box().Ports().Services.Stop
	if up {
		act = a.h.box().Ports().Services.Start
	}
	res, err := act(ctx, voteUnit)
	if err == nil && res.Result != "done" && res.Result != "skipped" {
		err = fmt.Errorf("the job ended with %s", res.Result)
	}
	if err != nil {
		return &fettle.Error{Op: d.Step.Action, Subject: d.Step.Target, Class: fettle.NoAnswer, Err: err}
	}
	a.h.mu.Lock()
	if up {
		a.h.stale = false
	}
	a.h.did[d.Key] = true
	a.h.mu.Unlock()
	a.h.r.turn()
	return nil
}

// Recover implements fettle.Action: the machine remembers the keys.
func (a vote) Recover(_ context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	if a.h.did[d.Key] {
		return fettle.Done, fettle.Result{}, nil
	}
	return fettle.NeverWillBe, fettle.Result{}, nil
}
