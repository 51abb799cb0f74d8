package filesystem

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

func spec(name string) fettle.ProbeSpec {
	for _, p := range probes() {
		if p.Name == name {
			return p
		}
	}
	return fettle.ProbeSpec{}
}

// usage reads size, state and errors of the local filesystems.
type usage struct{ *instance }

func (p usage) Spec() fettle.ProbeSpec { return spec(usageProbe) }

// answerWithin bounds what one filesystem may take. A healthy one answers in
// microseconds, one whose disk has to spin up within a second or two; one that
// takes longer hangs, and makes only itself unknown.
const answerWithin = 2 * time.Second

// Observe implements fettle.Probe.
func (p usage) Observe(ctx context.Context, subjects ...fettle.Subject) []fettle.Observation {
	asked := p.m.Clock.Now()
	mounts, err := p.mounts(ctx)
	if err != nil {
		return unseen(subjects, asked, err)
	}
	mounts, foreign := p.named(mounts, subjects, asked)
	return append(each(ctx, mounts, answerWithin, p.observe), foreign...)
}

// unseen says of what was asked for that it could not be observed.
func unseen(subjects []fettle.Subject, asked time.Time, err error) []fettle.Observation {
	var out []fettle.Observation
	for _, s := range subjects {
		out = append(out, fettle.Observation{Subject: s, Asked: asked, Reason: reason(err), Detail: err.Error()})
	}
	return out
}

// named picks the mounts that were asked for, all when none was named, and says
// of the other subjects why there is nothing to look at.
func (i *instance) named(mounts []machine.Mount, subjects []fettle.Subject, asked time.Time) ([]machine.Mount, []fettle.Observation) {
	if len(subjects) == 0 {
		return mounts, nil
	}
	var here []machine.Mount
	var rest []fettle.Observation
	for _, s := range subjects {
		n := slices.IndexFunc(mounts, func(mt machine.Mount) bool { return i.subject(mt.Point) == s })
		switch {
		case n >= 0:
			here = append(here, mounts[n])
		case s.Kind() != fettle.KindFilesystem || s.Root() != i.m.Identity.Host.Name():
			rest = append(rest, fettle.Observation{Subject: s, Asked: asked, Reason: fettle.NotSupported, Detail: "not a filesystem of this machine"})
		default:
			rest = append(rest, fettle.Observation{Subject: s, Asked: asked, Gone: true})
		}
	}
	return here, rest
}

// each looks at all filesystems at once, at each for a bounded time, so that one
// that hangs does not keep the others from being seen.
func each(ctx context.Context, mounts []machine.Mount, within time.Duration, look func(context.Context, machine.Mount) fettle.Observation) []fettle.Observation {
	out := make([]fettle.Observation, len(mounts))
	var all sync.WaitGroup
	for n, mt := range mounts {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, within)
			defer cancel()
			out[n] = look(ctx, mt)
		})
	}
	all.Wait()
	return out
}

func (i *instance) observe(ctx context.Context, mt machine.Mount) fettle.Observation {
	s := i.subject(mt.Point)
	o := fettle.Observation{Subject: s, Asked: i.m.Clock.Now(), Edges: []fettle.Edge{{From: s, Rel: fettle.RunsOn, To: i.m.Identity.Host}}}
	u, err := i.m.Filesystems.Usage(ctx, mt.Point)
	if err != nil && !errors.Is(err, syscall.EIO) {
		o.Reason, o.Detail = reason(err), err.Error()
		return o
	}
	// The options of the mount say what somebody wanted of this place (a
	// read-only bind mount); those of the filesystem say what became of it.
	ro := slices.Contains(mt.SuperOptions, "ro") || slices.Contains(mt.SuperOptions, "emergency_ro")
	o.Facts = fettle.Facts{
		"type": mt.Type, "source": mt.Source, "errors_count": mt.Errors,
		"read_only":   ro && !i.wantedReadOnly(ctx, mt.Point),
		"write_error": i.writeError(ctx, mt, err, ro, usedPermille(u) >= 990 || inodesPermille(u) >= 990),
	}
	if err == nil { // what it does not answer is not zero but unknown
		o.Facts["size_bytes"], o.Facts["avail_bytes"], o.Facts["free_bytes"] = u.Size, u.Avail, u.Free
		o.Facts["inodes"], o.Facts["inodes_free"] = u.Inodes, u.InodesFree
		o.Facts["used_permille"], o.Facts["inodes_used_permille"] = usedPermille(u), inodesPermille(u)
	}
	if err := ctx.Err(); err != nil {
		o.Facts, o.Reason, o.Detail = nil, reason(err), "it gave no answer to the end"
	}
	return o
}

// usedPermille counts as df does: what ordinary users have used of what they
// can use, rounded up so that a full one never shows as less.
func usedPermille(u machine.Usage) int64 {
	used := u.Size - u.Free
	all := used + u.Avail
	if used < 0 || u.Avail < 0 || all <= 0 {
		return 0
	}
	if all > 1<<53 { // 8 PiB: count in KiB, so that a thousandfold still fits
		used, all = used>>10, all>>10
	}
	return (used*1000 + all - 1) / all
}

// inodesPermille is 0 where there is no limit.
func inodesPermille(u machine.Usage) int64 {
	if u.Inodes <= 0 || u.Inodes > 1<<53 {
		return 0
	}
	return (u.Inodes - u.InodesFree) * 1000 / u.Inodes
}

// writeError tries a write where something hints at trouble, so that looking at
// a healthy filesystem writes nothing.
func (i *instance) writeError(ctx context.Context, mt machine.Mount, statErr error, ro, nearlyFull bool) string {
	switch {
	case statErr != nil, slices.Contains(mt.SuperOptions, "shutdown"): // the latter ext4's, since Linux 6.14
		return "EIO"
	case ro:
		return "EROFS"
	case !nearlyFull && mt.Errors <= 0 && mt.Type != "xfs":
		return ""
	case mt.Type == "xfs" && !nearlyFull && !i.shutDown(ctx, mt):
		return ""
	}
	return errnoName(i.m.Filesystems.CheckWrite(ctx, mt.Point))
}

// shutDown reports whether reading the root of a filesystem fails, which is all
// that a forced shutdown of xfs shows.
func (i *instance) shutDown(ctx context.Context, mt machine.Mount) bool {
	_, err := i.m.Files.Stat(ctx, mt.Point)
	return errors.Is(err, syscall.EIO)
}

func errnoName(err error) string {
	for _, n := range []struct {
		errno syscall.Errno
		name  string
	}{
		{syscall.ENOSPC, "ENOSPC"}, {syscall.EROFS, "EROFS"}, {syscall.EIO, "EIO"}, {syscall.EDQUOT, "EDQUOT"}, {syscall.EUCLEAN, "EUCLEAN"},
	} {
		if errors.Is(err, n.errno) {
			return n.name
		}
	}
	switch {
	case err == nil:
		return ""
	case errors.Is(err, fs.ErrPermission):
		return "" // not allowed to try: no fact about the filesystem
	}
	return "other"
}

// wantedReadOnly reports whether /etc/fstab mounts it read-only.
func (i *instance) wantedReadOnly(ctx context.Context, point string) bool {
	data, err := i.m.Files.ReadFile(ctx, "/etc/fstab", 1<<20)
	if err != nil {
		return false
	}
	return fstabReadOnly(string(data), point)
}

// fstabReadOnly parses fstab(5): six fields a line, of which the last two may be
// missing, with octal escapes for what would divide them. Of ro and rw the last
// counts, as for mount(8).
func fstabReadOnly(fstab, point string) bool {
	for line := range strings.Lines(fstab) {
		f := strings.Fields(line)
		if len(f) < 4 || strings.HasPrefix(f[0], "#") || path.Clean(fstabText(f[1])) != point {
			continue
		}
		ro := false
		for option := range strings.SplitSeq(f[3], ",") {
			ro = option == "ro" || ro && option != "rw"
		}
		return ro
	}
	return false
}

// fstabText undoes the escapes of fstab(5): space, tab, line feed, backslash and
// the number sign.
func fstabText(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#").Replace(s)
}

func reason(err error) fettle.Reason {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fettle.PermissionDenied
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, machine.ErrHung):
		return fettle.TimedOut
	case errors.Is(err, fettle.ErrNotSupported):
		return fettle.NotSupported
	}
	return fettle.Failed
}

// mountWatcher is told of mounts and unmounts.
type mountWatcher struct{ *instance }

func (w mountWatcher) Spec() fettle.ProbeSpec { return spec(usageProbe) }

// Watch implements fettle.Watcher.
func (w mountWatcher) Watch(ctx context.Context, emit func(fettle.Observation)) error {
	before := map[fettle.Subject]bool{}
	return w.m.Filesystems.WatchMounts(ctx, func(all []machine.Mount) {
		now := map[fettle.Subject]bool{}
		for _, o := range each(ctx, w.choose(all), answerWithin, w.observe) {
			now[o.Subject] = true
			if ctx.Err() == nil {
				emit(o)
			}
		}
		for s := range before {
			if !now[s] {
				emit(fettle.Observation{Subject: s, Asked: w.m.Clock.Now(), Gone: true})
			}
		}
		before = now
	})
}
