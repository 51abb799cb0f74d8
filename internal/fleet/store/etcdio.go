package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/loop"
)

// commitTries is how often a Commit is written anew because the head was not
// where it was thought: once after an earlier Commit without an answer.
const commitTries = 3

// Commit implements loop.Store. One transaction, which etcd carries out only
// while the leader key is the one of our token and the head is the one that the
// new entries are chained to.
func (e *Etcd) Commit(ctx context.Context, t loop.Txn) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.token.Revision == 0 || t.Token != e.token {
		return fmt.Errorf("commit: %w", loop.ErrNotLeader)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	for range commitTries {
		done, err := e.try(ctx, t)
		if done || err != nil {
			return err
		}
	}
	return errors.New("commit: somebody else writes to the head of the log (look for a second server on this store)")
}

// try returns false when the head has moved and is known anew.
func (e *Etcd) try(ctx context.Context, t loop.Txn) (bool, error) {
	if e.unsure {
		head, rev, err := e.readHead(ctx)
		if err != nil {
			return false, fmt.Errorf("commit: find out what became of the one before: %w", explain(err))
		}
		e.head, e.headRev, e.unsure = head, rev, false
	}
	c, err := prepare(t, e.head)
	if err != nil {
		return false, fmt.Errorf("commit: %w", err)
	}
	ops, err := c.ops()
	if err != nil {
		return false, fmt.Errorf("commit: %w", err)
	}
	resp, err := e.kv.Txn(ctx).If(
		clientv3.Compare(clientv3.CreateRevision(e.leader), "=", int64(e.token.Revision)),
		clientv3.Compare(clientv3.ModRevision(keyHead), "=", e.headRev),
	).Then(ops...).Else(clientv3.OpGet(e.leader), clientv3.OpGet(keyHead)).Commit()
	if err != nil {
		e.unsure = true
		return false, fmt.Errorf("commit: %w", explain(err))
	}
	if resp.Succeeded {
		e.head = c.head
		if len(c.log) > 0 {
			e.headRev = resp.Header.Revision
		}
		e.tip.set(e.token.Epoch, c.head)
		return true, nil
	}
	leader := resp.Responses[0].GetResponseRange()
	if len(leader.Kvs) == 0 || leader.Kvs[0].CreateRevision != int64(e.token.Revision) {
		e.token.Revision = 0
		return false, fmt.Errorf("commit: %w", loop.ErrNotLeader)
	}
	e.unsure = true
	return false, nil
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
	return e.kv.Get(ctx, key, opts...)
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
func (e *Etcd) each(ctx context.Context, prefix, from string, f func(key string, value []byte) error) error {
	if from == "" {
		from = prefix
	}
	for end := clientv3.GetPrefixRangeEnd(prefix); ; {
		got, err := e.get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page))
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
		return fmt.Errorf("%w (the store has reached its quota: archive and compact it)", err)
	}
	return err
}
