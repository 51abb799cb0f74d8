package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"fettle/internal/machine"
)

// The states of a member's data, as the fact log_state has them.
const (
	logRunning    = "running"
	logWhole      = "whole"
	logMissing    = "missing"
	logDamaged    = "damaged"
	logForeign    = "foreign"
	logUnreadable = "unreadable"
)

// DataState is what a data directory holds, seen from outside of the server.
type DataState struct {
	State   string // whole, missing, damaged or unreadable
	Damage  string // what is wrong, in words
	Present bool   // there is a member directory at all
	Bytes   int64  // of log, snapshots and database
	Member  uint64 // identity that the log belongs to; 0: not known
	Cluster uint64
	Commit  uint64 // of the last hard state in the log
	Torn    bool   // the last record was being written when the machine stopped; etcd cuts it off
}

// CheckDataDir looks whether the data of a member that does not run can be
// started from. deep reads the log through from where etcd would begin, and the
// pages of the database; else only the log's first records are read, which is
// safe and cheap while a server writes.
//
// It finds: no log; a log whose bytes were changed, whose segments are missing or
// do not follow each other, or that belongs to several identities; a database
// whose meta pages, page headers or length are wrong, or that is missing although
// the log does not go back to the beginning.
//
// It cannot find: an old copy put back, or a log that was cut off between two
// records (both are valid, shorter logs; the server says so when it starts, see
// damageIn); a snapshot file of raft that was changed; bytes changed inside of a
// key or value (the hash over all members shows it); damage in pages that no
// tree reaches, which does no harm.
//
// It reads and never maps a file, so that no page that is missing can end the
// process. Files that cannot be read are the state unreadable, not an error.
func CheckDataDir(ctx context.Context, files machine.Files, dataDir string, deep bool) DataState {
	d := layoutOf(ctx, files, dataDir, "")
	if d.state.State == "" {
		d.check(ctx, files, deep)
	}
	return d.state
}

// layout is the files of a data directory.
type layout struct {
	dir, wal  string
	segments  []machine.Stat // of the log, in order
	snapIndex uint64         // of the newest snapshot of raft
	hasSnap   bool
	db        *machine.Stat
	state     DataState // State "": to be checked
}

var (
	walName  = regexp.MustCompile(`^([0-9a-f]{16})-([0-9a-f]{16})\.wal$`)
	snapName = regexp.MustCompile(`^([0-9a-f]{16})-([0-9a-f]{16})\.snap$`)
)

// layoutOf lists the files. walDir is "" where the log is in the data directory.
func layoutOf(ctx context.Context, files machine.Files, dataDir, walDir string) layout {
	d := layout{dir: path.Join(dataDir, "member"), wal: walDir}
	if d.wal == "" {
		d.wal = path.Join(d.dir, "wal")
	}
	unreadable := func(err error) layout {
		d.state.State, d.state.Damage = logUnreadable, err.Error()
		return d
	}
	if _, err := files.Stat(ctx, d.dir); errors.Is(err, fs.ErrNotExist) {
		d.state.State = logMissing
		return d
	} else if err != nil {
		return unreadable(err)
	}
	d.state.Present = true
	wal, err := files.ReadDir(ctx, d.wal)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unreadable(err)
	}
	for _, f := range wal {
		d.state.Bytes += f.Bytes
		if walName.MatchString(f.Name) {
			d.segments = append(d.segments, f)
		}
	}
	snap, err := files.ReadDir(ctx, path.Join(d.dir, "snap"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unreadable(err)
	}
	for _, f := range snap {
		d.state.Bytes += f.Bytes
		if m := snapName.FindStringSubmatch(f.Name); m != nil {
			d.hasSnap = true
			d.snapIndex = max(d.snapIndex, hexNumber(m[2]))
		}
		if f.Name == "db" {
			d.db = &f
		}
	}
	if len(d.segments) == 0 {
		d.state.State = logMissing
	}
	return d
}

// hexNumber reads what a pattern has matched.
func hexNumber(text string) uint64 {
	n, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return 0
	}
	return n
}

// signature changes when a file does.
func (d layout) signature() string {
	var b strings.Builder
	list := slices.Clone(d.segments)
	if d.db != nil {
		list = append(list, *d.db)
	}
	for _, f := range list {
		fmt.Fprintf(&b, "%s %d %d %d;", f.Name, f.Inode, f.Bytes, f.Modified.UnixNano())
	}
	fmt.Fprintf(&b, "%s %d", d.state.State, d.snapIndex)
	return b.String()
}

func (d *layout) check(ctx context.Context, files machine.Files, deep bool) {
	d.state.State = logWhole
	err := d.checkLog(ctx, files, deep)
	if err == nil && deep {
		err = d.checkDatabase(ctx, files)
	}
	var wrong *damage
	switch {
	case err == nil:
	case errors.As(err, &wrong):
		d.state.State, d.state.Damage = logDamaged, wrong.what
	default:
		d.state.State, d.state.Damage = logUnreadable, err.Error()
	}
}

// checkLog reads the segments from the one that etcd begins at: the last that
// begins no later than the newest snapshot of raft.
func (d *layout) checkLog(ctx context.Context, files machine.Files, deep bool) error {
	from := -1
	var sequence uint64
	for i, f := range d.segments {
		m := walName.FindStringSubmatch(f.Name)
		if hexNumber(m[2]) <= d.snapIndex {
			from = i
		}
		if s := hexNumber(m[1]); i > 0 && s != sequence+1 {
			return damaged("a segment of the log is missing before %s", f.Name)
		}
		sequence = hexNumber(m[1])
	}
	if from < 0 {
		return damaged("the log begins with %s, and there is no snapshot that goes so far", d.segments[0].Name)
	}
	w := walReader{}
	for i, f := range d.segments[from:] {
		if err := d.segment(ctx, files, &w, f, from+i == len(d.segments)-1, deep); err != nil {
			return err
		}
		if !deep {
			break
		}
	}
	if !w.meta {
		return damaged("the log does not say whose it is")
	}
	d.state.Member, d.state.Cluster, d.state.Commit, d.state.Torn = w.info.member, w.info.cluster, w.info.commit, w.info.torn
	return nil
}

// shallow is how much of a segment is read to learn whose it is: its first three
// records take less than a hundred bytes.
const shallow = 4096

func (d *layout) segment(ctx context.Context, files machine.Files, w *walReader, f machine.Stat, last, deep bool) error {
	r, err := files.Open(ctx, path.Join(d.wal, f.Name))
	if err != nil {
		return err
	}
	defer r.Close()
	if deep {
		return w.segment(f.Name, f.Bytes, last, inContext{ctx, r})
	}
	// What is cut off here is not damage: only the head is looked at.
	err = w.segment(f.Name, min(f.Bytes, shallow), true, io.LimitReader(r, shallow))
	w.info.torn = false
	var wrong *damage
	if errors.As(err, &wrong) && w.meta {
		return nil
	}
	return err
}

// inContext ends a long read when the context does.
type inContext struct {
	ctx context.Context
	r   io.Reader
}

func (c inContext) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

// wholeInMemory is up to what size a database is read into memory where the
// machine's files cannot be read at any place; of a larger one only the meta
// pages are looked at then.
const wholeInMemory = 64 << 20

func (d *layout) checkDatabase(ctx context.Context, files machine.Files) error {
	if d.db == nil || d.db.Bytes == 0 {
		if d.hasSnap {
			return damaged("the database is missing, and the log does not go back to the beginning")
		}
		return nil // etcd makes it anew from the log
	}
	r, err := files.Open(ctx, path.Join(d.dir, "snap", "db"))
	if err != nil {
		return err
	}
	defer r.Close()
	if at, ok := r.(io.ReaderAt); ok {
		_, err = checkDB(atInContext{ctx, at}, d.db.Bytes)
		return err
	}
	if d.db.Bytes <= wholeInMemory {
		data, err := io.ReadAll(inContext{ctx, r})
		if err != nil {
			return err
		}
		_, err = checkDB(bytes.NewReader(data), int64(len(data)))
		return err
	}
	head := make([]byte, 256<<10)
	if _, err := io.ReadFull(r, head); err != nil {
		return err
	}
	_, err = readMeta(bytes.NewReader(head), int64(len(head)))
	return err
}

type atInContext struct {
	ctx context.Context
	r   io.ReaderAt
}

func (c atInContext) ReadAt(b []byte, off int64) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.ReadAt(b, off)
}

// dataCheck remembers the last deep check, as long as no file changes.
type dataCheck struct {
	signature string
	state     DataState
}

// data is CheckDataDir for the member of this machine, read anew only when a file
// changed.
func (in *instance) data(ctx context.Context, deep bool) DataState {
	d := layoutOf(ctx, in.m.Files, in.config.DataDir, in.config.WALDir)
	if d.state.State != "" {
		return d.state
	}
	signature := d.signature()
	in.mu.Lock()
	before := in.checked
	in.mu.Unlock()
	if before.signature == signature {
		return before.state
	}
	d.check(ctx, in.m.Files, deep)
	if deep && d.state.State != logUnreadable {
		in.mu.Lock()
		in.checked = dataCheck{signature, d.state}
		in.mu.Unlock()
	}
	return d.state
}
