package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// keyRestoring stands while a restore is under way, so that nothing else begins there.
const keyRestoring = "restoring"

// clearWait bounds taking back what a restore that failed has written.
const clearWait = 30 * time.Second

// RestoreExisting does in an existing etcd cluster what Restore does in a folder. The
// prefix must be empty; when it fails, it is empty again, or says that a restore was
// broken off there. The backup's files go to dir, which is the folder of the server's store
// (EtcdOptions.Dir); other servers get them from it. What is left of them when it fails are
// copies that nobody needs. by says who restores, for whoever finds that.
func RestoreExisting(ctx context.Context, w Where, dir, by string, backup io.Reader, epoch uint64, signed []byte) (m Manifest, err error) {
	e, err := openExisting(ctx, EtcdOptions{Dir: dir, Existing: &Existing{Where: w, Name: "restore", Found: true, Look: true}})
	if err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	defer func() { err = errors.Join(err, e.closeClient()) }()
	fail := func(err error) (Manifest, error) {
		return Manifest{}, fmt.Errorf("restore: store %s: %w", w, explain(err))
	}
	if err := e.occupy(ctx, by); err != nil {
		return fail(err)
	}
	if err = errors.Join(e.trial(ctx), e.openFiles()); err == nil {
		if m, err = e.restore(ctx, backup, epoch, signed); err == nil {
			_, err = e.Check(ctx)
		}
	}
	if err != nil {
		return fail(errors.Join(err, e.clear()))
	}
	return m, nil
}

// occupy keeps all others off an empty prefix.
func (e *Etcd) occupy(ctx context.Context, by string) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	got, err := e.kv.Get(ctx, keyFleet)
	switch {
	case err != nil:
		return err
	case len(got.Kvs) > 0:
		return fmt.Errorf("it holds the store of fleet %.80q%s already (restore to another --store-prefix, or clear this one with its own tools)", got.Kvs[0].Value, e.whose(ctx))
	}
	if err := e.vacant(ctx); err != nil {
		return err
	}
	none := func(key string) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(key), "=", 0) }
	resp, err := e.kv.Txn(ctx).If(none(keyFleet), none(keyRestoring)).Then(clientv3.OpPut(keyRestoring, by)).Commit()
	if err == nil && !resp.Succeeded {
		err = errors.New("somebody else began to use it in the same moment (look who, and try again)")
	}
	return err
}

// clear takes back what a restore has written: all of it, for there was nothing.
func (e *Etcd) clear() error {
	ctx, cancel := context.WithTimeout(context.Background(), clearWait) // the caller's may have ended
	defer cancel()
	if _, err := e.kv.Delete(ctx, first, clientv3.WithRange(last)); err != nil {
		return fmt.Errorf("clear what was written: %w (etcdctl del %s --prefix)", err, e.o.Existing.root())
	}
	return nil
}

// restored is what makes a restored store whole, besides whose it is.
func (e *Etcd) restored() []clientv3.Op {
	if e.o.Existing == nil {
		return nil
	}
	return []clientv3.Op{clientv3.OpPut(keyCluster, strconv.FormatUint(e.cluster.Load(), 16)), clientv3.OpDelete(keyRestoring)}
}
