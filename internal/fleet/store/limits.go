package store

import "time"

// Limits bound what is kept in etcd. Fields that are zero take their default.
type Limits struct {
	// Quota is where etcd stops taking writes, in bytes of its file. 0: 2 GiB, etcd's own.
	// Of an existing etcd it is how many bytes the fleet's keys and values may have, as they
	// are now. 0: 512 MiB, a quarter of what etcd takes out of the box, since others have
	// keys there too, and it keeps what was overwritten for as long as its owner says.
	Quota int64
	// Reserve is the part of it that the text of the log, incidents and stories may not
	// use. 0: an eighth.
	Reserve int64
	// SegmentEntries and SegmentBytes are how large a segment grows. 0: 4,096 and 4 MiB:
	// some tens of milliseconds to read.
	SegmentEntries, SegmentBytes int64
	// KeepEntries is how many of the log's newest entries stay in etcd. 0: 16,384.
	KeepEntries int64
	// KeepFor is how old entries become there before they go to a file although they do
	// not fill one. 0: 30 days.
	KeepFor time.Duration
	// An incident that has ended goes to a file when it is not among the KeepIncidents
	// newest and ended longer than KeepIncidentsFor ago. 0: 1,000 and 30 days.
	KeepIncidents    int
	KeepIncidentsFor time.Duration
}

// What Limits.Quota is when nothing is said: of a store of Fettle's own, and of an existing
// etcd.
const (
	DefaultQuota         = 2 << 30
	DefaultExistingQuota = 512 << 20
)

const (
	day = 24 * time.Hour
	// reservePart of the quota is the reserve.
	reservePart = 8
	// revisionsKept is how many revisions of etcd stay readable while there is room: a
	// backup and a Check read at one of a moment ago.
	revisionsKept = 1000
)

func (l Limits) orDefault(existing bool) Limits {
	or := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	if existing {
		or(&l.Quota, DefaultExistingQuota)
	}
	or(&l.Quota, DefaultQuota)
	or(&l.Reserve, l.Quota/reservePart)
	or(&l.SegmentEntries, 4096)
	or(&l.SegmentBytes, 4<<20)
	or(&l.KeepEntries, 4*l.SegmentEntries)
	if l.KeepFor == 0 {
		l.KeepFor = 30 * day
	}
	if l.KeepIncidents == 0 {
		l.KeepIncidents = 1000
	}
	if l.KeepIncidentsFor == 0 {
		l.KeepIncidentsFor = 30 * day
	}
	return l
}
