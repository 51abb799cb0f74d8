package store

import (
	"context"
	"errors"

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
