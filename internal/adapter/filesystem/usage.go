package filesystem

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"

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

// Observe implements fettle.Probe.
func (p usage) Observe(ctx context.Context, subjects ...fettle.Subject) []fettle.Observation {
	asked := p.m.Clock.Now()
	mounts, err := p.mounts(ctx)
	if err != nil {
		var out []fettle.Observation
		for _, s := range subjects {
			out = append(out, fettle.Observation{Subject: s, Asked: asked, Reason: reason(err), Detail: err.Error()})
		}
		return out
	}
	var out []fettle.Observation
	found := map[fettle.Subject]bool{}
	for _, mt := range mounts {
		s := p.subject(mt.Point)
		if len(subjects) > 0 && !slices.Contains(subjects, s) {
			continue
		}
		found[s] = true
		out = append(out, p.observe(ctx, mt))
	}
	for _, s := range subjects {
		if !found[s] {
			out = append(out, fettle.Observation{Subject: s, Asked: asked, Gone: true})
		}
	}
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
	used := usedPermille(u)
	inodes := int64(0)
	if u.Inodes > 0 {
		inodes = (u.Inodes - u.InodesFree) * 1000 / u.Inodes
	}
	// The options of the mount say what somebody wanted of this place (a
	// read-only bind mount); those of the filesystem say what became of it.
	ro := slices.Contains(mt.SuperOptions, "ro") || slices.Contains(mt.SuperOptions, "emergency_ro")
	o.Facts = fettle.Facts{
		"type": mt.Type, "source": mt.Source,
		"size_bytes": u.Size, "avail_bytes": u.Avail, "free_bytes": u.Free, "used_permille": used,
		"inodes": u.Inodes, "inodes_free": u.InodesFree, "inodes_used_permille": inodes,
		"read_only":    ro && !i.wantedReadOnly(ctx, mt.Point),
		"errors_count": mt.Errors,
		"write_error":  i.writeError(ctx, mt, err, ro, used >= 990 || inodes >= 990),
	}
	return o
}

// usedPermille counts as df does: what ordinary users have used of what they
// can use, rounded up so that a full one never shows as less.
func usedPermille(u machine.Usage) int64 {
	used := u.Size - u.Free
	if used+u.Avail <= 0 {
		return 0
	}
	return (used*1000 + used + u.Avail - 1) / (used + u.Avail)
}

// writeError tries a write where something hints at trouble, so that looking at
// a healthy filesystem writes nothing.
func (i *instance) writeError(ctx context.Context, mt machine.Mount, statErr error, ro, nearlyFull bool) string {
	switch {
	case statErr != nil:
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

// fstabReadOnly parses fstab(5): six fields a line, octal escapes in the second.
func fstabReadOnly(fstab, point string) bool {
	for line := range strings.Lines(fstab) {
		f := strings.Fields(line)
		if len(f) < 4 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if strings.ReplaceAll(f[1], `\040`, " ") == point {
			return slices.Contains(strings.Split(f[3], ","), "ro")
		}
	}
	return false
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
		for _, mt := range w.choose(all) {
			s := w.subject(mt.Point)
			now[s] = true
			emit(w.observe(ctx, mt))
		}
		for s := range before {
			if !now[s] {
				emit(fettle.Observation{Subject: s, Asked: w.m.Clock.Now(), Gone: true})
			}
		}
		before = now
	})
}
