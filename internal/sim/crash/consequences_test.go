package crash

import (
	"maps"
	"slices"

	"fettle/internal/fettle"
)

// consequences are what the real systems do besides what their catalogues declare
// as effects: a service that starts answers, a journal that is let go leaves room.
// The world of a run would stay ill without them.
func consequences() map[string][]fettle.EffectSpec {
	becomes := func(fact, to string) fettle.EffectSpec { return fettle.EffectSpec{Fact: fact, To: to} }
	on := func(subject, fact, to string) fettle.EffectSpec {
		return fettle.EffectSpec{On: subject, Fact: fact, To: to}
	}
	const (
		unit    = "one(target, '>uses')"    // the service that an etcd member runs as
		cluster = "one(target, '>part-of')" // that it is a member of
	)
	// A second start shows: in the count of starts and in the invocation.
	started := []fettle.EffectSpec{
		becomes("sub_state", `"running"`), becomes("result", `"success"`), becomes("stopped_by", `""`), becomes("was_active", "true"),
		becomes("invocation_id", `was + "+"`), becomes("starts_10m", "was + 1"), becomes("main_pid", "was + 1"), becomes("answers", "true"),
	}
	roomy := func(fact, to string) []fettle.EffectSpec {
		return []fettle.EffectSpec{becomes("used_permille", "600"), becomes("write_error", `""`), becomes("avail_bytes", "was + 1000000"), becomes(fact, to)}
	}
	return map[string][]fettle.EffectSpec{
		"systemd.start":        started,
		"systemd.restart":      started,
		"systemd.reset_failed": {becomes("sub_state", `"dead"`), becomes("result", `"success"`)},

		"filesystem.vacuum_journal":      roomy("journal_bytes", "with.keep_bytes"),
		"filesystem.clean_package_cache": roomy("package_cache_bytes", "0"),
		"filesystem.compress_logs":       roomy("rotated_log_bytes", "0"),
		"filesystem.ask_reopen":          roomy("deleted_open_bytes", "0"),

		"etcd.start": {
			on(unit, "active_state", `"active"`), on(unit, "sub_state", `"running"`), on(unit, "starts_10m", "was + 1"),
			becomes("health", "true"), becomes("damage", `""`), becomes("log_lost", "false"), becomes("data_present", "true"),
			becomes("compared", "3"), becomes("same", "3"), becomes("largest", "3"),
		},
		"etcd.stop": {
			on(unit, "active_state", `"inactive"`), on(unit, "sub_state", `"dead"`), on(unit, "stopped_by", `"fettle"`), becomes("health", "false"),
			becomes("log_state", `was == "running" ? "whole" : was`),
		},
		"etcd.member_remove": {becomes("log_state", `was == "whole" ? "foreign" : was`)},
		"etcd.set_aside":     {becomes("damage", `""`), becomes("data_bytes", "0")},
		"etcd.compact":       {becomes("db_in_use_bytes", "was / 2")},
		"etcd.defrag":        {on(cluster, "db_bytes", "fact(target, 'leader') ? fact("+cluster+", 'db_in_use_bytes') : was")},
	}
}

// settled is a quorum group after a step, once the real system has come to rest:
// what the prediction leaves open is decided here. A member that was just added
// does not serve yet; those that stand elect a leader as soon as they are a
// majority, and not the one that has just yielded.
func settled(before, predicted fettle.QuorumGroup, step fettle.Step, outputs fettle.Facts) fettle.QuorumGroup {
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
		if id, ok := outputs.Str("id"); ok && m.Subject == step.Target {
			m.ID = id
		}
	}
	leads := slices.ContainsFunc(g.Members, func(m fettle.QuorumMember) bool { return m.Leader })
	next := slices.IndexFunc(g.Members, func(m fettle.QuorumMember) bool {
		return m.Voter && m.Serving == fettle.Yes && m.Subject != step.Target
	})
	if !leads && next >= 0 && g.ServingVotes() >= g.Majority() {
		g.Members[next].Leader = true
	}
	return g
}

// follow brings what an observation says of a group, or of one of its members,
// into line with what has become of the group.
func follow(o fettle.Observation, subject fettle.Subject, g fettle.QuorumGroup) fettle.Observation {
	set := func(name string, v fettle.Value) {
		if _, has := o.Facts[name]; has {
			o.Facts[name] = v
		}
	}
	leader := slices.IndexFunc(g.Members, func(m fettle.QuorumMember) bool { return m.Leader })
	switch {
	case o.Subject == subject && o.Quorum != nil:
		before := *o.Quorum
		now := g.Clone()
		for i := range now.Members { // each sees only its own log
			was, _ := before.Member(now.Members[i].Subject)
			now.Members[i].LogLost = was.LogLost
		}
		o.Quorum = &now
		set("voters", int64(g.Voters()))
		set("serving", int64(g.ServingVotes()))
		set("learners", int64(len(g.Members)-g.Voters()))
		set("has_leader", leader >= 0)
		if leader >= 0 {
			set("leader", g.Members[leader].Subject.Name())
		}
	case slices.ContainsFunc(o.Edges, func(e fettle.Edge) bool {
		return e.From == o.Subject && e.Rel == fettle.PartOf && e.To == subject
	}):
		m, member := g.Member(o.Subject)
		set("listed", member)
		set("leader", m.Leader)
		set("learner", member && !m.Voter)
		if m.ID != "" {
			set("member_id", m.ID)
		}
		if !member {
			set("standing", "none")
			set("log_lost", false) // an identity that nobody knows has promised nothing
		}
	}
	return o
}

// completed adds what the machines' probes see besides and the cases leave out: a
// comparison of hashes, where there are members to be compared.
func completed(seen map[sight]fettle.Observation) {
	compared := map[fettle.Subject]bool{}
	answering := map[fettle.Subject]int64{} // by host
	for s, o := range seen {
		compared[s.subject] = compared[s.subject] || s.probe == "etcd.hash"
		if answers, _ := o.Facts.Bool("answers"); answers && s.probe == "etcd.member" {
			answering[s.host]++
		}
	}
	for s, o := range maps.Clone(seen) {
		if s.probe != "etcd.member" || compared[s.subject] {
			continue
		}
		n := answering[s.host]
		o.Probe, o.Facts = "etcd.hash", fettle.Facts{"hash": int64(5), "hash_revision": int64(500), "compact_revision": int64(-1), "compared": n, "same": n, "largest": n}
		if answers, _ := seen[s].Facts.Bool("answers"); !answers {
			o.Facts, o.Reason = nil, fettle.Unreachable
		}
		seen[sightOf(o)] = o
	}
}
