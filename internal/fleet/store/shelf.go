package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/fleet/pki"
)

// keyRegister is where the register of the fleet's machines is.
const keyRegister = "register/"

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

// Follow implements pki.Followed.
func (s shelf) Follow(ctx context.Context, all func(map[pki.Record]bool), changed func(pki.Record, bool)) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	now, err := s.e.get(ctx, keyRegister, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("follow the register: %w", explain(err))
	}
	revision := now.Header.Revision
	in := map[pki.Record]bool{}
	end := clientv3.GetPrefixRangeEnd(keyRegister)
	for from := keyRegister; ; {
		got, err := s.e.get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(revision), clientv3.WithKeysOnly())
		if err != nil {
			return fmt.Errorf("follow the register: %w", explain(err))
		}
		for _, kv := range got.Kvs {
			in[recordOf(kv.Key)] = true
		}
		if !got.More || len(got.Kvs) == 0 {
			break
		}
		from = string(got.Kvs[len(got.Kvs)-1].Key) + "\x00"
	}
	all(in)
	for w := range s.e.client.Watch(ctx, keyRegister, clientv3.WithPrefix(), clientv3.WithRev(revision+1)) {
		if err := w.Err(); err != nil {
			return fmt.Errorf("follow the register: %w", explain(err))
		}
		for _, e := range w.Events {
			changed(recordOf(e.Kv.Key), e.Type == clientv3.EventTypePut)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.New("follow the register: the store tells of no more changes")
}

func recordOf(key []byte) pki.Record {
	kind, id, _ := strings.Cut(strings.TrimPrefix(string(key), keyRegister), "/")
	return pki.Record{Kind: kind, ID: id}
}
