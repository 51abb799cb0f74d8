package etcd

import (
	"time"

	"fettle/internal/fettle"
)

func text(name, doc string) fettle.ParamSpec {
	return fettle.ParamSpec{Name: name, Type: fettle.StringFact, Doc: doc}
}

func number(name, doc string) fettle.ParamSpec {
	return fettle.ParamSpec{Name: name, Type: fettle.IntFact, Doc: doc}
}

func required(p fettle.ParamSpec) fettle.ParamSpec { p.Required = true; return p }

func becomes(name, value string) fettle.EffectSpec { return fettle.EffectSpec{Fact: name, To: value} }

func vote(q fettle.QuorumEffect) fettle.EffectSpec { return fettle.EffectSpec{Quorum: q} }

const (
	needsService = "manage units"
	needsCluster = "the leader's client port; where the cluster has users, one with the role root"
	needsFiles   = "write access to the data directory and beside it"
)

func membershipActions() []fettle.ActionSpec {
	return []fettle.ActionSpec{
		{
			Name: "etcd.start", Version: 1, Target: KindMember, Outputs: []fettle.ParamSpec{text("invocation_id", "of the start")},
			Risk: fettle.LowRisk, Scope: fettle.HostScope, Timeout: 75 * time.Second, Undo: true, Needs: needsService,
			Effects: []fettle.EffectSpec{
				becomes("unit_active", "true"), becomes("unit_state", `"active"`), becomes("answers", "true"), becomes("log_state", `"running"`),
				becomes("standing", `was == "unstarted" ? "learner" : was`), vote(fettle.QuorumStart),
			},
			Doc: "Starts the member's service. Refused when its log is missing, damaged or another identity's, unless it was added anew and has never joined. Undo stops it.",
		},
		{
			Name: "etcd.stop", Version: 1, Target: KindMember, Risk: fettle.MediumRisk, Scope: fettle.HostScope,
			Takes: []fettle.Taking{fettle.TakesVotes}, Timeout: 2 * time.Minute, Undo: true, Needs: needsService,
			Effects: []fettle.EffectSpec{
				becomes("unit_active", "false"), becomes("unit_state", `"inactive"`), becomes("answers", "false"), vote(fettle.QuorumStop),
			},
			Doc: "Stops the member's service. Undo starts it.",
		},
		{
			Name: "etcd.move_leader", Version: 1, Target: KindMember, Params: []fettle.ParamSpec{text("to", "the subject of the voter that shall lead; left out: the one that is furthest")},
			Outputs: []fettle.ParamSpec{text("leader", "the subject of the new leader")},
			Risk:    fettle.LowRisk, Scope: fettle.ClusterScope, Timeout: 15 * time.Second, Undo: true, Needs: needsCluster,
			Effects: []fettle.EffectSpec{becomes("leader", "false"), vote(fettle.QuorumYield)},
			Doc:     "Hands leadership from the target to another voter: a tenth of a second without writes, where losing the leader takes one to three. Undo hands it back.",
		},
		{
			Name: "etcd.member_remove", Version: 1, Target: KindMember, Params: []fettle.ParamSpec{required(text("id", "the identity that is removed, in hex"))},
			Risk: fettle.MediumRisk, Scope: fettle.ClusterScope, Takes: []fettle.Taking{fettle.TakesVotes}, Timeout: 20 * time.Second, Needs: needsCluster,
			NoUndo:  "an identity that was removed is never accepted again; the member comes back under a new one",
			Effects: []fettle.EffectSpec{becomes("standing", `"none"`), vote(fettle.QuorumRemove)},
			Doc:     "Removes the member from the cluster under exactly this identity. Refused while it leads, and when those that stay would not be a serving majority by the adapter's own count.",
		},
		{
			Name: "etcd.set_aside", Version: 1, Target: KindMember, Outputs: []fettle.ParamSpec{text("path", "where the data is now"), number("bytes", "how much")},
			Risk: fettle.MediumRisk, Scope: fettle.HostScope, Takes: []fettle.Taking{fettle.TakesData}, Timeout: 30 * time.Second, Undo: true, Needs: needsFiles,
			Effects: []fettle.EffectSpec{becomes("data_present", "false"), becomes("log_state", `"missing"`)},
			Doc:     "Renames the member's data away, beside it, with a manifest; frees no space. Refused while the server runs, and while the cluster knows the identity that the data belongs to. Undo renames it back.",
		},
		{
			Name: "etcd.member_add", Version: 1, Target: KindMember, Outputs: []fettle.ParamSpec{text("id", "the new identity, in hex")},
			Risk: fettle.LowRisk, Scope: fettle.ClusterScope, Timeout: 30 * time.Second, Undo: true, Needs: needsCluster,
			Effects: []fettle.EffectSpec{becomes("standing", `"unstarted"`), vote(fettle.QuorumLearner)},
			Doc:     "Adds the target's peer URL as a learner, without a vote. Waits while the cluster calls itself unhealthy: right after a change it does so for five seconds. Undo removes the learner.",
		},
		{
			Name: "etcd.configure", Version: 1, Target: KindMember, Params: []fettle.ParamSpec{
				required(text("state", "INITIAL_CLUSTER_STATE: existing, to join; new, so that an empty data directory can never join under an identity that has voted")),
				text("id", "with existing: the identity that the member was added under"),
			},
			Outputs: []fettle.ParamSpec{text("backup", "a copy of the file as it was")},
			Risk:    fettle.LowRisk, Scope: fettle.HostScope, Timeout: 15 * time.Second, Undo: true, Needs: "write access to the member's settings",
			Effects: []fettle.EffectSpec{becomes("configured_state", "with.state")},
			Doc:     "Writes INITIAL_CLUSTER, exactly as the leader lists the members, and INITIAL_CLUSTER_STATE into the member's settings; everything else in the file stays. Undo restores the file.",
		},
		{
			Name: "etcd.promote", Version: 1, Target: KindMember, Params: []fettle.ParamSpec{required(text("id", "the learner's identity, in hex"))},
			Risk: fettle.LowRisk, Scope: fettle.ClusterScope, Timeout: 10 * time.Minute, Needs: needsCluster,
			NoUndo:  "a voter can only be removed",
			Effects: []fettle.EffectSpec{becomes("standing", `"voter"`), becomes("learner", "false"), vote(fettle.QuorumPromote)},
			Doc:     "Gives the learner its vote, as soon as it has caught up: asked again until it has.",
		},
	}
}

func maintenanceActions() []fettle.ActionSpec {
	return []fettle.ActionSpec{
		{
			Name: "etcd.snapshot", Version: 1, Target: KindCluster, Params: []fettle.ParamSpec{text("avoid", "the subject of a member that it must not be taken from")},
			Outputs: []fettle.ParamSpec{text("path", "the file, on the acting host"), text("sha256", "of its content, checked against the trailer that the server wrote"), number("revision", "everything up to it is in the snapshot"), number("bytes", "its length"), text("from", "the subject of the member")},
			Risk:    fettle.LowRisk, Scope: fettle.HostScope, Timeout: 15 * time.Minute, Undo: true, Needs: needsCluster,
			Doc: "Saves a snapshot of a serving member, the leader where it may, into the snapshot directory of the acting host, and checks it. Undo removes the file.",
		},
		{
			Name: "etcd.compact", Version: 1, Target: KindCluster, Params: []fettle.ParamSpec{
				required(number("revision", "history before it goes, less what is kept: the revision of a snapshot, so that nothing goes that is not in it")),
				number("keep", "so many revisions before it stay; left out: none"),
			},
			Outputs: []fettle.ParamSpec{number("revision", "up to which history went")},
			Risk:    fettle.MediumRisk, Scope: fettle.ClusterScope, Takes: []fettle.Taking{fettle.TakesHistory}, Timeout: 5 * time.Minute, Needs: needsCluster,
			NoUndo: "old revisions cannot be had back, but for those in the snapshot; the newest value of every key stays",
			Doc:    "Drops old revisions of keys, and waits until the members have freed their pages. The newest value of every key stays.",
		},
		{
			Name: "etcd.defrag", Version: 1, Target: KindMember, Outputs: []fettle.ParamSpec{number("before_bytes", "the database file before"), number("after_bytes", "and after")},
			Risk: fettle.LowRisk, Scope: fettle.ClusterScope, Takes: []fettle.Taking{fettle.TakesCapacity}, Timeout: 15 * time.Minute, Needs: needsCluster,
			NoUndo: "it only writes the database anew without its free pages",
			Doc:    "Rewrites the member's database without its free pages. The member answers nothing meanwhile: 20 to 140 ms for each 20 MB on a fast disk. Refused while another member is defragmented or does not serve.",
		},
		{
			Name: "etcd.disarm", Version: 1, Target: KindCluster, Risk: fettle.LowRisk, Scope: fettle.ClusterScope, Timeout: 20 * time.Second, Needs: needsCluster,
			NoUndo:  "the alarm comes back by itself when the space is used up again",
			Effects: []fettle.EffectSpec{becomes("nospace", "false")},
			Doc:     "Lifts every NOSPACE alarm. Refused while a database is still at its quota: the first write would raise it again. Leaves CORRUPT alone.",
		},
		{
			Name: "etcd.restore", Version: 1, Target: KindCluster, Params: []fettle.ParamSpec{required(text("survivor", "the subject of the member whose data the cluster goes on with; it runs on the acting host"))},
			Outputs: []fettle.ParamSpec{text("path", "where the survivor's data was set aside"), text("snapshot", "the file that the cluster was made anew from"), number("revision", "that the cluster goes on with")},
			Risk:    fettle.HighRisk, Scope: fettle.HostScope, Takes: []fettle.Taking{fettle.TakesCapacity, fettle.TakesData, fettle.TakesHistory}, Timeout: 15 * time.Minute, Needs: needsService + "; " + needsFiles,
			Effects: []fettle.EffectSpec{{On: "with.survivor", Quorum: fettle.QuorumOnly}},
			NoUndo:  "the cluster is a new one with a new identity from then on; the old data stays set aside",
			Doc: "Makes a new cluster of one from a snapshot of the survivor taken now. Writes that only the lost members had are gone. The others are then replaced one by one. " +
				"Needs etcdutl, or etcdctl 3.4, on the host.",
		},
	}
}
