// Package pretend is a made-up external system, the ring, for the tests of what
// knows no real one: a cluster that decides by majority, each member a unit on a
// host. It is data only, and no part of the product.
package pretend

import (
	"time"

	"fettle/internal/fettle"
)

// The ring's kinds.
const (
	Ring   fettle.Kind = "ring"        // ring:ID
	Member fettle.Kind = "ring-member" // ring-member:RING/NAME
)

// Catalogues returns the catalogues of the ring and of the units under it.
func Catalogues() []fettle.Catalogue {
	return []fettle.Catalogue{
		{Adapter: "ring", Conditions: conditions(), Probes: probes(), Actions: actions(),
			Kinds: []fettle.KindSpec{{Kind: Ring, Doc: "the ring's id"}, {Kind: Member, Doc: "the ring's id, the member's name"}}},
		{Adapter: "box",
			Kinds: []fettle.KindSpec{{Kind: fettle.KindUnit, Doc: "host, unit"}, {Kind: fettle.KindHost, Doc: "the host's id"}},
			Probes: []fettle.ProbeSpec{{Name: "box.unit", Kind: fettle.KindUnit, Facts: []fettle.FactSpec{
				{Name: "active_state", Type: fettle.StringFact}, {Name: "restarts", Type: fettle.IntFact},
			}}},
			Conditions: []fettle.ConditionSpec{{Code: "box.unit_failed", Kind: fettle.KindUnit, Layer: fettle.HostLayer, Probe: "box.unit", Raise: "self.active_state == 'failed'"}},
			Actions: []fettle.ActionSpec{{
				Name: "box.start", Version: 1, Target: fettle.KindUnit, Risk: fettle.LowRisk, Undo: true, Timeout: 5 * time.Second,
				Effects: []fettle.EffectSpec{{Fact: "active_state", To: "'active'"}},
			}},
		},
	}
}

func conditions() []fettle.ConditionSpec {
	return []fettle.ConditionSpec{
		{Code: "ring.member_down", Kind: Member, Layer: fettle.Coordination, Probe: "ring.member", Raise: "!self.running"},
		{Code: "ring.data_lost", Kind: Member, Layer: fettle.Data, Probe: "ring.member", Raise: "!self.data_ok"},
		{Code: "ring.slow", Kind: Member, Layer: fettle.Coordination, Probe: "ring.member", Raise: "self.lag_ms > 100"},
		{Code: "ring.no_leader", Kind: Ring, Layer: fettle.Coordination, Probe: "ring.group", Raise: "self.leader == ''", NotMended: "it elects one by itself"},
		{Code: "ring.stopped", Kind: Member, Layer: fettle.Coordination, Probe: "ring.member", Raise: "!self.running", Explains: true},
	}
}

func probes() []fettle.ProbeSpec {
	return []fettle.ProbeSpec{
		{Name: "ring.member", Kind: Member, Facts: []fettle.FactSpec{
			{Name: "member_id", Type: fettle.StringFact},
			{Name: "running", Type: fettle.BoolFact},
			{Name: "data_ok", Type: fettle.BoolFact},
			{Name: "lag_ms", Type: fettle.IntFact},
			{Name: "peers", Type: fettle.ListFact},
		}},
		{Name: "ring.group", Kind: Ring, Facts: []fettle.FactSpec{{Name: "leader", Type: fettle.StringFact}, {Name: "size", Type: fettle.IntFact}}},
	}
}

func actions() []fettle.ActionSpec {
	id := fettle.ParamSpec{Name: "id", Type: fettle.StringFact, Required: true, Doc: "the identity under which it votes"}
	second := time.Second
	return []fettle.ActionSpec{
		{Name: "ring.remove", Version: 2, Target: Member, Params: []fettle.ParamSpec{id}, Risk: fettle.MediumRisk, Scope: fettle.ClusterScope,
			Takes: []fettle.Taking{fettle.TakesVotes}, NoUndo: "an identity that was removed is never accepted again", Timeout: 5 * second,
			Effects: []fettle.EffectSpec{{Quorum: fettle.QuorumRemove}, {On: "group", Fact: "size", To: "was - 1"}}},
		{Name: "ring.set_aside", Version: 1, Target: Member, Risk: fettle.MediumRisk, Takes: []fettle.Taking{fettle.TakesData}, Undo: true, Timeout: 30 * second,
			Outputs: []fettle.ParamSpec{{Name: "where", Type: fettle.StringFact}},
			Effects: []fettle.EffectSpec{{Fact: "data_ok", To: "false"}}},
		{Name: "ring.add", Version: 1, Target: Member, Risk: fettle.LowRisk, Undo: true, Timeout: 5 * second,
			Outputs: []fettle.ParamSpec{{Name: "id", Type: fettle.StringFact}, {Name: "peers", Type: fettle.ListFact}},
			Effects: []fettle.EffectSpec{{Quorum: fettle.QuorumLearner}, {Fact: "member_id", To: "out.id"}, {On: "group", Fact: "size", To: "was + 1"}}},
		{Name: "ring.start", Version: 1, Target: Member, Risk: fettle.LowRisk, Undo: true, Timeout: 5 * second,
			Params:  []fettle.ParamSpec{{Name: "peers", Type: fettle.ListFact}},
			Effects: []fettle.EffectSpec{{Quorum: fettle.QuorumStart}, {Fact: "running", To: "true"}}},
		{Name: "ring.promote", Version: 1, Target: Member, Params: []fettle.ParamSpec{id}, Risk: fettle.LowRisk, NoUndo: "a vote is taken only by removal", Timeout: 5 * second,
			Effects: []fettle.EffectSpec{{Quorum: fettle.QuorumPromote}}},
		{Name: "ring.stop", Version: 1, Target: Member, Risk: fettle.LowRisk, Takes: []fettle.Taking{fettle.TakesVotes, fettle.TakesCapacity}, Undo: true, Timeout: 5 * second,
			Effects: []fettle.EffectSpec{{Quorum: fettle.QuorumStop}, {Fact: "running", To: "false"}}},
		{Name: "ring.lead", Version: 1, Target: Member, Risk: fettle.LowRisk, Undo: true, Timeout: 5 * second,
			Params:  []fettle.ParamSpec{{Name: "to", Type: fettle.StringFact, Required: true, Doc: "the subject of who shall lead"}},
			Effects: []fettle.EffectSpec{{Quorum: fettle.QuorumYield}, {On: "with.to", Quorum: fettle.QuorumLead}}},
		{Name: "ring.wipe", Version: 1, Target: Member, Risk: fettle.HighRisk, Takes: []fettle.Taking{fettle.TakesData}, NoUndo: "what is gone is gone", Timeout: second},
		{Name: "ring.note", Version: 1, Target: Member, Risk: fettle.LowRisk, Undo: true, Timeout: second,
			Params: []fettle.ParamSpec{{Name: "text", Type: fettle.StringFact}, {Name: "count", Type: fettle.IntFact}, {Name: "loud", Type: fettle.BoolFact}, {Name: "tags", Type: fettle.ListFact}}},
	}
}

// Name is the subject of a member of the ring r.
func Name(member string) fettle.Subject { return fettle.NewSubject(Member, "r", member) }

// Group is the subject of the ring r.
const Group fettle.Subject = "ring:r"

// Observations are those of a ring of three, a, b and c, on the hosts h-a, h-b
// and h-c, at one time. a leads; c is down and its data is gone.
func Observations(at time.Time) []fettle.Observation {
	var list []fettle.Observation
	group := fettle.QuorumGroup{}
	for i, name := range []string{"a", "b", "c"} {
		m, host := Name(name), fettle.HostSubject("h-"+name)
		unit := fettle.NewSubject(fettle.KindUnit, "h-"+name, "ring.service")
		up := name != "c"
		list = append(list, fettle.Observation{
			Subject: m, Host: host, Probe: "ring.member", Asked: at,
			Facts: fettle.Facts{"member_id": "id-" + name, "running": up, "data_ok": up, "lag_ms": int64(i), "peers": []string{"a", "b", "c"}},
			Edges: []fettle.Edge{{From: m, Rel: fettle.PartOf, To: Group}, {From: m, Rel: fettle.RunsOn, To: host}, {From: m, Rel: fettle.Uses, To: unit}},
		}, fettle.Observation{
			Subject: unit, Host: host, Probe: "box.unit", Asked: at, Edges: []fettle.Edge{{From: unit, Rel: fettle.RunsOn, To: host}},
			Facts: fettle.Facts{"active_state": map[bool]string{true: "active", false: "failed"}[up], "restarts": int64(0)},
		})
		group.Members = append(group.Members, fettle.QuorumMember{Subject: m, ID: "id-" + name, Voter: true, Serving: fettle.TriOf(up), Leader: name == "a", LogLost: fettle.TriOf(!up)})
	}
	return append(list, fettle.Observation{
		Subject: Group, Host: fettle.HostSubject("h-a"), Probe: "ring.group", Asked: at,
		Facts: fettle.Facts{"leader": "a", "size": int64(3)}, Quorum: &group,
	})
}
