package etcd

import (
	"context"
	"errors"
	"io"
	"path"
	"sync/atomic"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// damageFault is etcd.damage_wal.
type damageFault struct{ *cluster }

const (
	// damageLength is how many bytes are changed: more than a checksum could be
	// lucky with.
	damageLength = 64
	// damageSkip is the head of a record: length, type and checksum. It stays as it
	// is: where a length is damaged etcd takes the rest of the log for torn, cuts it
	// off and begins to run without it.
	damageSkip = 8 + 24
)

// placeToDamage finds the record nearest to the middle of the used part of a
// segment that is long enough.
func (in *instance) placeToDamage(ctx context.Context, d layout, segment machine.Stat) (int64, error) {
	var fit []int64
	var end int64
	w := walReader{each: func(at, body int64) {
		if body >= damageSkip+damageLength {
			fit = append(fit, at+damageSkip)
		}
		end = at + 8 + body
	}}
	if err := d.segment(ctx, in.m.Files, &w, segment, true, true); err != nil {
		return 0, err
	}
	if len(fit) == 0 {
		return 0, errors.New("no record in it is long enough; write something first")
	}
	best := fit[0]
	for _, at := range fit {
		if max(at-end/2, end/2-at) < max(best-end/2, end/2-best) {
			best = at
		}
	}
	return best, nil
}

// Inject implements fettle.Fault.
func (f damageFault) Inject(ctx context.Context, target fettle.Subject, _ fettle.Facts) (fettle.Injected, error) {
	const op = "etcd.damage_wal"
	in, err := f.here(op, target)
	if err != nil {
		return nil, err
	}
	if err := in.stopService(ctx); err != nil {
		return nil, classOr(op, target, err)
	}
	d := layoutOf(ctx, in.m.Files, in.config.DataDir, in.config.WALDir)
	if len(d.segments) == 0 {
		return nil, fettle.Refuse(op, target, "there is nothing to damage", "its write-ahead log is %s", d.state.State)
	}
	segment := d.segments[len(d.segments)-1]
	file := path.Join(d.wal, segment.Name)
	place, err := in.placeToDamage(ctx, d, segment)
	if err != nil {
		return nil, errors.Join(fettle.Refuse(op, target, "it is started again", "its log: %w", err), in.tryStart(ctx))
	}
	identity := in.data(ctx, false).Member
	dir, err := in.asideFor(ctx, in.stamp())
	if err != nil {
		return nil, classOr(op, target, err)
	}
	if err := in.m.Files.MkdirAll(ctx, dir, 0o700); err != nil {
		return nil, classOr(op, target, err)
	}
	kept := path.Join(dir, segment.Name)
	change := func(at int64, b []byte) {
		for i := range b {
			if p := at + int64(i); p >= place && p < place+damageLength {
				b[i] ^= 0x5a
			}
		}
	}
	if err := replaceFile(ctx, in.m.Files, file, kept, change); err != nil {
		return nil, classOr(op, target, err)
	}
	revert := reverting(func(ctx context.Context) error {
		const op = "revert etcd.damage_wal"
		now, err := in.m.Files.Stat(ctx, file)
		if d := in.data(ctx, true); err != nil || d.State != logDamaged || d.Member != 0 && d.Member != identity {
			return nil // it has been replaced, or mended
		}
		if err := in.stopService(ctx); err != nil {
			return classOr(op, target, err)
		}
		if err := errors.Join(in.m.Files.Rename(ctx, file, kept+".damaged"), in.m.Files.Rename(ctx, kept, file)); err != nil {
			return classOr(op, target, err)
		}
		if err := in.m.Files.Chown(ctx, file, now.UID, now.GID, false); err != nil {
			return classOr(op, target, err)
		}
		return classOr(op, target, in.tryStart(ctx))
	})
	return revert, classOr(op, target, in.tryStart(ctx))
}

// replaceFile moves a file to kept and puts a changed copy in its place, of the
// same owner and mode. change is given each part that is copied, with its place.
func replaceFile(ctx context.Context, files machine.Files, file, kept string, change func(at int64, b []byte)) error {
	was, err := files.Stat(ctx, file)
	if err != nil {
		return err
	}
	r, err := files.Open(ctx, file)
	if err != nil {
		return err
	}
	defer r.Close()
	fresh := file + ".fettle"
	w, err := files.Create(ctx, fresh, was.Mode.Perm())
	if err != nil {
		return err
	}
	buffer := make([]byte, 1<<20)
	for at := int64(0); ; {
		n, err := io.ReadFull(inContext{ctx, r}, buffer)
		change(at, buffer[:n])
		if _, werr := w.Write(buffer[:n]); werr != nil {
			return errors.Join(werr, w.Close())
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return errors.Join(err, w.Close())
		}
	}
	if err := errors.Join(w.Sync(), w.Close()); err != nil {
		return err
	}
	if err := files.Chown(ctx, fresh, was.UID, was.GID, false); err != nil {
		return err
	}
	if err := files.Rename(ctx, file, kept); err != nil {
		return err
	}
	return files.Rename(ctx, fresh, file)
}

// flipFault is etcd.flip.
type flipFault struct{ *cluster }

const (
	flipLength = 4
	flipLeast  = 16 // bytes of a value: others would be found by chance
)

// Inject implements fettle.Fault.
func (f flipFault) Inject(ctx context.Context, target fettle.Subject, params fettle.Facts) (fettle.Injected, error) {
	const op = "etcd.flip"
	in, err := f.here(op, target)
	if err != nil {
		return nil, err
	}
	key, _ := params.Str("key")
	if key == "" {
		return nil, fettle.Refuse(op, target, "give the key whose value is changed", "parameter key is empty")
	}
	if err := in.stopService(ctx); err != nil {
		return nil, classOr(op, target, err)
	}
	identity := in.data(ctx, false).Member
	if err := in.flip(ctx, key); err != nil {
		return nil, errors.Join(classOr(op, target, err), in.tryStart(ctx))
	}
	var reverted atomic.Bool // inverted once more it would be wrong again
	revert := reverting(func(ctx context.Context) error {
		const op = "revert etcd.flip"
		if reverted.Load() || in.data(ctx, false).Member != identity {
			return nil // or it has been replaced
		}
		if err := in.stopService(ctx); err != nil {
			return classOr(op, target, err)
		}
		err := in.flip(ctx, key)
		reverted.Store(err == nil)
		return classOr(op, target, errors.Join(err, in.tryStart(ctx)))
	})
	return revert, classOr(op, target, in.tryStart(ctx))
}

// flip inverts the first bytes of a key's newest value in the database of a server
// that does not run.
func (in *instance) flip(ctx context.Context, key string) error {
	file := path.Join(in.memberDir(), "snap", "db")
	at, err := in.valueAt(ctx, file, key)
	if err != nil {
		return err
	}
	dir, err := in.asideFor(ctx, in.stamp())
	if err != nil {
		return err
	}
	if err := in.m.Files.MkdirAll(ctx, dir, 0o700); err != nil {
		return err
	}
	return replaceFile(ctx, in.m.Files, file, path.Join(dir, "db"), func(from int64, b []byte) {
		for i := range b {
			if p := from + int64(i); p >= at.at && p < at.at+flipLength {
				b[i] ^= 0xff
			}
		}
	})
}

func (in *instance) valueAt(ctx context.Context, file, key string) (span, error) {
	s, err := in.m.Files.Stat(ctx, file)
	if err != nil {
		return span{}, err
	}
	r, err := in.m.Files.Open(ctx, file)
	if err != nil {
		return span{}, err
	}
	defer r.Close()
	from, ok := r.(io.ReaderAt)
	if !ok {
		return span{}, &fettle.Error{Op: "etcd.flip", Subject: in.member, Class: fettle.Unsupported, Err: fettle.ErrNotSupported, Hint: "this machine's files cannot be read at any place"}
	}
	at, err := findValue(atInContext{ctx, from}, s.Bytes, key)
	if err == nil && at.length < flipLeast {
		err = fettle.Refuse("etcd.flip", in.member, "take a key with a longer value", "the value of %q has %d bytes, fewer than %d", key, at.length, flipLeast)
	}
	return at, err
}
