package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// keyTurn names the server whose etcd is being defragmented: it answers nobody meanwhile,
// so it is done at one after the other, at the one that leads last.
const keyTurn = "defragment"

const (
	// defragmentWait bounds it: etcd copies its file, at some ten MB a second at worst.
	defragmentWait = 5 * time.Minute
	// pays: less than so many tenths of a file are in use.
	paysTenths = 5
	// paysFull is likewise, where the file is so large that etcd would soon take no writes.
	paysFull = 9
)

// turn is a server's turn, as this process saw it begin.
type turn struct {
	name     string
	revision int64
	since    time.Time
}

// pays reports whether a member's file would shrink by enough.
func (r *room) pays(s size) bool {
	const floor = 64 // parts of the quota: a file smaller than one is small enough
	tenths := int64(paysTenths)
	if s.File > r.ordinary() {
		tenths = paysFull
	}
	return s.File > r.limits.Quota/floor && s.InUse*roomTenths < s.File*tenths
}

// space gives back what etcd's file holds in vain, when it is this server's turn, and ends
// an alarm of etcd's when there is space again.
func (k *Keeper) space(ctx context.Context) error {
	if k.e.o.Existing != nil { // that is its owner's
		return k.e.tally.count(ctx, k.e)
	}
	own := size{k.e.room.own.SizeInUse(), k.e.room.own.Size()}
	alarmed := k.alarmed()
	if mine := k.e.member(); slices.Contains(alarmed, mine) {
		// Nobody can be given a turn, nor elected, while nothing is written: members go by
		// their number.
		if alarmed[0] != mine {
			return k.passOver(ctx, alarmed[0])
		}
		if err := k.forgetRevisions(ctx, k.revision(ctx)); err != nil {
			return err
		}
		if err := k.defragment(ctx); err != nil {
			return err
		}
		if k.e.room.own.Size() > k.e.room.limits.Quota-k.e.room.limits.Reserve/(2*filePart) {
			return fmt.Errorf("%w: etcd's file is as large after it was compacted and defragmented (start `fettle server` with a larger --store-quota)", rpctypes.ErrNoSpace)
		}
		bound, cancel := bounded(ctx)
		defer cancel()
		_, err := k.e.client.AlarmDisarm(bound, &clientv3.AlarmMember{MemberID: mine, Alarm: etcdserverpb.AlarmType_NOSPACE})
		return err
	}
	got, err := k.e.get(ctx, keyTurn)
	if err != nil || len(got.Kvs) == 0 || string(got.Kvs[0].Value) != k.e.name() {
		return err
	}
	if k.e.room.pays(own) {
		err = k.defragment(ctx)
	}
	return errors.Join(err, k.pass(ctx, got.Kvs[0].ModRevision))
}

// passOver waits for another member to shrink its file; one that is away for too long
// loses its alarm, and raises it anew when it comes back full.
func (k *Keeper) passOver(ctx context.Context, member uint64) error {
	now := turn{name: strconv.FormatUint(member, 16), since: k.o.Wall()}
	if k.waits.name != now.name {
		k.waits = now
	}
	if now.since.Sub(k.waits.since) < defragmentWait {
		return nil
	}
	bound, cancel := bounded(ctx)
	defer cancel()
	_, err := k.e.client.AlarmDisarm(bound, &clientv3.AlarmMember{MemberID: member, Alarm: etcdserverpb.AlarmType_NOSPACE})
	return err
}

// pass ends a turn.
func (k *Keeper) pass(ctx context.Context, revision int64) error {
	bound, cancel := bounded(ctx)
	defer cancel()
	_, err := k.e.kv.Txn(bound).If(clientv3.Compare(clientv3.ModRevision(keyTurn), "=", revision)).Then(clientv3.OpDelete(keyTurn)).Commit()
	return err
}

func (k *Keeper) defragment(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, defragmentWait)
	defer cancel()
	before := k.e.room.own.Size()
	if _, err := k.e.client.Defragment(ctx, k.e.client.Endpoints()[0]); err != nil {
		return fmt.Errorf("defragment etcd: %w", err)
	}
	k.at("defragmented")
	k.o.Log.Info("etcd's file was defragmented", "before", Bytes(before), "after", Bytes(k.e.room.own.Size()))
	return nil
}

// member is this server's etcd by its number.
func (e *Etcd) member() uint64 { return uint64(e.server.etcd.Server.MemberID()) }

// alarmed are the members whose file is full, as etcd says. This server's own etcd knows:
// to ask it through the store would be a write.
func (k *Keeper) alarmed() []uint64 {
	var list []uint64
	for _, a := range k.e.server.etcd.Server.Alarms() {
		if a.Alarm == etcdserverpb.AlarmType_NOSPACE {
			list = append(list, a.MemberID)
		}
	}
	slices.Sort(list)
	return list
}

// revision is the store's, 0 where it cannot be asked.
func (k *Keeper) revision(ctx context.Context) int64 {
	got, err := k.e.get(ctx, keyHead, clientv3.WithSerializable(), clientv3.WithKeysOnly())
	if err != nil {
		return 0
	}
	return got.Header.Revision
}

// compact lets etcd forget what was overwritten, and gives the next server its turn to
// shrink its file.
func (k *Keeper) compact(ctx context.Context) error {
	if k.e.o.Existing != nil { // others read its history, too
		return nil
	}
	keep := int64(revisionsKept)
	if k.e.room.tight() {
		keep = 0
	}
	if to := k.revision(ctx) - keep; to > k.compacted+keep && k.e.readers.Load() == 0 {
		if err := k.forgetRevisions(ctx, to); err != nil {
			return err
		}
		k.compacted = to
		k.at("compacted")
	}
	return k.assign(ctx)
}

// forgetRevisions waits until etcd has let go of what was overwritten up to a revision.
func (k *Keeper) forgetRevisions(ctx context.Context, to int64) error {
	ctx, cancel := context.WithTimeout(ctx, defragmentWait)
	defer cancel()
	if _, err := k.e.client.Compact(ctx, to, clientv3.WithCompactPhysical()); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("compact etcd: %w", err)
	}
	return nil
}

// assign gives somebody a turn, where it pays. One that does not take it in time, being
// away, loses it.
func (k *Keeper) assign(ctx context.Context) error {
	got, err := k.e.get(ctx, keyTurn)
	if err != nil {
		return err
	}
	if len(got.Kvs) > 0 {
		now := turn{string(got.Kvs[0].Value), got.Kvs[0].ModRevision, k.o.Wall()}
		if k.seen.revision != now.revision {
			k.seen = now
		}
		if now.since.Sub(k.seen.since) < defragmentWait {
			return nil
		}
		return k.pass(ctx, now.revision)
	}
	by, _, err := k.told(ctx)
	if err != nil {
		return err
	}
	next := k.next(by)
	if next == "" {
		return nil
	}
	_, err = k.e.led(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(keyTurn), "=", 0)}, clientv3.OpPut(keyTurn, next))
	return err
}

// next says whose turn it is, "" where it pays nowhere. This server leads, so it waits
// until the others have compacted too and had theirs; not for ever for one that is away.
func (k *Keeper) next(by map[string]holding) string {
	own := k.e.name()
	mine := by[own].Size
	behind := false
	for _, name := range slices.Sorted(maps.Keys(by)) {
		if name == own || k.quiet(name) {
			continue
		}
		if k.e.room.pays(by[name].Size) {
			return name
		}
		behind = behind || by[name].Size.InUse > mine.InUse+k.e.room.limits.Quota/sizeGrain
	}
	if !k.e.room.pays(mine) {
		k.patient = time.Time{}
		return ""
	}
	if now := k.o.Wall(); behind {
		if k.patient.IsZero() {
			k.patient = now
		}
		if now.Sub(k.patient) < defragmentWait {
			return ""
		}
	}
	k.patient = time.Time{}
	return own
}
