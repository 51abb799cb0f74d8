package etcd

import (
	"time"

	"fettle/internal/fettle"
)

// causedByUnit are the edges from the service that a member runs as, and the
// filesystem under its data.
func causedByUnit() []fettle.EffectOn {
	var edges []fettle.EffectOn
	for _, code := range []fettle.Code{"systemd.unit_failed", "systemd.unit_stopped", "systemd.unit_masked", "systemd.unit_not_running", "systemd.unit_hung"} {
		edges = append(edges, fettle.EffectOn{Condition: code, Path: ">uses", Surely: fettle.Always, Within: 15 * time.Second})
	}
	edges = append(edges, fettle.EffectOn{Condition: "systemd.restart_loop", Path: ">uses", Surely: fettle.Often, Within: 15 * time.Second})
	for _, code := range []fettle.Code{"filesystem.full", "filesystem.inodes_full", "filesystem.read_only", "filesystem.shut_down"} {
		edges = append(edges, fettle.EffectOn{Condition: code, Path: ">uses", Surely: fettle.Often, Within: 5 * time.Minute})
	}
	return edges
}

// breaksUnit are what a member's lost or damaged data does to its service: etcd
// refuses to start (exit status 1 or 2; 3.4 also 0).
func breaksUnit() []fettle.EffectOn {
	return []fettle.EffectOn{
		{Condition: "systemd.unit_failed", Path: ">uses", Surely: fettle.Often, Within: time.Minute},
		{Condition: "systemd.restart_loop", Path: ">uses", Surely: fettle.Sometimes, Within: 10 * time.Minute},
		{Condition: "systemd.unit_not_running", Path: ">uses", Surely: fettle.Sometimes, Within: time.Minute},
	}
}

// breaksTrust are what an ended certificate does to a member, whenever it or a
// client of it connects anew: that may be weeks later.
func breaksTrust() []fettle.EffectOn {
	const later = 30 * 24 * time.Hour
	edges := []fettle.EffectOn{{Condition: MemberDown, Path: fettle.Self, Surely: fettle.Sometimes, Within: later}}
	for _, code := range []fettle.Code{"systemd.unit_failed", "systemd.restart_loop", "systemd.unit_not_running", "systemd.unit_hung"} {
		edges = append(edges, fettle.EffectOn{Condition: code, Path: ">uses", Surely: fettle.Sometimes, Within: later})
	}
	return edges
}

// whole is when a member that was replaced is one again: it runs and has a vote.
const whole = `(self.log_state == "running" || self.log_state == "whole") && self.standing == "voter"`

func memberConditions() []fettle.ConditionSpec {
	return []fettle.ConditionSpec{
		{
			Code: MemberDown, Title: "member does not answer", Kind: KindMember, Layer: fettle.Coordination,
			Severity: fettle.Warning, Scope: fettle.ClusterScope, Probe: memberProbe, Observers: fettle.MostHosts,
			Raise: `!self.answers`, Clear: `self.answers`,
			// One slow answer is not the end: it must still be so at the next look.
			Delay: 3 * time.Second, Expiry: 15 * time.Second,
			CausedBy: append(causedByUnit(),
				fettle.EffectOn{Condition: DataLost, Path: fettle.Self, Surely: fettle.Always, Within: 15 * time.Second},
				fettle.EffectOn{Condition: DataDamaged, Path: fettle.Self, Surely: fettle.Always, Within: 15 * time.Second},
				fettle.EffectOn{Condition: MajorityLost, Path: ">part-of", Surely: fettle.Sometimes, Within: 15 * time.Second},
			),
			Doc: "It did not answer at its client port within a second, as most of the machines that asked see it. The others go on while they are a majority. " +
				"By hand: ETCDCTL_API=3 etcdctl --endpoints=ITS_CLIENT_URL endpoint status.",
		},
		{
			Code: DataLost, Title: "member has lost its data ({log_state})", Kind: KindMember, Layer: fettle.Data,
			Severity: fettle.Critical, Scope: fettle.HostScope, Probe: localProbe,
			Raise: `(self.log_state == "missing" || self.log_state == "foreign") && self.log_lost`, Clear: whole,
			Expiry:  30 * time.Second,
			Effects: breaksUnit(),
			CausedBy: []fettle.EffectOn{
				{Condition: MajorityLost, Path: ">part-of", Surely: fettle.Often, Within: time.Minute},
			},
			Doc: "The cluster lists it as a member that has voted, and its data directory holds no write-ahead log, or that of another identity. It can never vote again " +
				"under its old identity: what it promised is forgotten. It stays so until it is a voter again. By hand: ls DATA_DIR/member/wal; etcdctl member list.",
		},
		{
			Code: DataDamaged, Title: "member's data is damaged: {damage}", Kind: KindMember, Layer: fettle.Data,
			Severity: fettle.Critical, Scope: fettle.HostScope, Probe: localProbe,
			Raise: `self.log_state == "damaged"`, Clear: whole,
			Expiry:  30 * time.Second,
			Effects: breaksUnit(),
			CausedBy: []fettle.EffectOn{
				{Condition: MajorityLost, Path: ">part-of", Surely: fettle.Often, Within: time.Minute},
			},
			Doc: "The server does not run, and its write-ahead log or database is not as it was written, or the server says so itself when it ends. Starting it again does not help, " +
				"and a copy put back from a backup makes it worse. It stays so until it is a voter again. By hand: journalctl -u UNIT; etcd-dump-logs DATA_DIR.",
		},
		{
			Code: HashDiffers, Title: "member's content differs from the others' at revision {hash_revision}", Kind: KindMember, Layer: fettle.Data,
			Severity: fettle.Critical, Scope: fettle.ClusterScope, Probe: hashProbe,
			Raise: `self.same < self.largest && self.largest * 2 > self.compared`,
			Clear: `self.compared >= 2 && self.same * 2 > self.compared`,
			// Four comparisons missed.
			Expiry: 2 * time.Minute,
			Doc: "At one revision and one compact revision, most of the members have the same hash over all keys and values, and this one another: bytes in its database were changed. " +
				"Everything else calls it healthy, and it answers reads with what it has. By hand: etcdctl endpoint hashkv --cluster --rev=REVISION.",
		},
		{
			Code: SlowDisk, Title: "the write-ahead log is synced slowly (99 % within {wal_fsync_p99_ms} ms)", Kind: KindMember, Layer: fettle.Coordination,
			Severity: fettle.Warning, Scope: fettle.ClusterScope, Probe: memberProbe,
			// 10 ms is what etcd asks for; a follower at 64 ms still keeps up, and a
			// leader there is the first to lose its leadership when it gets worse.
			Raise: `self.wal_fsync_p99_ms > 64`, Clear: `self.wal_fsync_p99_ms <= 32`,
			Delay: 30 * time.Second, Expiry: time.Minute,
			NotMended: "the disk, or what else writes to it, must be looked at; moving the data is for a person",
			Doc: "Of the syncs between two looks at the member's own metrics, one in a hundred took longer. On the leader every write waits for it; on a follower nothing else shows it. " +
				"By hand: curl ITS_CLIENT_URL/metrics | grep etcd_disk_wal_fsync_duration_seconds.",
		},
		{
			Code: CertExpiring, Title: "the certificate {cert_file} ends at {cert_not_after}", Kind: KindMember, Layer: fettle.Coordination,
			Severity: fettle.Warning, Scope: fettle.HostScope, Probe: localProbe,
			Raise: `self.tls && self.cert_expires_s < 604800`, Clear: `!self.tls || self.cert_expires_s >= 604800`,
			Expiry:    10 * time.Minute,
			CausedBy:  []fettle.EffectOn{{Condition: CertExpired, Path: fettle.Self, Surely: fettle.Always, Within: time.Minute}},
			NotMended: "certificates are renewed by whoever issues them; etcd takes a new file without a restart",
			Doc:       "The first of its client, server and peer certificates and authorities to end does so within seven days. By hand: openssl x509 -enddate -noout -in FILE.",
		},
		{
			Code: CertExpired, Title: "the certificate {cert_file} ended at {cert_not_after}", Kind: KindMember, Layer: fettle.Coordination,
			Severity: fettle.Critical, Scope: fettle.HostScope, Probe: localProbe,
			Raise: `self.tls && self.cert_expired`, Clear: `!self.tls || !self.cert_expired`,
			// As long as a member whom nobody took in needs to be seen answering again:
			// until then that it does not is no trouble of its own.
			ClearHold: 10 * time.Second,
			Expiry:    10 * time.Minute,
			Effects:   breaksTrust(),
			NotMended: "certificates are renewed by whoever issues them; etcd takes a new file without a restart, and starting the member again does not help",
			Doc: "One of its certificates or authorities has ended. Connections that stand stay up after it, so the cluster looks well until the member restarts: then the others refuse it, and its service " +
				"never becomes ready. New clients are refused at once. By hand: openssl x509 -enddate -noout -in FILE.",
		},
	}
}

func clusterConditions() []fettle.ConditionSpec {
	return []fettle.ConditionSpec{
		{
			Code: NoLeader, Title: "cluster has no leader", Kind: KindCluster, Layer: fettle.Coordination,
			Severity: fettle.Critical, Scope: fettle.ClusterScope, Probe: clusterProbe, Observers: fettle.MostHosts,
			Raise: `!self.has_leader`, Clear: `self.has_leader`,
			// An election takes one to three seconds and is no ill.
			Delay: 4 * time.Second, Expiry: 15 * time.Second,
			CausedBy: []fettle.EffectOn{
				{Condition: MemberDown, Path: "<part-of", Surely: fettle.Sometimes, Within: 30 * time.Second},
				{Condition: MajorityLost, Path: fettle.Self, Surely: fettle.Always, Within: 30 * time.Second},
				{Condition: DataLost, Path: "<part-of", Surely: fettle.Sometimes, Within: 30 * time.Second},
				{Condition: DataDamaged, Path: "<part-of", Surely: fettle.Sometimes, Within: 30 * time.Second},
			},
			NotMended: "members elect a leader by themselves as soon as a majority of them can talk; what keeps them from it is mended where it is",
			Doc:       "No member that answers knows a leader: nothing can be written, and only reads that may be old are answered. By hand: etcdctl endpoint status --cluster.",
		},
		{
			Code: MajorityLost, Title: "most members have lost their data", Kind: KindCluster, Layer: fettle.Data,
			Severity: fettle.Critical, Scope: fettle.ClusterScope, Probe: clusterProbe,
			Raise: `self.voters > 0 && size(parts.filter(p, has(p.log_lost) && p.log_lost)) >= self.voters / 2 + 1`,
			// That nobody can look any more whether the logs are lost clears nothing:
			// only a cluster that works again does.
			Clear:  `self.has_leader && self.serving >= self.voters / 2 + 1`,
			Expiry: time.Minute,
			Doc: "Of so many voters the log is known to be gone or damaged that the rest is no majority and can never be one again. What the lost ones had acknowledged and the rest has not is gone. " +
				"By hand: look at DATA_DIR/member/wal of each member.",
		},
		{
			Code: NoSpace, Title: "the space quota is used up", Kind: KindCluster, Layer: fettle.Coordination,
			Severity: fettle.Critical, Scope: fettle.ClusterScope, Probe: clusterProbe,
			Raise: `self.nospace`, Clear: `!self.nospace`, Expiry: time.Minute,
			Doc: "A member raised the alarm NOSPACE: writes are refused until the alarm is lifted, deletes and reads still work. `endpoint health` says that all is well. By hand: etcdctl alarm list.",
		},
		{
			Code: QuotaNear, Title: "the database is near its quota ({db_bytes} of {quota_bytes} bytes)", Kind: KindCluster, Layer: fettle.Coordination,
			Severity: fettle.Warning, Scope: fettle.ClusterScope, Probe: clusterProbe,
			Raise: `self.quota_bytes > 0 && self.db_bytes * 10 >= self.quota_bytes * 8`,
			Clear: `self.quota_bytes > 0 && self.db_bytes * 10 < self.quota_bytes * 7`,
			Delay: 30 * time.Second, Expiry: time.Minute,
			CausedBy: []fettle.EffectOn{{Condition: NoSpace, Path: fettle.Self, Surely: fettle.Often, Within: 5 * time.Minute}},
			Doc:      "The largest database file takes four fifths of the quota. At the whole of it writes are refused. By hand: etcdctl endpoint status --cluster -w table.",
		},
		{
			Code: CorruptAlarm, Title: "a member raised the alarm CORRUPT", Kind: KindCluster, Layer: fettle.Data,
			Severity: fettle.Critical, Scope: fettle.ClusterScope, Probe: clusterProbe,
			Raise: `self.corrupt`, Clear: `!self.corrupt`, Expiry: time.Minute,
			CausedBy:  []fettle.EffectOn{{Condition: HashDiffers, Path: "<part-of", Surely: fettle.Sometimes, Within: 10 * time.Minute}},
			NotMended: "the member that differs is replaced where it is found; the alarm is lifted by a person who has seen that the hashes agree",
			Doc:       "etcd's own check found members that differ, and refuses reads and writes. By hand: etcdctl alarm list; etcdctl endpoint hashkv --cluster.",
		},
		{
			Code: VersionSkew, Title: "members run different versions: {versions}", Kind: KindCluster, Layer: fettle.Coordination,
			Severity: fettle.Notice, Scope: fettle.ClusterScope, Probe: clusterProbe,
			Raise: `size(self.versions) > 1`, Clear: `size(self.versions) == 1`,
			Delay: time.Minute, Expiry: time.Minute,
			NotMended: "an upgrade is somebody's plan; another version's binary on a member's data can end the whole cluster",
			Doc:       "An upgrade is under way, or was left half done. By hand: etcdctl endpoint status --cluster.",
		},
	}
}
