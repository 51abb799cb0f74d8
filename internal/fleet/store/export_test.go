package store

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/loop"
)

// LoseAnswer makes the next transaction of e be carried out and its answer be
// lost, as when a deadline passes in between.
func LoseAnswer(e *Etcd) { e.kv = &deafKV{KV: e.kv, e: e} }

type deafKV struct {
	clientv3.KV
	e *Etcd
}

func (d *deafKV) Txn(ctx context.Context) clientv3.Txn {
	d.e.kv = d.KV
	return &deafTxn{d.KV.Txn(ctx)}
}

// LoseTxn makes the next transaction of e that writes be lost on its way, or its answer
// where it is carried out: nothing comes until the deadline.
func LoseTxn(e *Etcd, carriedOut bool) {
	e.kv = &losingKV{KV: e.kv, e: e, carriedOut: carriedOut}
}

type losingKV struct {
	clientv3.KV
	e          *Etcd
	carriedOut bool
}

func (l *losingKV) Txn(ctx context.Context) clientv3.Txn {
	l.e.kv = l.KV
	return &lostTxn{deafTxn{l.KV.Txn(ctx)}, ctx, l.carriedOut}
}

type lostTxn struct {
	deafTxn
	ctx        context.Context
	carriedOut bool
}

func (l *lostTxn) If(cs ...clientv3.Cmp) clientv3.Txn   { l.deafTxn.If(cs...); return l }
func (l *lostTxn) Then(ops ...clientv3.Op) clientv3.Txn { l.deafTxn.Then(ops...); return l }
func (l *lostTxn) Else(ops ...clientv3.Op) clientv3.Txn { l.deafTxn.Else(ops...); return l }

func (l *lostTxn) Commit() (*clientv3.TxnResponse, error) {
	var err error
	if l.carriedOut {
		_, err = l.deafTxn.Txn.Commit()
	}
	<-l.ctx.Done()
	return nil, errors.Join(err, l.ctx.Err())
}

type deafTxn struct{ clientv3.Txn }

func (d *deafTxn) If(cs ...clientv3.Cmp) clientv3.Txn   { d.Txn = d.Txn.If(cs...); return d }
func (d *deafTxn) Then(ops ...clientv3.Op) clientv3.Txn { d.Txn = d.Txn.Then(ops...); return d }
func (d *deafTxn) Else(ops ...clientv3.Op) clientv3.Txn { d.Txn = d.Txn.Else(ops...); return d }

func (d *deafTxn) Commit() (*clientv3.TxnResponse, error) {
	resp, err := d.Txn.Commit()
	return nil, errors.Join(err, context.DeadlineExceeded, errIf(resp == nil || !resp.Succeeded, "the transaction was not carried out: the test tests nothing"))
}

func errIf(bad bool, text string) error {
	if bad {
		return errors.New(text)
	}
	return nil
}

// AppendBehind writes an entry to the log as a commit of e does that was given up
// for lost and arrives late: e knows nothing of it.
func AppendBehind(ctx context.Context, e *Etcd, entry loop.Entry) error {
	c, err := prepare(loop.Txn{Log: []loop.Entry{entry}}, e.head)
	if err != nil {
		return err
	}
	ops, err := c.ops()
	if err != nil {
		return err
	}
	_, err = e.kv.Txn(ctx).Then(ops...).Commit()
	return err
}

// ErrDied is what DieAfter lets calls fail with.
var ErrDied = errors.New("the process died")

// DieAfter lets e do so many transactions after the one by which a large change is kept,
// and none after them: as if the process had died in between. -1: not even that one.
func DieAfter(e *Etcd, n int) { e.kv = &dyingKV{KV: e.kv, left: n} }

// Revive lets e go on after DieAfter: it was only cut off for a moment.
func Revive(e *Etcd) { e.kv = e.kv.(*dyingKV).KV }

type dyingKV struct {
	clientv3.KV
	left int
	kept bool
}

func (d *dyingKV) Txn(ctx context.Context) clientv3.Txn { return &dyingTxn{d.KV.Txn(ctx), d} }

type dyingTxn struct {
	clientv3.Txn
	d *dyingKV
}

func (t *dyingTxn) If(cs ...clientv3.Cmp) clientv3.Txn   { t.Txn = t.Txn.If(cs...); return t }
func (t *dyingTxn) Else(ops ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(ops...); return t }
func (t *dyingTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	for _, op := range ops {
		t.d.kept = t.d.kept || op.IsPut() && string(op.KeyBytes()) == keyStaged
	}
	t.Txn = t.Txn.Then(ops...)
	return t
}

func (t *dyingTxn) Commit() (*clientv3.TxnResponse, error) {
	if t.d.kept {
		if t.d.left < 0 {
			return nil, ErrDied
		}
		t.d.left--
	}
	return t.Txn.Commit()
}

// LeadsStore reports whether the etcd of e leads the others.
func LeadsStore(e *Etcd) bool {
	own := e.server.etcd.Server
	return own.Leader() == own.MemberID()
}

// Stand leaves in the election what a server of this name would that was killed, with a
// lease of an hour.
func Stand(ctx context.Context, e *Etcd, name string) (clientv3.LeaseID, error) {
	grant, err := e.client.Grant(ctx, 3600)
	if err != nil {
		return 0, err
	}
	_, err = e.client.Put(ctx, keyElection+"/killed-"+name, `{"name":"`+name+`"}`, clientv3.WithLease(grant.ID))
	return grant.ID, err
}

// Ended reports whether a lease is there no more.
func Ended(ctx context.Context, e *Etcd, lease clientv3.LeaseID) bool {
	left, err := e.client.TimeToLive(ctx, lease)
	return err == nil && left.TTL < 0
}

// WaitStanding waits until so many stand for election.
func WaitStanding(ctx context.Context, e *Etcd, n int) {
	for ctx.Err() == nil {
		got, err := e.get(ctx, keyElection+"/", clientv3.WithPrefix())
		if err != nil || len(got.Kvs) >= n {
			return
		}
		e.awaitChange(ctx, got.Header.Revision+1)
	}
}

// StopAt makes a keeper call f when it has done a step.
func StopAt(k *Keeper, f func(step string)) { k.hook = f }

// SegmentsDir is where the files of a store in a folder are.
func SegmentsDir(e *Etcd) string { return e.files.Dir() }

// EntriesInStore is how many entries of the log etcd has, from which on.
func EntriesInStore(ctx context.Context, e *Etcd) (first, n int64, err error) {
	err = e.each(ctx, keyLog, "", func(_ string, kept []byte) error {
		entry, _, err := unseal(kept)
		if n++; n == 1 {
			first = entry.Seq
		}
		return err
	})
	return first, n, err
}

// FillBehind writes to etcd past every limit of e's.
func FillBehind(ctx context.Context, e *Etcd, key string, value []byte) error {
	_, err := e.kv.Put(ctx, "test/"+key, string(value))
	if e.server != nil {
		e.server.etcd.Server.Backend().ForceCommit() // so that the size is known at once
	}
	return err
}

// EmptyBehind takes out what FillBehind wrote.
func EmptyBehind(ctx context.Context, e *Etcd) error {
	_, err := e.kv.Delete(ctx, "test/", clientv3.WithPrefix())
	return err
}

// Settle has etcd say how large its file is now.
func Settle(e *Etcd) { e.server.etcd.Server.Backend().ForceCommit() }

// Abreast waits until a server has all that was written before, and settles it.
func Abreast(ctx context.Context, e *Etcd) error {
	_, err := e.get(ctx, keyHead) // linearizable, so answered when all is applied here
	Settle(e)
	return err
}

// Tighten takes the holes out of etcd's file.
func Tighten(e *Etcd) error { return e.server.etcd.Server.Backend().Defrag() }

// Records are the incidents that etcd has, by ID.
func (e *Etcd) Records(ctx context.Context) ([]string, error) {
	var ids []string
	err := e.each(ctx, keyRecords, "", func(key string, _ []byte) error {
		ids = append(ids, strings.TrimPrefix(key, keyRecords))
		return nil
	})
	return ids, err
}

// FetchWith says how a store gets segments of others.
func FetchWith(e *Etcd, f Fetch) { e.fetcher.Store(&f) }

// Say says for a server how large its file is.
func Say(ctx context.Context, e *Etcd, name string, inUse, file int64) error {
	data, err := json.Marshal(holding{Size: size{InUse: inUse, File: file}})
	if err != nil {
		return err
	}
	_, err = e.kv.Put(ctx, keyHeld+name, string(data))
	return err
}

// Turn says whose turn it is to defragment, "" where it is nobody's.
func Turn(ctx context.Context, e *Etcd) (string, error) {
	got, err := e.get(ctx, keyTurn)
	if err != nil || len(got.Kvs) == 0 {
		return "", err
	}
	return string(got.Kvs[0].Value), nil
}

// QuietAfter is how long a server may be silent before its size counts no more.
const QuietAfter = quietAfter

// Said is what a server said last.
func Said(ctx context.Context, e *Etcd, name string) (string, error) {
	got, err := e.get(ctx, keyHeld+name)
	if err != nil || len(got.Kvs) == 0 {
		return "", err
	}
	return string(got.Kvs[0].Value), nil
}
