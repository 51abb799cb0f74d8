package etcd

import (
	"time"

	"fettle/internal/fettle"
)

// needsClient is what the probes that ask members need.
const needsClient = "the members' client ports; where they ask for a certificate one of an authority that they trust; where the cluster has users (and from 3.5 on even to be told a member's status) one in the name of a user, " +
	"with the role root to compare hashes and to mend"

func probes() []fettle.ProbeSpec {
	return []fettle.ProbeSpec{
		{
			Name: localProbe, Kind: KindMember, Interval: 5 * time.Second, Timeout: 20 * time.Second, Told: true,
			Needs: "read access to the data directory and to the member's settings",
			Doc: "The member of this machine, from its own machine: its service and its data. While the server answers its log is not judged: it runs on it. " +
				"While no server has it open the log is read through, once for each change of its files.",
			Facts: []fettle.FactSpec{
				{Name: "unit_active", Type: fettle.BoolFact, Doc: "its service is active"},
				{Name: "unit_state", Type: fettle.StringFact, Doc: "the service's state, as systemd calls it"},
				{Name: "log_state", Type: fettle.StringFact, Doc: "running (the server answers with it), whole, missing, damaged, foreign (whole, but of an identity that the member does not have now), unreadable"},
				{Name: "log_lost", Type: fettle.BoolFact, Doc: "under the identity that the cluster knows it by it must never vote again; left out when that cannot be known"},
				{Name: "damage", Type: fettle.StringFact, Doc: "what is wrong with the data, in words; empty when nothing is known to be"},
				{Name: "standing", Type: fettle.StringFact, Doc: "what the cluster says it is: voter, learner, unstarted (added, never joined), none (not a member); left out when no member could be asked"},
				{Name: "data_present", Type: fettle.BoolFact, Doc: "the data directory has a member directory"},
				{Name: "data_dir", Type: fettle.StringFact, Doc: "its path"},
				{Name: "data_bytes", Type: fettle.IntFact, Doc: "what its write-ahead log and database take, in bytes"},
				{Name: "data_filesystem", Type: fettle.StringFact, Doc: "mount point of the filesystem under it"},
				{Name: "configured_state", Type: fettle.StringFact, Doc: "INITIAL_CLUSTER_STATE in its settings: new or existing"},
				{Name: "tls", Type: fettle.BoolFact, Doc: "it has certificates; left out when its settings cannot be read"},
				{Name: "cert_expires_s", Type: fettle.IntFact, Doc: "seconds until the first of its certificates, or of the authorities that it trusts, ends, by the wall clock, in whole minutes; negative when it has ended; left out without TLS"},
				{Name: "cert_expired", Type: fettle.BoolFact, Doc: "it has ended; left out without TLS"},
				{Name: "cert_file", Type: fettle.StringFact, Doc: "the file of that certificate; left out without TLS"},
				{Name: "cert_not_after", Type: fettle.StringFact, Doc: "when it ends, in UTC as RFC 3339 has it; left out without TLS"},
			},
		},
		{
			Name: memberProbe, Kind: KindMember, Interval: 2 * time.Second, Timeout: 3 * time.Second,
			Needs: needsClient,
			Doc:   "Every member, asked at its own client port by every machine that has the adapter. That it refuses or does not answer within a second is a fact; only where it cannot be asked at all is nothing known. One whose certificate has ended gives no client with a right clock an answer.",
			Facts: []fettle.FactSpec{
				{Name: "answers", Type: fettle.BoolFact, Doc: "it answered Status within a second"},
				{Name: "health", Type: fettle.BoolFact, Doc: "its /health says true"},
				{Name: "member_id", Type: fettle.StringFact, Doc: "the identity under which it votes, in hex; changes when it is replaced"},
				{Name: "listed", Type: fettle.BoolFact, Doc: "it is in the cluster's list of members"},
				{Name: "learner", Type: fettle.BoolFact, Doc: "a member without a vote"},
				{Name: "leader", Type: fettle.BoolFact, Doc: "it leads"},
				{Name: "version", Type: fettle.StringFact, Doc: "of its server"},
				{Name: "db_bytes", Type: fettle.IntFact, Doc: "its database file, in bytes"},
				{Name: "db_in_use_bytes", Type: fettle.IntFact, Doc: "of it in use"},
				{Name: "quota_bytes", Type: fettle.IntFact, Doc: "its space quota; of a 3.4 member known only on its own machine"},
				{Name: "raft_index", Type: fettle.IntFact, Doc: "the last entry of its log that is committed"},
				{Name: "applied_index", Type: fettle.IntFact, Doc: "the last entry that it has applied"},
				{Name: "wal_fsync_p99_ms", Type: fettle.IntFact, Doc: "upper bound of what 99 % of its log's syncs took between two looks, in ms; only on its own machine, and only after 20 syncs"},
				{Name: "alarms", Type: fettle.ListFact, Doc: "alarms that it raised"},
			},
		},
		{
			Name: clusterProbe, Kind: KindCluster, Interval: 2 * time.Second, Timeout: 3 * time.Second, Told: true,
			Needs: needsClient,
			Doc:   "The cluster as this machine sees it, with its members as a quorum group: told when the own member starts or ends, else by asking all. A member serves if it answers in time, follows the leader and names no error but an alarm.",
			Facts: []fettle.FactSpec{
				{Name: "has_leader", Type: fettle.BoolFact, Doc: "a member that answered knows a leader"},
				{Name: "leader", Type: fettle.StringFact, Doc: "the leader's name, empty when there is none"},
				{Name: "cluster_id", Type: fettle.StringFact, Doc: "in hex"},
				{Name: "voters", Type: fettle.IntFact, Doc: "members with a vote, serving or not"},
				{Name: "serving", Type: fettle.IntFact, Doc: "voters that serve"},
				{Name: "learners", Type: fettle.IntFact, Doc: "members without a vote"},
				{Name: "alarms", Type: fettle.ListFact, Doc: "alarms that stand, as ALARM NAME; without a name where etcd does not say whose, as 3.4 for CORRUPT"},
				{Name: "nospace", Type: fettle.BoolFact, Doc: "an alarm NOSPACE stands"},
				{Name: "corrupt", Type: fettle.BoolFact, Doc: "an alarm CORRUPT stands"},
				{Name: "versions", Type: fettle.ListFact, Doc: "the members' versions, each once"},
				{Name: "revision", Type: fettle.IntFact, Doc: "the newest revision that a member has"},
				{Name: "db_bytes", Type: fettle.IntFact, Doc: "the largest database file, in bytes"},
				{Name: "db_in_use_bytes", Type: fettle.IntFact, Doc: "the most that is in use of one"},
				{Name: "quota_bytes", Type: fettle.IntFact, Doc: "the smallest space quota that is known"},
			},
		},
		{
			Name: hashProbe, Kind: KindMember, Interval: 30 * time.Second, Timeout: 20 * time.Second,
			Needs: needsClient,
			Doc: "The hash over all keys and values, of all members at one revision. Each hash reads a whole database: the leader's machine compares at every turn, the others at every tenth, and no " +
				"machine spends more than a hundredth of its time on it. A look at one member compares all. Learners refuse it.",
			Facts: []fettle.FactSpec{
				{Name: "hash", Type: fettle.IntFact, Doc: "over keys and values up to the revision"},
				{Name: "hash_revision", Type: fettle.IntFact, Doc: "the revision that was asked for"},
				{Name: "compact_revision", Type: fettle.IntFact, Doc: "up to where its history was compacted; hashes can be compared only where it is the same"},
				{Name: "compared", Type: fettle.IntFact, Doc: "how many members answered at this revision and compact revision, with this one"},
				{Name: "same", Type: fettle.IntFact, Doc: "how many of them have this one's hash, with this one"},
				{Name: "largest", Type: fettle.IntFact, Doc: "the size of the largest group of equal hashes"},
			},
		},
	}
}

func specOf(name string) fettle.ProbeSpec {
	for _, p := range probes() {
		if p.Name == name {
			return p
		}
	}
	return fettle.ProbeSpec{}
}
