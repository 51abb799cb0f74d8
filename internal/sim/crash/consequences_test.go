package crash

import (
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
		"etcd.defrag":        {on(cluster, "db_bytes", "fact(target, 'leader') ? fact('"+"'+"+`''`+", 'x') : was")},
	}
}
