package store

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/fleet/segment"
	"fettle/internal/loop"
)

// A backup is a file of JSON, one object a line: a Manifest, every segment with its bytes,
// every key with its value, and a seal over all bytes before it. It is not etcd's own: it
// is read by any version of it, and can be looked at with jq.

// keyRoot is what all keys begin with in the embedded etcd and, wherever they were, in
// a backup.
const keyRoot = "/fettle/"

// backupSchema is the version of the file's format. One without segments is of version 1.
const (
	backupSchema = 2
	noSegments   = 1
)

// maxBackupLine bounds a line: a record, in base64, twice over.
const maxBackupLine = 4 * MaxItem

// Manifest is what a backup holds.
type Manifest struct {
	Schema   int       `json:"fettle_backup"`
	Fleet    string    `json:"fleet"`
	Epoch    uint64    `json:"epoch"`
	Revision int64     `json:"revision"` // of the store, at which everything was read
	At       time.Time `json:"at"`
	Head     loop.Head `json:"head"` // of the log of decisions
}

// backupItem is a key with its value.
type backupItem struct {
	Key   []byte `json:"k"`
	Value []byte `json:"v"`
}

// backupPart is a part of a segment's bytes. The first has what it is.
type backupPart struct {
	Segment *segment.Ref `json:"segment,omitempty"`
	Part    []byte       `json:"p"`
}

// partBytes is how much of a segment stands in a line.
const partBytes = 256 << 10

// backupSeal is the last line.
type backupSeal struct {
	Keys   int    `json:"keys"`
	SHA256 string `json:"sha256"` // of all bytes before this line, hexadecimal
}

// temporary are keys that mean nothing in another store: who leads, the clock, and what
// is under way.
func temporary(key string) bool {
	return key == keyLeader || key == keyClock || key == keyEpoch || key == keyCharter || key == keyCluster || key == keyRestoring ||
		key == keyStaged || key == keyTurn || key == keyBackup ||
		strings.HasPrefix(key, keyOffer) || strings.HasPrefix(key, keyHeld) || strings.HasPrefix(key, keyElection+"/") || strings.HasPrefix(key, keyStage) || strings.HasPrefix(key, keyTrial)
}

// Backup writes all that the store keeps, as it is at one moment, now being the wall
// clock's time. It may be called on any server, while others write.
func (e *Etcd) Backup(ctx context.Context, w io.Writer, now time.Time) error {
	epoch, err := e.settle(ctx)
	if err != nil {
		return fmt.Errorf("back up the store: %w", explain(err))
	}
	got, err := e.headUnstaged(ctx)
	if err != nil {
		return fmt.Errorf("back up the store: %w", explain(err))
	}
	m := Manifest{Schema: noSegments, Fleet: e.o.Fleet, Epoch: epoch, Revision: got.Header.Revision, At: now.UTC()}
	if len(got.Kvs) > 0 {
		if err := json.Unmarshal(got.Kvs[0].Value, &m.Head); err != nil {
			return fmt.Errorf("back up the store: the head of the log: %w", err)
		}
	}
	if err := e.backup(ctx, newSealing(w), m); err != nil {
		return fmt.Errorf("back up the store: %w", explain(err))
	}
	bound, cancel := bounded(ctx)
	defer cancel()
	_, _ = e.kv.Put(bound, keyBackup, strconv.FormatInt(now.Unix(), 10)) // a store that is full was backed up too
	return nil
}

// backup writes everything as it is at the manifest's revision. What is in a segment is
// not written twice.
func (e *Etcd) backup(ctx context.Context, out *sealing, m Manifest) error {
	e.readers.Add(1)
	defer e.readers.Add(-1)
	end := int64(0)
	var all []segment.Ref
	for _, kind := range []segment.Kind{segment.Log, segment.Incidents} {
		refs, err := e.refsFrom(ctx, kind, nil, clientv3.WithRev(m.Revision))
		if err != nil {
			return err
		}
		if kind == segment.Log {
			end = through(refs)
		}
		all = append(all, refs...)
	}
	if len(all) > 0 {
		m.Schema = backupSchema
	}
	if err := out.line(m); err != nil {
		return err
	}
	for _, r := range all {
		data, err := orFetched(ctx, e, r, e.files.Bytes)
		if err != nil {
			return err
		}
		part := backupPart{Segment: &r}
		for chunk := range slices.Chunk(data, partBytes) {
			part.Part = chunk
			if err := out.line(part); err != nil {
				return err
			}
			part.Segment = nil
		}
	}
	keys := 0
	err := e.eachAt(ctx, m.Revision, func(key string, value []byte) error {
		if temporary(key) || strings.HasPrefix(key, keyLog) && key <= logKey(end) {
			return nil
		}
		keys++
		return out.line(backupItem{[]byte(keyRoot + key), value})
	})
	if err == nil {
		err = out.line(backupSeal{Keys: keys, SHA256: out.sum()})
	}
	if err != nil {
		return err
	}
	return out.w.Flush()
}

// The first key that there can be below the root, and the end of them all.
const first, last = "\x00", "\x00"

// eachAt calls f for all keys as they were at a revision.
func (e *Etcd) eachAt(ctx context.Context, revision int64, f func(key string, value []byte) error) error {
	for from := first; ; {
		got, err := e.get(ctx, from, clientv3.WithRange(last), clientv3.WithLimit(page), clientv3.WithRev(revision))
		if err != nil {
			return err
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

// sealing writes lines and their sum.
type sealing struct {
	w *bufio.Writer
	h hash.Hash
}

func newSealing(w io.Writer) *sealing { return &sealing{bufio.NewWriterSize(w, 64<<10), sha256.New()} }

func (s *sealing) line(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	data = append(data, '\n')
	_, _ = s.h.Write(data) // never fails (hash.Hash)
	_, err = s.w.Write(data)
	return err
}

func (s *sealing) sum() string { return hex.EncodeToString(s.h.Sum(nil)) }
