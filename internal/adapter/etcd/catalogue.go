package etcd

import (
	"fettle/internal/fettle"
)

// The kinds of subject that the adapter names.
const (
	KindCluster fettle.Kind = "etcd"
	KindMember  fettle.Kind = "etcd-member"
)

// The codes of the conditions.
const (
	MemberDown   fettle.Code = "etcd.member_down"
	DataLost     fettle.Code = "etcd.data_lost"
	DataDamaged  fettle.Code = "etcd.data_damaged"
	NoLeader     fettle.Code = "etcd.no_leader"
	MajorityLost fettle.Code = "etcd.majority_lost"
	NoSpace      fettle.Code = "etcd.nospace"
	QuotaNear    fettle.Code = "etcd.quota_near"
	HashDiffers  fettle.Code = "etcd.hash_differs"
	CorruptAlarm fettle.Code = "etcd.corrupt_alarm"
	SlowDisk     fettle.Code = "etcd.slow_disk"
	CertExpiring fettle.Code = "etcd.cert_expiring"
	CertExpired  fettle.Code = "etcd.cert_expired"
	VersionSkew  fettle.Code = "etcd.version_skew"
)

// The probes.
const (
	localProbe   = "etcd.local"
	memberProbe  = "etcd.member"
	clusterProbe = "etcd.cluster"
	hashProbe    = "etcd.hash"
)

// Catalogue returns what the adapter knows and can do.
func Catalogue() fettle.Catalogue {
	return fettle.Catalogue{
		Adapter: "etcd",
		Doc: "An etcd cluster and its members. Starts a member that has its own data, replaces one whose data is lost, damaged or different " +
			"under a new identity, frees space. Deletes no data, never starts an empty log under an old identity, and leaves a lost majority to a person.",
		Versions: "3.4.23, 3.7.3",
		Kinds: []fettle.KindSpec{
			{Kind: KindCluster, Doc: "SYSTEM: a cluster, by its configured name or else its token"},
			{Kind: KindMember, Doc: "SYSTEM/NAME: a member, by its ETCD_NAME; one that has not started yet is known by its peer URL"},
		},
		Conditions: append(memberConditions(), clusterConditions()...),
		Probes:     probes(),
		Actions:    append(membershipActions(), maintenanceActions()...),
		Faults:     faults(),
	}
}

func faults() []fettle.FaultSpec {
	return []fettle.FaultSpec{
		{Name: "etcd.kill", Target: KindMember, Raises: MemberDown, Doc: "SIGKILL to the server process. Reverted by starting the unit where it does not run."},
		{Name: "etcd.wipe", Target: KindMember, Raises: DataLost, Doc: "The server is stopped, its data moved away and the server started again, which fails: as if its disk had been replaced. Reverted by moving it back, " +
			"unless the member has been replaced meanwhile: then the old data stays where it is."},
		{Name: "etcd.damage_wal", Target: KindMember, Raises: DataDamaged, Doc: "The server is stopped, 64 bytes in the middle of its write-ahead log are changed, and it is started again, which fails. Reverted by putting the copy back."},
		{Name: "etcd.flip", Target: KindMember, Raises: HashDiffers, Params: []fettle.ParamSpec{
			{Name: "key", Type: fettle.StringFact, Required: true, Doc: "whose newest value is changed; its value must have at least 16 bytes"},
		}, Doc: "The server is stopped, four bytes in a value are inverted in its database, and it is started again: everything calls itself healthy. Reverted by inverting them again."},
		{Name: "etcd.fill_quota", Target: KindCluster, Raises: NoSpace, Doc: "Writes versions of one key of Fettle's own until the space quota is reached. Reverted by deleting the key; the alarm stays until the space is freed."},
	}
}
