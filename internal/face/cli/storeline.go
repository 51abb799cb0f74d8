package cli

import (
	"fmt"
	"time"

	"fettle/internal/face/show"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
)

// storeLine is how large the store is, for programs. Sizes are in bytes.
type storeLine struct {
	InUse      int64      `json:"in_use_bytes"`
	OnDisk     int64      `json:"on_disk_bytes"` // 0: the etcd is not Fettle's own
	Quota      int64      `json:"quota_bytes"`
	Reserve    int64      `json:"reserve_bytes"`
	State      string     `json:"state"` // "", "filling" or "full"
	Why        string     `json:"why,omitempty"`
	InStore    int64      `json:"entries_in_store"`
	InFiles    int64      `json:"entries_in_files"`
	Incidents  int64      `json:"incidents_in_files"`
	Segments   int64      `json:"segments"`
	FileBytes  int64      `json:"segment_bytes"`
	Oldest     *time.Time `json:"oldest_in_store,omitempty"`
	LastBackup *time.Time `json:"last_backup,omitempty"`
	Lacks      []string   `json:"lacks,omitempty"`
}

// storeOf reads what the server said of its store; nil where it said nothing.
func storeOf(s *wire.StoreStatus) *storeLine {
	if s == nil {
		return nil
	}
	return &storeLine{
		InUse: s.GetInUse(), OnDisk: s.GetOnDisk(), Quota: s.GetQuota(), Reserve: s.GetReserve(), State: s.GetState(), Why: s.GetWhy(),
		InStore: s.GetEntriesInStore(), InFiles: s.GetEntriesInFiles(), Incidents: s.GetIncidentsInFiles(), Segments: s.GetSegments(), FileBytes: s.GetSegmentBytes(),
		Oldest: at(s.GetOldestUnix()), LastBackup: at(s.GetBackupUnix()), Lacks: s.GetLacks(),
	}
}

func at(unix int64) *time.Time {
	if unix == 0 {
		return nil
	}
	t := time.Unix(unix, 0)
	return &t
}

func (s *storeLine) print(p *show.Printer, now time.Time) {
	use := store.Bytes(s.InUse) + " in use, " + store.Bytes(s.OnDisk) + " on disk"
	if s.OnDisk == 0 {
		use = store.Bytes(s.InUse) + " of keys in an etcd that is not Fettle's own"
	}
	text := fmt.Sprintf("store: %s, of %s, %s of them in reserve", use, store.Bytes(s.Quota), store.Bytes(s.Reserve))
	if s.Oldest != nil {
		text += fmt.Sprintf("; %d entries of the log, the oldest of %s", s.InStore, s.Oldest.Local().Format(time.DateTime))
	}
	if s.Segments > 0 {
		text += fmt.Sprintf("; %d entries and %d incidents in %d files of %s", s.InFiles, s.Incidents, s.Segments, store.Bytes(s.FileBytes))
	}
	backup := "; no backup is known"
	if s.LastBackup != nil {
		backup = "; last backup " + show.Took(now.Sub(*s.LastBackup).Round(time.Second)) + " ago"
	}
	p.Text("", text+backup)
	if s.State != "" {
		p.Text(p.Red("the store is "+s.State)+" ", s.Why)
	}
	for _, lacking := range s.Lacks {
		p.Text(p.Red("a file of the log is missing")+" ", lacking+" (see `fettle audit verify`)")
	}
}
