package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"fettle/internal/act/moment"
	"fettle/internal/loop"
)

const (
	// commitTries is how often a Commit is written anew because the head was not where it
	// was thought, or because no answer came.
	commitTries = 4
	// firstAnswer is how long the first try waits for an answer, the next twice as long and
	// so on: many times what a disk takes. Etcd loses what it passes on to a leader of its
	// own that has died, and would say so after six seconds; another one is elected within
	// one.
	firstAnswer = time.Second
)

// Commit implements loop.Store. One transaction, which etcd carries out only
// while the leader key is the one of our token and the head is the one that the
// new entries are chained to. So what has entries may be written twice: it is carried out
// once. What has none is written once, and waited for.
func (e *Etcd) Commit(ctx context.Context, t loop.Txn) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.token.Revision == 0 || t.Token != e.token {
		return fmt.Errorf("commit: %w", loop.ErrNotLeader)
	}
	return e.commit(ctx, t, nil)
}

// commit makes a change, and with it operations of the store's own. mu is held.
func (e *Etcd) commit(ctx context.Context, t loop.Txn, own []clientv3.Op) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	wrote := ""
	for n := range commitTries {
		wait := firstAnswer << n
		if len(t.Log) == 0 {
			wait = callWait
		}
		try, stop := context.WithTimeout(ctx, wait)
		done, head, err := e.try(try, t, own, wrote)
		late := try.Err() != nil
		stop()
		if done || err != nil && (n == commitTries-1 || len(t.Log) == 0 || ctx.Err() != nil || !late && !electing(err)) {
			return err
		}
		wrote = head
		if err != nil && !late {
			pause(ctx, attendEvery)
		}
	}
	return errors.New("commit: somebody else writes to the head of the log (look for a second server on this store)")
}

// electing reports whether an error is that etcd had no leader, or changed it.
func electing(err error) bool {
	var e rpctypes.EtcdError
	return errors.As(err, &e) && e.Code() == codes.Unavailable
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// try returns false when the head has moved and is known anew, or no answer came; and
// the hash of the head that it wrote. Wrote is that of the try before: where the log ends
// with it, that one was carried out. With the change go further operations, which are the
// store's own and for which there is always room.
func (e *Etcd) try(ctx context.Context, t loop.Txn, own []clientv3.Op, wrote string) (done bool, head string, err error) {
	if e.unsure {
		if err := e.finishStaged(ctx, int64(e.token.Revision)); err != nil {
			return false, wrote, fmt.Errorf("commit: put in its place what the one before kept: %w", explain(err))
		}
		head, rev, err := e.readHead(ctx)
		if err != nil {
			return false, wrote, fmt.Errorf("commit: find out what became of the one before: %w", explain(err))
		}
		e.head, e.headRev, e.unsure = head, rev, false
		if wrote != "" && head.Hash == wrote {
			e.tip.set(e.token.Epoch, head)
			return true, wrote, nil
		}
	}
	c, err := prepare(t, e.head)
	if err != nil {
		return false, "", fmt.Errorf("commit: %w", err)
	}
	if own == nil {
		if err := e.room.admit(urgency(t), c.size); err != nil {
			return false, "", fmt.Errorf("commit: %w", err)
		}
	}
	ops, err := c.ops()
	if err != nil {
		return false, "", fmt.Errorf("commit: %w", err)
	}
	ops = append(ops, own...)
	staged := e.o.Existing != nil && tooLarge(ops)
	if staged {
		if ops, err = e.stage(ctx, ops, c); err != nil {
			return false, "", fmt.Errorf("commit: %w", explain(err))
		}
	}
	when := []clientv3.Cmp{
		clientv3.Compare(clientv3.CreateRevision(e.leader), "=", int64(e.token.Revision)),
		clientv3.Compare(clientv3.ModRevision(keyHead), "=", e.headRev),
	}
	if e.o.Existing != nil { // what is on its way to its place is older than this
		when = append(when, clientv3.Compare(clientv3.CreateRevision(keyStaged), "=", 0))
	}
	resp, err := e.kv.Txn(ctx).If(when...).Then(ops...).Else(clientv3.OpGet(e.leader), clientv3.OpGet(keyHead)).Commit()
	if err != nil {
		e.unsure = true
		return false, ownHash(c), fmt.Errorf("commit: %w", explain(err))
	}
	if resp.Succeeded {
		moment.Reached("server", func() string { return about(t) })
		e.head = c.head
		if len(c.log) > 0 {
			e.headRev = resp.Header.Revision
		}
		e.answered(resp.Header)
		if staged {
			if err := e.finishStaged(ctx, int64(e.token.Revision)); err != nil {
				e.unsure = true
				return false, ownHash(c), fmt.Errorf("commit: it is kept, and not all of it is in its place yet: %w", explain(err))
			}
		}
		e.tip.set(e.token.Epoch, c.head)
		return true, "", nil
	}
	leader := resp.Responses[0].GetResponseRange()
	if len(leader.Kvs) == 0 || leader.Kvs[0].CreateRevision != int64(e.token.Revision) {
		e.token.Revision = 0
		return false, "", fmt.Errorf("commit: %w", loop.ErrNotLeader)
	}
	e.unsure = true
	return false, wrote, nil
}

// ownHash is the hash of the head that a change leaves, "" where it leaves it as it was.
func ownHash(c *change) string {
	if len(c.log) == 0 {
		return ""
	}
	return c.head.Hash
}

// about names what a Txn makes durable: the causes, and what is logged of which step.
func about(t loop.Txn) string {
	var words []string
	for _, r := range t.Records {
		words = append(words, string(r.Cause.Code))
	}
	for _, en := range t.Log {
		var of struct{ Step string }
		_ = json.Unmarshal(en.Data, &of) // of what is no step's there is none
		words = append(words, strings.TrimSuffix(en.Kind+":"+of.Step, ":"))
	}
	return strings.Join(words, " ")
}

// ops is the change as operations of one transaction.
func (c *change) ops() ([]clientv3.Op, error) {
	var ops []clientv3.Op
	put := func(key string, value []byte) { ops = append(ops, clientv3.OpPut(key, string(value))) }
	for _, id := range sorted(c.records) {
		put(keyRecords+id, c.records[id])
	}
	for _, key := range sorted(c.intents) {
		put(keyIntents+key, c.intents[key])
	}
	for _, key := range c.settled {
		ops = append(ops, clientv3.OpDelete(keyIntents+key))
	}
	if c.freeze != nil {
		put(keyFreeze, c.freeze)
	}
	if c.thaw {
		ops = append(ops, clientv3.OpDelete(keyFreeze))
	}
	if c.windows != nil {
		put(keyWindows, c.windows)
	}
	for _, host := range sorted(c.merged) {
		put(keyMerged+host, c.merged[host])
	}
	first := c.head.Entries - int64(len(c.log)) + 1
	for i, kept := range c.log {
		put(logKey(first+int64(i)), kept)
	}
	if len(c.log) > 0 {
		head, err := json.Marshal(c.head)
		if err != nil {
			return nil, err
		}
		put(keyHead, head)
	}
	return ops, nil
}

func (e *Etcd) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	got, err := e.kv.Get(ctx, key, opts...)
	if err == nil {
		e.answered(got.Header)
	}
	return got, err
}

func (e *Etcd) readHead(ctx context.Context) (loop.Head, int64, error) {
	got, err := e.get(ctx, keyHead)
	if err != nil || len(got.Kvs) == 0 {
		return loop.Head{}, 0, err
	}
	var head loop.Head
	if err := json.Unmarshal(got.Kvs[0].Value, &head); err != nil {
		return loop.Head{}, 0, fmt.Errorf("the head of the log cannot be read: %w", err)
	}
	return head, got.Kvs[0].ModRevision, nil
}

// each calls f for the keys below a prefix, from one on, in order, a page at a
// time.
func (e *Etcd) each(ctx context.Context, prefix, from string, f func(key string, value []byte) error, opts ...clientv3.OpOption) error {
	if from == "" {
		from = prefix
	}
	for end := clientv3.GetPrefixRangeEnd(prefix); ; {
		got, err := e.get(ctx, from, append(opts[:len(opts):len(opts)], clientv3.WithRange(end), clientv3.WithLimit(page))...)
		if err != nil {
			return fmt.Errorf("read %s: %w", prefix, explain(err))
		}
		for _, kv := range got.Kvs {
			if err := f(string(kv.Key), kv.Value); err != nil {
				return err
			}
		}
		if !got.More || len(got.Kvs) == 0 {
			return nil
		}
		from = string(got.Kvs[len(got.Kvs)-1].Key) + "\x00"
	}
}

func value(r *etcdserverpb.RangeResponse) []byte {
	if len(r.Kvs) == 0 {
		return nil
	}
	return r.Kvs[0].Value
}

// explain adds what to do to the errors of etcd that a person can mend.
func explain(err error) error {
	if errors.Is(err, rpctypes.ErrNoSpace) {
		return fmt.Errorf("%w: %w (the store's etcd has reached its quota. A store of Fettle's own is compacted and defragmented by itself: see `fettle status`, and start `fettle server` with a larger --store-quota where that does not help. Another etcd is its owner's to compact and defragment)", loop.ErrFull, err)
	}
	if errors.Is(err, rpctypes.ErrPermissionDenied) {
		return fmt.Errorf("%w (give the user's role readwrite on all of the prefix: etcdctl role grant-permission ROLE readwrite PREFIX/ --prefix=true)", err)
	}
	if errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("%w (the store let go of the moment that was being read: try again; where that does not help, have it keep its history for longer)", err)
	}
	if errors.Is(err, rpctypes.ErrRequestTooLarge) {
		return fmt.Errorf("%w (raise the store's --max-request-bytes to 4 MiB)", err)
	}
	return err
}
