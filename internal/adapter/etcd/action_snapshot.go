package etcd

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"fettle/internal/fettle"
)

// snapshot is etcd.snapshot.
type snapshot struct{ *cluster }

const opSnapshot = "etcd.snapshot"

// sidecar is written beside a snapshot, before the file gets its name.
type sidecar struct {
	Path     string         `json:"path"`
	SHA256   string         `json:"sha256"`
	Revision int64          `json:"revision"`
	Bytes    int64          `json:"bytes"`
	From     fettle.Subject `json:"from"`
	At       time.Time      `json:"at"`
	Incident string         `json:"incident,omitempty"`
	Key      string         `json:"key"`
}

func (s sidecar) result() fettle.Result {
	return fettle.Result{
		Outputs: fettle.Facts{"path": s.Path, "sha256": s.SHA256, "revision": s.Revision, "bytes": s.Bytes, "from": string(s.From)},
		Notes:   []string{fmt.Sprintf("snapshot of %s up to revision %d, %d bytes, checked, in %s", s.From.Name(), s.Revision, s.Bytes, s.Path)},
	}
}

// sourceFor chooses the member that a snapshot is taken from: a serving one, the
// leader first; where none serves, one that answers all the same, which has what
// it has.
func (c *cluster) sourceFor(ctx context.Context, op string, step fettle.Step) (view, error) {
	avoid, err := subjectOf(op, step, "avoid")
	if err != nil {
		return view{}, err
	}
	r := c.look(ctx)
	var best view
	rank := func(v view) int {
		switch {
		case v.status == nil:
			return 0
		case r.serving(v) != fettle.Yes:
			return 1
		case v.id != r.leader:
			return 2
		}
		return 3
	}
	for _, v := range r.views {
		if v.subject == avoid || !v.listed || v.learner || v.status == nil {
			continue
		}
		if best.status == nil || rank(v) > rank(best) || rank(v) == rank(best) && v.status.RaftAppliedIndex > best.status.RaftAppliedIndex {
			best = v
		}
	}
	if best.status == nil {
		return view{}, fettle.Refuse(op, step.Target, "a member that answers", "no member answers that a snapshot could be taken from")
	}
	return best, nil
}

// Preview implements fettle.Action.
func (a snapshot) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	in, err := a.anyLocal(opSnapshot, step.Target)
	if err != nil {
		return fettle.Preview{}, err
	}
	from, err := a.sourceFor(ctx, opSnapshot, step)
	if err != nil {
		return fettle.Preview{}, err
	}
	return would("save a snapshot of %s (%d bytes, revision %d) into %s", from.name, from.status.DbSize, from.status.Header.GetRevision(), in.config.SnapshotDir), nil
}

// pathFor is where a key's snapshot is.
func (in *instance) pathFor(key string) string {
	return path.Join(in.config.SnapshotDir, fileName(in.cluster.system)+"-"+fileName(key)+".db")
}

// Apply implements fettle.Action.
func (a snapshot) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	in, err := a.anyLocal(opSnapshot, d.Step.Target)
	if err != nil {
		return fettle.Result{}, err
	}
	from, err := a.sourceFor(ctx, opSnapshot, d.Step)
	if err != nil {
		return fettle.Result{}, err
	}
	s, err := in.save(ctx, from, d)
	if err != nil {
		return fettle.Result{}, classOr(opSnapshot, d.Step.Target, err)
	}
	return s.result(), nil
}

// save writes a snapshot. What is left of one that failed is removed: it is
// nobody's.
func (in *instance) save(ctx context.Context, from view, d fettle.Dispatch) (sidecar, error) {
	files := in.m.Files
	e, err := in.cluster.dial.to(from.clientURL)
	if err != nil {
		return sidecar{}, err
	}
	if err := in.roomFor(ctx, from.status.DbSize); err != nil {
		return sidecar{}, err
	}
	// Everything up to a revision that is read before is in what is sent after.
	revision, err := read(ctx, e)
	if err != nil {
		revision = from.status.Header.GetRevision() // no quorum: what it has
	}
	s := sidecar{Path: in.pathFor(d.Key), Revision: revision, From: from.subject, At: in.m.Clock.Wall(), Incident: d.Incident, Key: d.Key}
	part := s.Path + ".part"
	if err := files.MkdirAll(ctx, in.config.SnapshotDir, 0o700); err != nil {
		return sidecar{}, err
	}
	err = in.receive(ctx, e, part, &s)
	if err == nil {
		err = in.keep(ctx, part, s)
	}
	if err != nil {
		// The first error is the one that tells; a part that stays is seen by Recover.
		_ = files.Remove(context.WithoutCancel(ctx), part)
		return sidecar{}, err
	}
	return s, nil
}

func (in *instance) keep(ctx context.Context, part string, s sidecar) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := in.m.Files.WriteFile(ctx, s.Path+".json", append(text, '\n'), 0o600); err != nil {
		return err
	}
	return in.m.Files.Rename(ctx, part, s.Path)
}

// roomFor refuses a snapshot that would fill the filesystem it goes to.
func (in *instance) roomFor(ctx context.Context, size int64) error {
	mounts, err := in.m.Filesystems.Mounts(ctx)
	if err != nil {
		return nil // not known: the write itself will tell
	}
	usage, err := in.m.Filesystems.Usage(ctx, mountOf(mounts, in.config.SnapshotDir))
	if err != nil {
		return nil
	}
	// A twentieth more: the database grows while it is read.
	if need := size + size/20; usage.Avail < need {
		return fettle.Refuse(opSnapshot, in.cluster.subject, "free some, or set snapshot_dir to a larger filesystem", "%s has %d bytes left, and the snapshot takes %d", in.config.SnapshotDir, usage.Avail, need)
	}
	return nil
}

// receive copies the stream and checks it.
func (in *instance) receive(ctx context.Context, e *endpoint, part string, s *sidecar) error {
	stream, err := e.maintenance.Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		return err
	}
	w, err := in.m.Files.Create(ctx, part, 0o600)
	if err != nil {
		return err
	}
	check := newTrailerCheck()
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			check.write(chunk.GetBlob())
			_, err = w.Write(chunk.GetBlob())
		}
		if err != nil {
			return errors.Join(err, w.Close())
		}
	}
	if s.SHA256, s.Bytes, err = check.sum(); err == nil {
		err = w.Sync()
	}
	return errors.Join(err, w.Close())
}

// trailerCheck checks a snapshot as it goes by: a database, whose length is a
// multiple of 512, and the SHA-256 of it.
type trailerCheck struct {
	hash  hash.Hash
	tail  []byte // the last bytes, not hashed yet: they may be the trailer
	bytes int64
}

func newTrailerCheck() *trailerCheck { return &trailerCheck{hash: sha256.New()} }

func (t *trailerCheck) write(b []byte) {
	t.bytes += int64(len(b))
	t.tail = append(t.tail, b...)
	if n := len(t.tail) - sha256.Size; n > 0 {
		_, _ = t.hash.Write(t.tail[:n]) // a hash takes everything
		t.tail = append(t.tail[:0], t.tail[n:]...)
	}
}

// sum returns the checksum of the database, if it is the one in the trailer.
func (t *trailerCheck) sum() (hex string, bytes int64, err error) {
	got := t.hash.Sum(nil)
	switch {
	case t.bytes%512 != sha256.Size:
		return "", 0, fmt.Errorf("the snapshot ends after %d bytes, which is no whole one", t.bytes)
	case string(got) != string(t.tail):
		return "", 0, fmt.Errorf("the snapshot's checksum is %x, its trailer says %x", got, t.tail)
	}
	return fmt.Sprintf("%x", got), t.bytes, nil
}

// Recover implements fettle.Action. A snapshot has its name when it is whole.
func (a snapshot) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	in, err := a.anyLocal(opSnapshot, d.Step.Target)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, err
	}
	file := in.pathFor(d.Key)
	_, err = in.m.Files.Stat(ctx, file)
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fettle.UnknownFate, fettle.Result{}, classOr(opSnapshot, d.Step.Target, err)
	}
	if d.Undo {
		gone, _ := d.Outputs.Str("path")
		if _, err := in.m.Files.Stat(ctx, gone); errors.Is(err, fs.ErrNotExist) {
			return fettle.Done, noted("%s is removed", gone), nil
		}
		return fettle.NeverWillBe, fettle.Result{}, nil
	}
	if !there {
		// Who wrote the part is gone; without its name it is of no use.
		if err := in.m.Files.Remove(ctx, file+".part"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fettle.UnknownFate, fettle.Result{}, classOr(opSnapshot, d.Step.Target, err)
		}
		return fettle.NeverWillBe, fettle.Result{}, nil
	}
	text, err := in.m.Files.ReadFile(ctx, file+".json", 1<<20)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, classOr(opSnapshot, d.Step.Target, err)
	}
	var s sidecar
	if err := json.Unmarshal(text, &s); err != nil {
		return fettle.UnknownFate, fettle.Result{}, classOr(opSnapshot, d.Step.Target, err)
	}
	return fettle.Done, s.result(), nil
}

// Undo implements fettle.Action: it removes the file that this key made.
func (a snapshot) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	op := "undo " + opSnapshot
	in, err := a.anyLocal(op, d.Step.Target)
	if err != nil {
		return fettle.Result{}, err
	}
	file, _ := d.Outputs.Str("path")
	mine := fileName(a.system) + "-"
	if path.Dir(file) != path.Clean(in.config.SnapshotDir) || !strings.HasPrefix(path.Base(file), mine) || path.Ext(file) != ".db" {
		return fettle.Result{}, fettle.Refuse(op, d.Step.Target, "remove it by hand", "%q is no snapshot that was made here", file)
	}
	for _, f := range []string{file, file + ".json"} {
		if err := in.m.Files.Remove(ctx, f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fettle.Result{}, classOr(op, d.Step.Target, err)
		}
	}
	return noted("%s is removed", file), nil
}
