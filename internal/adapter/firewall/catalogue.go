package firewall

import (
	"time"

	"fettle/internal/fettle"
)

// KindFirewall is the kind of a machine's packet filter.
const KindFirewall fettle.Kind = "firewall"

// Drifted is the code of the condition.
const Drifted fettle.Code = "firewall.drifted"

const rulesetProbe = "firewall.ruleset"

// Catalogue returns what the adapter knows and can do.
func Catalogue() fettle.Catalogue {
	return fettle.Catalogue{
		Adapter: "firewall",
		Doc: "The packet filter of one machine. Sees that what is in force drops or rejects otherwise than the persisted ruleset would, and puts that in force " +
			"again, behind a revert that is armed beforehand. Always asks, since what differs may be what a person meant. Never touches tables that the persisted ruleset does not speak of.",
		Versions: "nftables 1.0.6",
		Kinds:    []fettle.KindSpec{{Kind: KindFirewall, Doc: "HOST/nftables: the packet filter of a machine"}},
		Conditions: []fettle.ConditionSpec{{
			Code: Drifted, Title: "the firewall in force is not the persisted one (in force only: {added}; persisted only: {missing}; last changed by {changed_by})",
			Kind: KindFirewall, Layer: fettle.Network, Severity: fettle.Warning, Scope: fettle.HostScope, Probe: rulesetProbe,
			Raise: `self.differs`,
			// A person or a program that changes it step by step is not in the middle of it
			// any more.
			Delay: 3 * time.Second, Expiry: 2 * time.Minute,
			Effects: []fettle.EffectOn{
				{Condition: "etcd.member_down", Path: ">runs-on <runs-on", Surely: fettle.Sometimes, Within: time.Minute},
				{Condition: "etcd.no_leader", Path: ">runs-on <runs-on >part-of", Surely: fettle.Sometimes, Within: time.Minute},
				{Condition: "systemd.unit_hung", Path: ">runs-on <runs-on", Surely: fettle.Sometimes, Within: time.Minute},
			},
			Doc: "A rule, chain, policy or set that decides over packets is in force and not persisted, or the other way round: it was changed by hand or by another program, and the " +
				"next boot undoes it. Counters, comments and logging do not count. By hand: nft -s list ruleset, and compare it with the file.",
		}},
		Probes: []fettle.ProbeSpec{{
			Name: rulesetProbe, Kind: KindFirewall, Interval: 30 * time.Second, Timeout: 5 * time.Second, Told: true, Root: true,
			Needs: "CAP_NET_ADMIN, and CAP_SYS_ADMIN to try the file out in a network namespace of its own",
			Doc:   "Reads the ruleset in force, and what the persisted file would put in force. Told by netlink of every change of the ruleset; a change of the file is seen by the poll.",
			Facts: []fettle.FactSpec{
				{Name: "file", Type: fettle.StringFact, Doc: "the persisted ruleset"},
				{Name: "differs", Type: fettle.BoolFact, Doc: "they differ in what decides over packets"},
				{Name: "blocks", Type: fettle.BoolFact, Doc: "the difference may drop or reject what the persisted ruleset lets through"},
				{Name: "mendable", Type: fettle.BoolFact, Doc: "the persisted file speaks of all that differs"},
				{Name: "added", Type: fettle.ListFact, Doc: "rules in force that are not persisted, the first ones"},
				{Name: "missing", Type: fettle.ListFact, Doc: "persisted rules that are not in force, the first ones"},
				{Name: "foreign", Type: fettle.ListFact, Doc: "tables that differ and of which the persisted file says nothing"},
				{Name: "live_hash", Type: fettle.StringFact, Doc: "of what is in force"},
				{Name: "persisted_hash", Type: fettle.StringFact, Doc: "of what is persisted"},
				{Name: "changed_by", Type: fettle.StringFact, Doc: "the process that made the last change since this agent began, as the kernel names it; unknown: it was not told of any"},
			},
		}},
		Actions: []fettle.ActionSpec{{
			Name: "firewall.restore", Version: 1, Target: KindFirewall, Risk: fettle.MediumRisk, Scope: fettle.HostScope,
			Takes: []fettle.Taking{fettle.TakesReachability}, Armed: true, Undo: true, Timeout: time.Minute,
			Outputs: []fettle.ParamSpec{
				{Name: "before", Type: fettle.StringFact, Doc: "an nft script that puts back what was in force"},
				{Name: "live_hash", Type: fettle.StringFact, Doc: "of what is in force now"},
			},
			Effects: []fettle.EffectSpec{{Fact: "differs", To: "false"}},
			Needs:   "CAP_NET_ADMIN",
			Doc: "Replaces the tables that differ by those of the persisted file, in one transaction. What was in force comes back by itself unless a server is reached over a new " +
				"connection in time. Undo puts it back.",
		}},
		Faults: []fettle.FaultSpec{{
			Name: "firewall.drop", Target: KindFirewall, Raises: Drifted,
			Params: []fettle.ParamSpec{{Name: "port", Type: fettle.IntFact, Doc: "the TCP port that is dropped; left out: 9 (discard), which nobody misses"}},
			Doc:    "Drops what comes in for a TCP port, in a table of its own. Reverted by deleting that table.",
		}},
	}
}
