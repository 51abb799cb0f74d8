package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"fettle/internal/fleet/segment"
)

// Usage is how large the store is.
type Usage struct {
	InUse, File    int64 // bytes of etcd's file, of the fullest member; of an existing etcd the fleet's keys and values, and File is 0
	Quota, Reserve int64
	State, Why     string // "", Filling or Full, and why
	InStore        int64  // entries of the log in etcd
	InFiles        int64  // entries in files
	Incidents      int64  // incidents in files
	Segments       int64
	FileBytes      int64     // of all segments
	Oldest         time.Time // of the entries in etcd; zero: there is none
	Backup         time.Time // of the last backup that was handed out whole; zero: not known
	Lacks          []string  // "SERVER lacks SEGMENT"
}

// measure notes how large the store is, for Usage, and for what is refused.
func (k *Keeper) measure(ctx context.Context) error {
	by, _, err := k.told(ctx)
	if err != nil {
		return err
	}
	var others size
	u := Usage{}
	for _, name := range slices.Sorted(maps.Keys(by)) {
		if name != k.e.name() && !k.quiet(name) {
			others = size{max(others.InUse, by[name].Size.InUse), max(others.File, by[name].Size.File)}
		}
		for _, lacking := range by[name].Lacks {
			u.Lacks = append(u.Lacks, "server "+name+" lacks segment "+lacking)
		}
	}
	k.e.room.told(others, k.alarm(ctx))
	for _, kind := range []segment.Kind{segment.Log, segment.Incidents} {
		refs, err := k.e.refs(ctx, kind)
		if err != nil {
			return err
		}
		for _, r := range refs {
			u.Segments, u.FileBytes = u.Segments+1, u.FileBytes+r.Bytes
		}
		if kind == segment.Log {
			u.InFiles = through(refs)
		} else {
			u.Incidents = through(refs)
		}
	}
	head, err := k.e.Head(ctx)
	if err != nil {
		return err
	}
	u.InStore = head.Entries - u.InFiles
	oldest, err := k.oldest(ctx)
	if err != nil {
		return err
	}
	u.Oldest = oldest.At
	if u.Backup, err = k.e.lastBackup(ctx); err != nil {
		return err
	}
	k.e.usage.Store(&u)
	return nil
}

// alarm says why etcd takes no writes, "" where it does.
func (k *Keeper) alarm(ctx context.Context) string {
	if k.e.o.Existing != nil {
		return k.outsideAlarm(ctx)
	}
	if n := len(k.alarmed()); n > 0 {
		return fmt.Sprintf("etcd has raised its NOSPACE alarm for %d members and takes no writes; they are compacted and defragmented one after the other, and where that does not help start `fettle server` with a larger --store-quota", n)
	}
	return ""
}

// Usage returns how large the store is, as the keeper found it in its last round; sizes
// and state are those of now. false: there was no round yet.
func (e *Etcd) Usage() (Usage, bool) {
	at := e.usage.Load()
	if at == nil {
		return Usage{}, false
	}
	u := *at
	if tip, err := e.tip.get(); err == nil {
		u.InStore = max(u.InStore, tip.Entries-u.InFiles)
	}
	now, _ := e.room.now()
	u.InUse, u.File, u.Quota, u.Reserve = now.InUse, now.File, e.room.limits.Quota, e.room.limits.Reserve
	if e.o.Existing != nil {
		u.File = 0
	}
	u.State, u.Why = e.room.state()
	return u, true
}

// keyBackup says when a backup was handed out whole, in Unix seconds.
const keyBackup = "backup"

func (e *Etcd) lastBackup(ctx context.Context) (time.Time, error) {
	got, err := e.get(ctx, keyBackup)
	if err != nil || len(got.Kvs) == 0 {
		return time.Time{}, err
	}
	at, err := strconv.ParseInt(string(got.Kvs[0].Value), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("when the last backup was: %w", err)
	}
	return time.Unix(at, 0).UTC(), nil
}
