package show_test

import (
	"time"

	"fettle/internal/fettle"
)

func at(d time.Duration) time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(d) }

func key(code fettle.Code, s fettle.Subject) fettle.ConditionKey {
	return fettle.ConditionKey{Code: code, Subject: s}
}

const (
	member = fettle.Subject("etcd-member:main/e2")
	host   = fettle.Subject("host:4y5havmh2npuykiurct4")
)

// plan has steps of every shape: another host than the target and the same, with
// and without parameters, late ones, conditions, expectations and undo.
func plan() fettle.Plan {
	return fettle.Plan{
		Runbook: "etcd.data_lost", Rung: "replace", Risk: fettle.MediumRisk, Takes: []fettle.Taking{fettle.TakesVotes, fettle.TakesData},
		Hash: "0123456789abcdef0123456789abcdef", Loses: "nothing that the other members do not have; what this member alone had acknowledged to nobody",
		Judged: fettle.Pins{Judge: "1", Catalogue: "cccccccccccccccc", Runbooks: "rrrr", Policy: ""},
		Steps: []fettle.Step{
			{
				ID: "remove", Action: "etcd.member_remove", Target: member, Host: host, Params: fettle.Facts{"id": "548738df017bb232", "force": false},
				Takes: []fettle.Taking{fettle.TakesVotes}, Expect: "!has_fact(target, 'member_id') && quorum(group).voters == 2", Within: 10 * time.Second, ForwardOnly: "a member that was removed never comes back under its identity",
			},
			{
				ID: "add", Action: "etcd.member_add", Target: member, Host: host, When: "member(group, target).voter", Undo: true,
				Late: []fettle.Late{{Param: "id", Step: "remove", Output: "id"}}, Expect: "fact(target, 'learner')", Within: 90 * time.Second, Hold: 5 * time.Second,
			},
			{ID: "look", Action: "host.look", Target: host, Host: host, ForwardOnly: ""},
		},
	}
}

func verdicts() []fettle.Verdict {
	return []fettle.Verdict{
		{Guard: "fresh", Invariant: "S1", Allow: true, Why: "every fact was asked for within 2 s"},
		{Guard: "quorum", Invariant: "S2", Allow: true, Why: "the group keeps serving", Arithmetic: "serving 3 → 2, claimed by others 0, majority of 2 voters is 2: 2 − 0 = 2, needs 2"},
		{
			Guard: "budget", Invariant: "S3", Why: "the pool of etcd-member:main has one that is ill already, and a second may not be touched", Arithmetic: "ill or claimed 1 + 1 = 2 > 1 (34 ‰ of 3)",
			Lifts: "that etcd-member:main/e1 is well again, or a larger budget in the policy file",
		},
		{Guard: "autonomy", Invariant: "S11", Why: "a person decides"},
	}
}

func condition() fettle.Condition {
	return fettle.Condition{
		ConditionKey: key("etcd.data_lost", member), State: fettle.Yes, Title: "member has lost its data (missing)",
		Evidence: []fettle.Evidence{
			{Observer: fettle.Observer{Host: host, Probe: "etcd.local"}, Says: fettle.Yes, Facts: fettle.Facts{"data": "missing", "data_dir": "/var/lib/etcd/a-rather-long-folder/default.etcd", "bytes": int64(0)}},
			{Observer: fettle.Observer{Host: "host:h2", Probe: "etcd.cluster"}, Says: fettle.No},
			{Observer: fettle.Observer{Host: "host:h3", Probe: "etcd.cluster"}, Says: fettle.Unknown, Reason: fettle.PermissionDenied},
			{Observer: fettle.Observer{Host: "host:h4", Probe: "etcd.cluster"}, Says: fettle.Unknown}, // says nothing, and is not shown
		},
	}
}

func diagnosis() fettle.Diagnosis {
	lost := key("etcd.data_lost", member)
	return fettle.Diagnosis{
		Cost: 12, Stopped: "the limit of 10000 sets was reached", Ill: []fettle.ConditionKey{key("fettle.observer_ill", "host:h9")},
		Causes: []fettle.Cause{
			{ConditionKey: lost, Observed: true, Explains: []fettle.ConditionKey{lost, key("systemd.unit_failed", "unit:4y5havmh2npuykiurct4/etcd.service")}, For: []string{"it was seen 8 ms before the unit failed"}, Against: []string{"the disk under it is well"}},
			{ConditionKey: key("disk.dead", "disk:4y5havmh2npuykiurct4/sda")},
		},
		Unsettled: []fettle.Alternative{{Causes: []fettle.ConditionKey{key("disk.dead", "disk:4y5havmh2npuykiurct4/sda")}, Cost: 13}},
		Look:      []fettle.Look{{Subject: "disk:4y5havmh2npuykiurct4/sda", Probe: "disk.smart"}},
	}
}

func story() fettle.Incident {
	p := plan()
	return fettle.Incident{
		ID: "tap5fdsz", Opened: at(0), State: fettle.Held, Why: "S3 budget: one member is ill already; lifted when it is well again",
		Cause: key("etcd.data_lost", member), Diagnosis: diagnosis(), Plan: &p,
		Story: []fettle.Event{
			{At: at(0), Kind: fettle.EvRaised, Text: "member has lost its data (missing) (etcd.data_lost on etcd-member:main/e2), seen by 4y5havmh2npuykiurct4/etcd.local", Took: 8100 * time.Microsecond},
			{At: at(50 * time.Millisecond), Kind: fettle.EvPlanned, Text: "etcd.data_lost, rung replace"},
			{At: at(60 * time.Millisecond), Kind: fettle.EvRefused, Text: "step remove is refused", Step: "remove", Verdicts: verdicts(), Times: 3},
			{At: at(time.Minute), Kind: fettle.EvAnswered, Text: "approved", By: "anna"},
			{At: at(61 * time.Second), Kind: fettle.EvVerified, Text: "observed as predicted", Took: 16 * time.Millisecond},
			{At: at(62 * time.Second), Kind: "of-a-newer-version", Text: "something that this program does not know"},
		},
		Receipts: []fettle.Receipt{
			{What: "/var/lib/etcd/default.etcd", Where: "/var/lib/etcd/set-aside/1", Bytes: 4096, Back: "mv /var/lib/etcd/set-aside/1 /var/lib/etcd/default.etcd"},
			{What: "/var/cache/apt/archives/x.deb", Bytes: 10},
		},
	}
}
