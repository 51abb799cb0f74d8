package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/loop"
)

// An existing etcd takes what its own settings say: out of the box 128 operations and
// 1.5 MiB at once. A change that is larger is written ahead, piece by piece, where
// nobody reads it; one transaction, under the conditions of every Commit, moves the
// head of the log and says that it holds; then it is put in its place, piece by piece.
// Whoever leads next finishes what was broken off between the last two, before it reads
// anything.
const (
	keyStage  = "stage/" // what was written ahead
	keyStaged = "staged" // what of it holds and may not be in its place yet
)

// What is asked of an existing etcd at once, below what it takes out of the box.
const (
	stageOps   = 100
	stageBytes = 1 << 20
	// stageItem is the largest value: etcd counts what is around it, too.
	stageItem = 5 << 18
)

// staged says which pieces hold.
type staged struct {
	Of     string `json:"of"` // the pieces' keys begin with it
	Pieces int    `json:"pieces"`
	SHA256 string `json:"sha256"` // of all of them
}

// stagedOp is a change of one key.
type stagedOp struct {
	Key    string `json:"k"`
	Value  []byte `json:"v,omitempty"`
	Delete bool   `json:"d,omitempty"`
}

func tooLarge(ops []clientv3.Op) bool {
	size := 0
	for _, op := range ops {
		size += len(op.KeyBytes()) + len(op.ValueBytes())
	}
	return len(ops) > stageOps || size > stageBytes
}

// stage writes a change ahead and returns what makes it hold.
func (e *Etcd) stage(ctx context.Context, ops []clientv3.Op, c *change) ([]clientv3.Op, error) {
	var ahead []stagedOp
	var final []clientv3.Op
	for _, op := range ops {
		switch key := string(op.KeyBytes()); {
		case key == keyHead:
			final = append(final, op)
		case len(op.ValueBytes()) > stageItem:
			return nil, fmt.Errorf("%w: %s has %d bytes; at most %d are kept at once in an existing etcd", loop.ErrTooLarge, key, len(op.ValueBytes()), stageItem)
		default:
			ahead = append(ahead, stagedOp{key, op.ValueBytes(), op.IsDelete()})
		}
	}
	data, err := json.Marshal(ahead)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	// A new try has another head before it or the same pieces: what is there of an older
	// one is not mixed up with it.
	s := staged{Of: fmt.Sprintf("%s%d-%d-%.16s/", keyStage, e.token.Revision, c.head.Entries, hex.EncodeToString(sum[:])), SHA256: hex.EncodeToString(sum[:])}
	for len(data) > 0 {
		piece := data[:min(len(data), stageBytes)]
		data = data[len(piece):]
		if err := e.whileLeading(ctx, int64(e.token.Revision), clientv3.OpPut(pieceKey(s.Of, s.Pieces), string(piece))); err != nil {
			return nil, err
		}
		s.Pieces++
	}
	word, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return append(final, clientv3.OpPut(keyStaged, string(word))), nil
}

func pieceKey(of string, i int) string { return fmt.Sprintf("%s%06d", of, i) }

// finishStaged puts in its place what holds and may not be there yet. revision is that
// of our leadership.
func (e *Etcd) finishStaged(ctx context.Context, revision int64) error {
	if e.o.Existing == nil {
		return nil
	}
	got, err := e.get(ctx, keyStaged)
	if err != nil || len(got.Kvs) == 0 {
		return err
	}
	ops, err := e.readStaged(ctx, got.Kvs[0].Value)
	if err != nil {
		return fmt.Errorf("a large change that was broken off: %w (restore the store from a backup)", err)
	}
	batch, size := []clientv3.Op(nil), 0
	for _, op := range ops {
		next := clientv3.OpPut(op.Key, string(op.Value))
		if op.Delete {
			next = clientv3.OpDelete(op.Key)
		}
		if len(batch) == stageOps || size+len(op.Value) > stageBytes && len(batch) > 0 {
			if err := e.whileLeading(ctx, revision, batch...); err != nil {
				return err
			}
			batch, size = nil, 0
		}
		batch, size = append(batch, next), size+len(op.Key)+len(op.Value)
	}
	if err := e.whileLeading(ctx, revision, batch...); err != nil {
		return err
	}
	return e.whileLeading(ctx, revision, clientv3.OpDelete(keyStaged), clientv3.OpDelete(keyStage, clientv3.WithPrefix()))
}

func (e *Etcd) readStaged(ctx context.Context, word []byte) ([]stagedOp, error) {
	var s staged
	if err := json.Unmarshal(word, &s); err != nil {
		return nil, err
	}
	var data bytes.Buffer
	for i := range s.Pieces {
		got, err := e.get(ctx, pieceKey(s.Of, i))
		switch {
		case err != nil:
			return nil, err
		case len(got.Kvs) == 0:
			return nil, fmt.Errorf("piece %d of %d is not there", i+1, s.Pieces)
		}
		data.Write(got.Kvs[0].Value)
	}
	if sum := sha256.Sum256(data.Bytes()); hex.EncodeToString(sum[:]) != s.SHA256 {
		return nil, errors.New("it was changed since")
	}
	var ops []stagedOp
	return ops, json.Unmarshal(data.Bytes(), &ops)
}

// whileLeading does something under the condition that we lead still.
func (e *Etcd) whileLeading(ctx context.Context, revision int64, ops ...clientv3.Op) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	resp, err := e.kv.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(e.leader), "=", revision)).Then(ops...).Commit()
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		return loop.ErrNotLeader
	}
	return nil
}

// dropStage takes out what was written ahead and never held, by whoever led before: it
// would count as the fleet's for ever. Nothing is on its way to its place.
func (e *Etcd) dropStage(ctx context.Context, revision int64) error {
	if e.o.Existing == nil {
		return nil
	}
	got, err := e.get(ctx, keyStage, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || got.Count == 0 {
		return err
	}
	return e.whileLeading(ctx, revision, clientv3.OpDelete(keyStage, clientv3.WithPrefix()))
}

// inPlace puts in its place what is on its way there, where this server leads.
func (e *Etcd) inPlace(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.o.Existing == nil || e.token.Revision == 0 {
		return nil
	}
	return e.finishStaged(ctx, int64(e.token.Revision))
}

// headUnstaged reads the head of the log at a revision at which nothing is on its way to
// its place.
func (e *Etcd) headUnstaged(ctx context.Context) (*clientv3.GetResponse, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	for {
		resp, err := e.kv.Txn(ctx).Then(clientv3.OpGet(keyHead), clientv3.OpGet(keyStaged)).Commit()
		if err != nil {
			return nil, err
		}
		head := resp.Responses[0].GetResponseRange()
		if len(resp.Responses[1].GetResponseRange().Kvs) == 0 {
			return &clientv3.GetResponse{Header: resp.Header, Kvs: head.Kvs}, nil
		}
		select {
		case <-time.After(attendEvery):
		case <-ctx.Done():
			return nil, fmt.Errorf("a large change is on its way to its place: %w (try again; a server that leads finishes it)", ctx.Err())
		}
	}
}
