package store

import (
	"context"
	"fmt"
	"io/fs"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/fleet/pki"
)

// keyRegister is where the register of the fleet's machines is.
const keyRegister = "/fettle/register/"

// Shelf is where the register of the fleet's machines is kept, for all servers. It
// may be used before Load, and by servers that do not lead.
func (e *Etcd) Shelf() pki.Shelf { return shelf{e} }

type shelf struct{ e *Etcd }

func shelfKey(kind, id string) string { return keyRegister + kind + "/" + id }

// Create implements pki.Shelf.
func (s shelf) Create(ctx context.Context, kind, id string, data []byte) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	key := shelfKey(kind, id)
	resp, err := s.e.kv.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(clientv3.OpPut(key, string(data))).Commit()
	switch {
	case err != nil:
		return fmt.Errorf("keep %s in the store: %w", id, explain(err))
	case !resp.Succeeded:
		return fmt.Errorf("keep %s in the store: %w", id, fs.ErrExist)
	}
	return nil
}

// Read implements pki.Shelf.
func (s shelf) Read(ctx context.Context, kind, id string) ([]byte, error) {
	got, err := s.e.get(ctx, shelfKey(kind, id))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s in the store: %w", id, explain(err))
	case len(got.Kvs) == 0:
		return nil, fmt.Errorf("read %s in the store: %w", id, fs.ErrNotExist)
	}
	return got.Kvs[0].Value, nil
}

// Remove implements pki.Shelf.
func (s shelf) Remove(ctx context.Context, kind, id string) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	resp, err := s.e.kv.Delete(ctx, shelfKey(kind, id))
	switch {
	case err != nil:
		return fmt.Errorf("take %s out of the store: %w", id, explain(err))
	case resp.Deleted == 0:
		return fmt.Errorf("take %s out of the store: %w", id, fs.ErrNotExist)
	}
	return nil
}

// List implements pki.Shelf.
func (s shelf) List(ctx context.Context, kind string) (map[string][]byte, error) {
	list := map[string][]byte{}
	prefix := shelfKey(kind, "")
	err := s.e.each(ctx, prefix, "", func(key string, value []byte) error {
		list[strings.TrimPrefix(key, prefix)] = value
		return nil
	})
	return list, err
}
