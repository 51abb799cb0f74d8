package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/loop"
)

// A backup is a file of JSON, one object a line: a Manifest, every key with its value,
// and a seal over all bytes before it. It is not etcd's own: it is read by any version
// of it, and can be looked at with jq.

// keyRoot is what all keys begin with.
const keyRoot = "/fettle/"

// backupSchema is the version of the file's format.
const backupSchema = 1

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

// backupSeal is the last line.
type backupSeal struct {
	Keys   int    `json:"keys"`
	SHA256 string `json:"sha256"` // of all bytes before this line, hexadecimal
}

// temporary are keys that mean nothing in another store: who leads, and the clock.
func temporary(key string) bool {
	return key == keyLeader || key == keyClock || key == keyEpoch || key == keyCharter || strings.HasPrefix(key, keyElection+"/")
}

// Backup writes all that the store keeps, as it is at one moment, now being the wall
// clock's time. It may be called on any server, while others write.
func (e *Etcd) Backup(ctx context.Context, w io.Writer, now time.Time) error {
	epoch, err := e.settle(ctx)
	if err != nil {
		return fmt.Errorf("back up the store: %w", explain(err))
	}
	got, err := e.get(ctx, keyHead)
	if err != nil {
		return fmt.Errorf("back up the store: %w", explain(err))
	}
	m := Manifest{Schema: backupSchema, Fleet: e.o.Fleet, Epoch: epoch, Revision: got.Header.Revision, At: now.UTC()}
	if len(got.Kvs) > 0 {
		if err := json.Unmarshal(got.Kvs[0].Value, &m.Head); err != nil {
			return fmt.Errorf("back up the store: the head of the log: %w", err)
		}
	}
	out := newSealing(w)
	if err := out.line(m); err != nil {
		return fmt.Errorf("back up the store: %w", err)
	}
	keys := 0
	err = e.eachAt(ctx, m.Revision, func(key string, value []byte) error {
		if temporary(key) {
			return nil
		}
		keys++
		return out.line(backupItem{[]byte(key), value})
	})
	if err == nil {
		err = out.line(backupSeal{Keys: keys, SHA256: out.sum()})
	}
	if err == nil {
		err = out.w.Flush()
	}
	if err != nil {
		return fmt.Errorf("back up the store: %w", explain(err))
	}
	return nil
}

// eachAt calls f for all keys as they were at a revision.
func (e *Etcd) eachAt(ctx context.Context, revision int64, f func(key string, value []byte) error) error {
	end := clientv3.GetPrefixRangeEnd(keyRoot)
	for from := keyRoot; ; {
		got, err := e.get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(revision))
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

// errBackup is wrapped by what is wrong with a backup.
var errBackup = errors.New("the backup cannot be used")

// ReadBackup reads a backup and calls each with its keys, in order. The error says
// what is wrong with it: one that is cut short, was changed, or holds a log whose chain
// is broken, is found out at its end, so that nothing may be done with what each was
// told before. each may be nil.
func ReadBackup(r io.Reader, each func(key string, value []byte) error) (Manifest, error) {
	fail := func(format string, args ...any) (Manifest, error) {
		return Manifest{}, fmt.Errorf("%w: %w (take another one)", errBackup, fmt.Errorf(format, args...))
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxBackupLine)
	sum := sha256.New()
	var m Manifest
	var log checker
	keys, n, sealed := 0, 0, false
	for last := ""; lines.Scan(); {
		n++
		line := lines.Bytes()
		switch {
		case sealed:
			return fail("line %d stands behind its end", n)
		case n == 1:
			if err := json.Unmarshal(line, &m); err != nil || m.Schema < 1 || m.Fleet == "" || m.Epoch == 0 {
				return fail("line 1 says nothing of a backup of Fettle's")
			}
			if m.Schema > backupSchema {
				return fail("it is of format %d, and up to %d is known here: upgrade", m.Schema, backupSchema)
			}
		case bytes.HasPrefix(line, []byte(`{"keys":`)):
			var s backupSeal
			if err := json.Unmarshal(line, &s); err != nil {
				return fail("line %d: %w", n, err)
			}
			if s.Keys != keys || s.SHA256 != hex.EncodeToString(sum.Sum(nil)) {
				return fail("its %d lines are not the ones that were sealed", n)
			}
			sealed = true
		default:
			var item backupItem
			if err := json.Unmarshal(line, &item); err != nil {
				return fail("line %d: %w", n, err)
			}
			key := string(item.Key)
			if !strings.HasPrefix(key, keyRoot) || temporary(key) || key <= last {
				return fail("line %d: key %.80q should not be there", n, key)
			}
			last = key
			keys++
			if strings.HasPrefix(key, keyLog) {
				if err := log.add(item.Value); err != nil {
					return fail("line %d: %w", n, err)
				}
			}
			if each != nil {
				if err := each(key, item.Value); err != nil {
					return Manifest{}, err
				}
			}
		}
		_, _ = sum.Write(line) // never fails (hash.Hash)
		_, _ = sum.Write([]byte{'\n'})
	}
	if err := lines.Err(); err != nil {
		return fail("line %d: %w", n+1, err)
	}
	if !sealed {
		return fail("it is cut short after %d lines", n)
	}
	if err := log.end(m.Head); err != nil {
		return fail("%w", err)
	}
	return m, nil
}

// Restore makes a store in a folder that holds none out of a backup, under the epoch
// that the charter lets begin. Who is named a server there is none any more: the fleet
// begins again with one. When it fails, what is in the folder is of no use.
func Restore(ctx context.Context, dir string, backup io.Reader, epoch uint64, signed []byte) (Manifest, error) {
	if Holds(dir) {
		return Manifest{}, fmt.Errorf("restore: %s holds a store already (restore into another folder)", dir)
	}
	server, err := startEmbedded(ctx, dir, nil)
	if err != nil {
		return Manifest{}, fmt.Errorf("restore: %w", err)
	}
	e := &Etcd{server: server, kv: server.client.KV}
	m, err := e.restore(ctx, backup, epoch, signed)
	if err == nil {
		_, err = e.Check(ctx)
	}
	return m, errors.Join(err, e.Close())
}

// restoreBatch is how many bytes are written at once.
const restoreBatch = 1 << 20

func (e *Etcd) restore(ctx context.Context, backup io.Reader, epoch uint64, signed []byte) (Manifest, error) {
	var ops []clientv3.Op
	size := 0
	flush := func() error {
		if len(ops) == 0 {
			return nil
		}
		bound, cancel := bounded(ctx)
		defer cancel()
		_, err := e.kv.Txn(bound).Then(ops...).Commit()
		ops, size = ops[:0], 0
		return err
	}
	m, err := ReadBackup(backup, func(key string, value []byte) error {
		if strings.HasPrefix(key, keyServers) || strings.HasPrefix(key, keyRegister+"servers/") {
			return nil
		}
		ops = append(ops, clientv3.OpPut(key, string(value)))
		if size += len(value); size < restoreBatch && len(ops) < page {
			return nil
		}
		return flush()
	})
	if err == nil {
		ops = append(slices.Clone(ops), clientv3.OpPut(keyEpoch, fmt.Sprint(epoch)), clientv3.OpPut(keyCharter, string(signed)))
		err = flush()
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("restore: %w", explain(err))
	}
	e.o.Fleet = m.Fleet
	return m, nil
}

// keyCharter is the administrator's word that let the present epoch begin.
const keyCharter = "/fettle/charter"

// Charter returns the administrator's word that let the present epoch begin, as it was
// given to Restore; nil for the first epoch, which needs none.
func (e *Etcd) Charter(ctx context.Context) ([]byte, error) {
	got, err := e.get(ctx, keyCharter)
	if err != nil {
		return nil, fmt.Errorf("the charter of the epoch: %w", explain(err))
	}
	if len(got.Kvs) == 0 {
		return nil, nil
	}
	return got.Kvs[0].Value, nil
}
