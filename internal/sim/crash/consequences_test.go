package crash

import (
	"slices"

	"fettle/internal/fettle"
)

// consequences are what the real systems do besides what their catalogues declare
// as effects: a service that starts answers, a journal that is let go leaves room.
// The world of a run would stay ill without them.
func consequences() map[string][]fettle.EffectSpec {
	const unit = "one(target, '>uses')" // the service that an etcd member runs as
	becomes := func(fact, to string) fettle.EffectSpec { return fettle.EffectSpec{Fact: fact, To: to} }
	on := func(subject, fact, to string) fettle.EffectSpec {
		return fettle.EffectSpec{On: subject, Fact: fact, To: to}
	}
	started := []fettle.EffectSpec{
		becomes("sub_state", `"running"`), becomes("result", `"success"`), becomes("stopped_by", `""`), becomes("was_active", "true"),
		becomes("invocation_id", `was + "+"`), becomes("starts_10m", "was + 1"), becomes("main_pid", "was + 1"), becomes("answers", "true"),
	}
	roomy := []fettle.EffectSpec{becomes("used_permille", "600"), becomes("write_error", `""`), becomes("avail_bytes", "was + 1000000")}
	freed := func(fact, to string) []fettle.EffectSpec { return append(slices.Clone(roomy), becomes(fact, to)) }
	return map[string][]fettle.EffectSpec{
		"systemd.start":        started,
		"systemd.restart":      started,
		"systemd.reset_failed": {becomes("sub_state", `"dead"`), becomes("result", `"success"`)},

		"filesystem.vacuum_journal":      freed("journal_bytes", "with.keep_bytes"),
		"filesystem.clean_package_cache": freed("package_cache_bytes", "0"),
		"filesystem.compress_logs":       freed("rotated_log_bytes", "0"),
		"filesystem.ask_reopen":          freed("deleted_open_bytes", "0"),

		"etcd.start":    {on(unit, "active_state", `"active"`), on(unit, "sub_state", `"running"`)},
		"etcd.snapshot": {},
	}
}

// settled is a quorum group after a step, once the real system has come to rest:
// what the prediction leaves open is decided here. A learner serves when it is
// started; members that stand elect a leader as soon as they are a majority.
func settled(before, predicted fettle.QuorumGroup, step fettle.Step) *fettle.QuorumGroup {
	g := predicted.Clone()
	for i := range g.Members {
		m := &g.Members[i]
		was, member := before.Member(m.Subject)
		switch {
		case m.Serving != fettle.Unknown:
		case member:
			m.Serving = was.Serving
		default:
			m.Serving = fettle.No
		}
	}
	leads := slices.ContainsFunc(g.Members, func(m fettle.QuorumMember) bool { return m.Leader })
	if i := slices.IndexFunc(g.Members, func(m fettle.QuorumMember) bool {
		return m.Voter && m.Serving == fettle.Yes && m.Subject != step.Target
	}); !leads && i >= 0 && g.ServingVotes() >= g.Majority() {
		g.Members[i].Leader = true
	}
	return &g
}

// countVotes brings the facts that are counted from a group into line with it.
func countVotes(o fettle.Observation) {
	g := o.Quorum
	for name, n := range map[string]int{"voters": g.Voters(), "serving": g.ServingVotes(), "learners": len(g.Members) - g.Voters()} {
		if _, has := o.Facts[name]; has {
			o.Facts[name] = int64(n)
		}
	}
	leader := slices.IndexFunc(g.Members, func(m fettle.QuorumMember) bool { return m.Leader })
	if _, has := o.Facts["has_leader"]; has {
		o.Facts["has_leader"] = leader >= 0
	}
	if _, has := o.Facts["leader"]; has && leader >= 0 {
		o.Facts["leader"] = g.Members[leader].Subject.Name()
	}
}
