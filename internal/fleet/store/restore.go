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
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/fleet/segment"
)

// errBackup is wrapped by what is wrong with a backup.
var errBackup = errors.New("the backup cannot be used")

// ReadBackup reads a backup and calls each with its keys, in order. The error says
// what is wrong with it: one that is cut short, was changed, or holds a log whose chain
// is broken, is found out at its end, so that nothing may be done with what each was
// told before. each may be nil.
func ReadBackup(r io.Reader, each func(key string, value []byte) error) (Manifest, error) {
	return readBackup(r, each, nil)
}

// readBackup is ReadBackup, which calls whole with each segment too.
func readBackup(r io.Reader, each func(key string, value []byte) error, whole func(segment.Ref, []byte) error) (Manifest, error) {
	b := backupReader{each: each, whole: whole, sum: sha256.New(), indexed: map[string]bool{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxBackupLine)
	n := 0
	for lines.Scan() {
		n++
		if err := b.line(n, lines.Bytes()); err != nil {
			return Manifest{}, fmt.Errorf("%w: line %d: %w (take another one)", errBackup, n, err)
		}
		if b.told != nil {
			return Manifest{}, b.told
		}
	}
	err := lines.Err()
	switch {
	case err != nil:
		err = fmt.Errorf("line %d: %w", n+1, err)
	case !b.sealed:
		err = fmt.Errorf("it is cut short after %d lines", n)
	case len(b.indexed) > 0:
		err = fmt.Errorf("%d segments are in it that its store does not name", len(b.indexed))
	default:
		err = b.log.end(b.m.Head)
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("%w: %w (take another one)", errBackup, err)
	}
	return b.m, nil
}

// backupReader reads a backup line by line.
type backupReader struct {
	each  func(key string, value []byte) error
	whole func(segment.Ref, []byte) error
	told  error // of either

	m      Manifest
	sum    hash.Hash
	log    checker
	keys   int
	last   string // key
	sealed bool

	part    segment.Ref // whose bytes are read
	bytes   []byte
	indexed map[string]bool // segments that the store's own index must name
}

func (b *backupReader) line(n int, line []byte) (err error) {
	switch {
	case b.sealed:
		return errors.New("it stands behind the end")
	case n == 1:
		err = b.manifest(line)
	case bytes.HasPrefix(line, []byte(`{"keys":`)):
		err = b.seal(line)
	case bytes.HasPrefix(line, []byte(`{"segment":`)), bytes.HasPrefix(line, []byte(`{"p":`)):
		err = b.segment(line)
	default:
		err = b.key(line)
	}
	_, _ = b.sum.Write(line) // never fails (hash.Hash)
	_, _ = b.sum.Write([]byte{'\n'})
	return err
}

func (b *backupReader) manifest(line []byte) error {
	if err := json.Unmarshal(line, &b.m); err != nil || b.m.Schema < 1 || b.m.Fleet == "" || b.m.Epoch == 0 {
		return errors.New("it says nothing of a backup of Fettle's")
	}
	if b.m.Schema > backupSchema {
		return fmt.Errorf("it is of format %d, and up to %d is known here: upgrade", b.m.Schema, backupSchema)
	}
	return nil
}

func (b *backupReader) seal(line []byte) error {
	var s backupSeal
	if err := json.Unmarshal(line, &s); err != nil {
		return err
	}
	if s.Keys != b.keys || s.SHA256 != hex.EncodeToString(b.sum.Sum(nil)) || b.part.Kind != "" {
		return errors.New("the lines before it are not the ones that were sealed")
	}
	b.sealed = true
	return nil
}

// segment takes a part of a segment, and with the last the whole.
func (b *backupReader) segment(line []byte) error {
	var p backupPart
	if err := json.Unmarshal(line, &p); err != nil {
		return err
	}
	if (p.Segment != nil) == (b.part.Kind != "") || b.keys > 0 {
		return errors.New("a part of a segment is not where it should be")
	}
	if p.Segment != nil {
		data, err := json.Marshal(p.Segment)
		if err != nil {
			return err
		}
		if b.part, err = segment.ParseRef(data); err != nil {
			return err
		}
	}
	b.bytes = append(b.bytes, p.Part...)
	if int64(len(b.bytes)) < b.part.Bytes {
		return nil
	}
	r, data := b.part, b.bytes
	b.part, b.bytes = segment.Ref{}, nil
	lines, err := segment.Parse(r, data)
	if err != nil {
		return err
	}
	b.indexed[r.Name()] = true
	for _, entry := range lines {
		if r.Kind != segment.Log {
			break
		}
		if err := b.log.add(entry); err != nil {
			return err
		}
	}
	if b.whole != nil {
		b.told = b.whole(r, data)
	}
	return nil
}

func (b *backupReader) key(line []byte) error {
	var item backupItem
	if err := json.Unmarshal(line, &item); err != nil {
		return err
	}
	key, rooted := strings.CutPrefix(string(item.Key), keyRoot)
	if !rooted || temporary(key) || key <= b.last || b.part.Kind != "" {
		return fmt.Errorf("key %.80q should not be there", item.Key)
	}
	b.last = key
	b.keys++
	switch {
	case strings.HasPrefix(key, keyLog):
		if err := b.log.add(item.Value); err != nil {
			return err
		}
	case strings.HasPrefix(key, keySegments):
		r, err := segment.ParseRef(item.Value)
		if err == nil && !b.indexed[r.Name()] {
			err = fmt.Errorf("%s is not in it", r)
		}
		if err != nil {
			return err
		}
		delete(b.indexed, r.Name())
	}
	if b.each != nil {
		b.told = b.each(key, item.Value)
	}
	return nil
}

// Restore makes a store in a folder that holds none out of a backup, under the epoch
// that the charter lets begin. Who is named a server there is none any more: the fleet
// begins again with one. When it fails, what is in the folder is of no use.
func Restore(ctx context.Context, dir string, backup io.Reader, epoch uint64, signed []byte) (Manifest, error) {
	if Holds(dir) {
		return Manifest{}, fmt.Errorf("restore: %s holds a store already (restore into another folder)", dir)
	}
	server, err := startEmbedded(ctx, dir, nil, restoreQuota)
	if err != nil {
		return Manifest{}, fmt.Errorf("restore: %w", err)
	}
	e, err := onEtcd(EtcdOptions{Dir: dir, Limits: Limits{}.orDefault(false)}, server)
	if err != nil {
		return Manifest{}, errors.Join(fmt.Errorf("restore: %w", err), server.close())
	}
	m, err := e.restore(ctx, backup, epoch, signed)
	if err == nil {
		_, err = e.Check(ctx)
	}
	return m, errors.Join(err, e.Close())
}

const (
	// restoreBatch is how many bytes are written at once.
	restoreBatch = 1 << 20
	// restoreQuota is of etcd while it is filled: the most that it is made for. The server's
	// own counts from its start on.
	restoreQuota = 8 << 30
)

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
	m, err := readBackup(backup, func(key string, value []byte) error {
		// Whose it is comes last: what was broken off is nobody's.
		if strings.HasPrefix(key, keyServers) || strings.HasPrefix(key, keyRegister+"servers/") || key == keyFleet {
			return nil
		}
		var err error
		if size+len(value) > restoreBatch || len(ops) == stageOps {
			err = flush()
		}
		ops = append(ops, clientv3.OpPut(key, string(value)))
		size += len(value)
		return err
	}, e.files.Put)
	if err == nil {
		err = flush()
	}
	if err == nil {
		ops = append(e.restored(), clientv3.OpPut(keyFleet, m.Fleet), clientv3.OpPut(keyEpoch, fmt.Sprint(epoch)), clientv3.OpPut(keyCharter, string(signed)))
		err = flush()
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("restore: %w", explain(err))
	}
	e.o.Fleet = m.Fleet
	return m, nil
}

// keyCharter is the administrator's word that let the present epoch begin.
const keyCharter = "charter"

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
