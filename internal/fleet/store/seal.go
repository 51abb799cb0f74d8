package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/fleet/segment"
	"fettle/internal/loop"
)

const (
	// tightShare of a segment's entries is enough for one when room is short: with each
	// comes one entry more.
	tightShare = 8
	// ageSlack is how far past KeepFor the oldest entry may get, so that a log that grows
	// slowly makes a file a day and not one for every entry.
	ageSlack = day
	// dropBatch is how many entries leave etcd at once: a commit waits for no more.
	dropBatch = 256
)

// entries moves the oldest entries of the log into a file, a step further each time, and
// takes out of etcd what is in files.
func (k *Keeper) entries(ctx context.Context, offer segment.Ref) error {
	refs, err := k.e.refs(ctx, segment.Log)
	if err != nil {
		return err
	}
	end := endOf(refs)
	switch {
	case offer.Kind == "":
		made, err := k.closed(ctx, end)
		if err != nil || made.Kind == "" {
			return errors.Join(err, k.drop(ctx, end.Entries))
		}
		offer = made
	case offer.First != end.Entries+1 || offer.Before != end.Hash:
		return k.withdraw(ctx, segment.Log) // of an earlier leader, whose word came late
	}
	sealed, err := k.seal(ctx, offer, fmt.Sprintf("entries %d to %d of the log went to a file", offer.First, offer.Last))
	if err == nil && sealed {
		end.Entries = offer.Last
	}
	return errors.Join(err, k.drop(ctx, end.Entries))
}

// closed makes and offers a segment of the oldest entries, where there are enough.
func (k *Keeper) closed(ctx context.Context, end loop.Head) (none segment.Ref, err error) {
	l := k.e.o.Limits
	head, err := k.e.Head(ctx)
	if err != nil {
		return none, err
	}
	tight := k.e.room.tight()
	last := head.Entries - l.KeepEntries
	if tight {
		last = head.Entries
	}
	aged := k.o.Wall().Add(-l.KeepFor)
	byAge := false
	if last-end.Entries < l.SegmentEntries && !tight {
		oldest, err := k.oldest(ctx)
		if err != nil || oldest.Seq != end.Entries+1 || oldest.At.After(aged.Add(-ageSlack)) {
			return none, err
		}
		byAge, last = true, head.Entries
	}
	c := checker{head: end}
	var lines [][]byte
	size := int64(0)
	err = k.e.each(ctx, keyLog, logKey(end.Entries+1), func(_ string, kept []byte) error {
		if c.head.Entries >= last || int64(len(lines)) >= l.SegmentEntries || size >= l.SegmentBytes {
			return fs.SkipAll
		}
		if byAge {
			if e, _, err := unseal(kept); err != nil || e.At.After(aged) {
				return fs.SkipAll
			}
		}
		lines, size = append(lines, slices.Clone(kept)), size+int64(len(kept))
		return c.add(kept) // what is broken goes nowhere
	})
	if err != nil && !errors.Is(err, fs.SkipAll) {
		return none, err
	}
	if len(lines) == 0 || tight && int64(len(lines)) < max(2, l.SegmentEntries/tightShare) && size < l.SegmentBytes/tightShare {
		return none, nil
	}
	return k.offer(ctx, segment.Log, end.Entries+1, end.Hash, c.head.Hash, lines)
}

// oldest is the first entry that etcd has, the zero Entry where there is none.
func (k *Keeper) oldest(ctx context.Context) (loop.Entry, error) {
	got, err := k.e.get(ctx, keyLog, clientv3.WithRange(clientv3.GetPrefixRangeEnd(keyLog)), clientv3.WithLimit(1))
	if err != nil || len(got.Kvs) == 0 {
		return loop.Entry{}, err
	}
	e, _, err := unseal(got.Kvs[0].Value)
	return e, err
}

// offer puts a segment into this server's folder and asks the others to hold it.
func (k *Keeper) offer(ctx context.Context, kind segment.Kind, first int64, before, after string, lines [][]byte) (segment.Ref, error) {
	r, data, err := segment.Make(kind, first, before, after, lines)
	if err != nil {
		return segment.Ref{}, err
	}
	k.at("made")
	if err := k.e.files.Put(r, data); err != nil {
		return segment.Ref{}, err
	}
	k.at("in place")
	text, err := json.Marshal(r)
	if err != nil {
		return segment.Ref{}, err
	}
	resp, err := k.e.led(ctx, nil, clientv3.OpPut(keyOffer+string(kind), string(text)))
	if err == nil && !resp.Succeeded {
		err = loop.ErrNotLeader
	}
	if err != nil {
		return segment.Ref{}, fmt.Errorf("offer %s: %w", r, explain(err))
	}
	k.at("offered")
	_, err = k.hold(ctx) // this server says that it has it
	return r, err
}

func (k *Keeper) withdraw(ctx context.Context, kind segment.Kind) error {
	if _, err := k.e.led(ctx, nil, clientv3.OpDelete(keyOffer+string(kind))); err != nil {
		return fmt.Errorf("withdraw a segment of %s: %w", kind, explain(err))
	}
	return nil
}

// seal enters a segment into the index and the chain, once a majority of the servers
// holds it, this one among them. One that this server cannot hold is withdrawn: what is in
// it is in etcd.
func (k *Keeper) seal(ctx context.Context, r segment.Ref, text string) (bool, error) {
	if !k.has(r) {
		return false, k.withdraw(ctx, r.Kind)
	}
	by, voters, err := k.told(ctx)
	if err != nil {
		return false, err
	}
	holders := 0
	for _, h := range by { // any order: they are counted
		if slices.Contains(h.Offers, r.Name()) {
			holders++
		}
	}
	if holders <= voters/2 {
		return false, nil
	}
	data, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	entry := loop.Entry{At: k.o.Wall(), Kind: KindSealed, Text: text + ": " + r.Name(), Data: data}
	if err := k.e.enter(ctx, entry, clientv3.OpPut(segmentKey(r.Kind, r.First), string(data)), clientv3.OpDelete(keyOffer+string(r.Kind))); err != nil {
		return false, fmt.Errorf("seal %s: %w", r, err)
	}
	k.at("sealed")
	return true, nil
}

// enter commits an entry of the store's own, together with what it tells of.
func (e *Etcd) enter(ctx context.Context, entry loop.Entry, ops ...clientv3.Op) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.token.Revision == 0 {
		return loop.ErrNotLeader
	}
	return e.commit(ctx, loop.Txn{Token: e.token, Log: []loop.Entry{entry}}, ops)
}

// drop takes the entries up to one that are in files out of etcd.
func (k *Keeper) drop(ctx context.Context, end int64) error {
	for {
		got, err := k.e.get(ctx, keyLog, clientv3.WithRange(logKey(end+1)), clientv3.WithLimit(1), clientv3.WithKeysOnly())
		if err != nil || len(got.Kvs) == 0 {
			return err
		}
		first, err := strconv.ParseInt(strings.TrimPrefix(string(got.Kvs[0].Key), keyLog), 10, 64)
		if err != nil {
			return fmt.Errorf("key %q is no entry's: %w", got.Kvs[0].Key, err)
		}
		to := min(first+dropBatch, end+1)
		resp, err := k.e.led(ctx, nil, clientv3.OpDelete(logKey(first), clientv3.WithRange(logKey(to))))
		if err == nil && !resp.Succeeded {
			err = loop.ErrNotLeader
		}
		if err != nil {
			return fmt.Errorf("take entries out of etcd that are in files: %w", explain(err))
		}
		k.at("dropped")
	}
}
