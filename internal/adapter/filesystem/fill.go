package filesystem

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// fullFrom is how full a filesystem must be before it is looked at what fills
// it, when nobody asked for it by name.
const fullFrom = 900

// The walk for what fills a filesystem is bounded, so that a filesystem of a
// hundred million files costs no more than one of fifty thousand.
const (
	walkMost = 50_000
	showMost = 5
)

// fill finds what fills a filesystem.
type fill struct{ *instance }

func (p fill) Spec() fettle.ProbeSpec { return spec(fillProbe) }

// Observe implements fettle.Probe.
func (p fill) Observe(ctx context.Context, subjects ...fettle.Subject) []fettle.Observation {
	mounts, err := p.mounts(ctx)
	if err != nil {
		return nil
	}
	var out []fettle.Observation
	for _, mt := range mounts {
		s := p.subject(mt.Point)
		asked := p.m.Clock.Now()
		if len(subjects) > 0 && !slices.Contains(subjects, s) {
			continue
		}
		if len(subjects) == 0 {
			u, err := p.m.Filesystems.Usage(ctx, mt.Point)
			if err != nil || usedPermille(u) < fullFrom {
				continue
			}
		}
		facts, err := p.facts(ctx, mt)
		o := fettle.Observation{Subject: s, Asked: asked, Facts: facts}
		if err != nil {
			o.Facts, o.Reason, o.Detail = nil, reason(err), err.Error()
		}
		out = append(out, o)
	}
	return out
}

func (i *instance) facts(ctx context.Context, mt machine.Mount) (fettle.Facts, error) {
	u, err := i.m.Filesystems.Usage(ctx, mt.Point)
	if err != nil {
		return nil, err
	}
	f := fettle.Facts{
		"journal_bytes":       total(i.journalFiles(ctx, mt.Device)),
		"journal_limit_bytes": i.journalLimit(ctx, u.Size),
		"package_cache_bytes": total(i.packages(ctx, mt.Device)),
		"rotated_log_bytes":   total(i.rotatedLogs(ctx, mt.Device)),
		"deleted_open_bytes":  int64(0), "deleted_holder": "", "deleted_holder_pid": int64(0), "deleted_path": "",
		"biggest": i.biggest(ctx, mt),
	}
	open, err := i.m.Processes.DeletedOpen(ctx, mt.Device)
	if err != nil && len(open) == 0 {
		return f, nil // not permitted to look: the other facts stand
	}
	describeHolder(f, open)
	return f, nil
}

// describeHolder sums deleted files, each inode once, and names who holds most.
func describeHolder(f fettle.Facts, open []machine.OpenFile) {
	seen := map[uint64]bool{}
	held := map[int]int64{}
	sum := int64(0)
	var largest machine.OpenFile
	for _, o := range open {
		if seen[o.Inode] {
			continue
		}
		seen[o.Inode] = true
		sum += o.Bytes
		held[o.Process.PID] += o.Bytes
		if o.Bytes > largest.Bytes {
			largest = o
		}
	}
	f["deleted_open_bytes"] = sum
	if sum == 0 {
		return
	}
	holder := largest.Process.UnitName
	if holder == "" {
		holder = largest.Process.Command
	}
	f["deleted_holder"], f["deleted_holder_pid"], f["deleted_path"] = holder, int64(largest.Process.PID), largest.Path
}

// file is one file with its path.
type file struct {
	path string
	stat machine.Stat
}

func total(files []file) int64 {
	sum := int64(0)
	for _, f := range files {
		sum += f.stat.Allocated
	}
	return sum
}

// under lists the files below a folder, on one device, at most depth folders
// deep, that keep accepts; sorted by path.
func (i *instance) under(ctx context.Context, dir string, device uint64, depth int, keep func(string) bool) []file {
	entries, err := i.m.Files.ReadDir(ctx, dir)
	if err != nil {
		return nil
	}
	var out []file
	for _, e := range entries {
		p := path.Join(dir, e.Name)
		switch {
		case e.Device != device:
		case e.Mode.IsDir() && depth > 0:
			out = append(out, i.under(ctx, p, device, depth-1, keep)...)
		case e.Mode.IsRegular() && keep(e.Name):
			out = append(out, file{p, e})
		}
	}
	return out
}

func (i *instance) journalFiles(ctx context.Context, device uint64) []file {
	var out []file
	for _, dir := range i.config.JournalDirs {
		out = append(out, i.under(ctx, dir, device, 1, func(n string) bool {
			return strings.HasSuffix(n, ".journal") || strings.HasSuffix(n, ".journal~")
		})...)
	}
	return out
}

func (i *instance) packages(ctx context.Context, device uint64) []file {
	var out []file
	for _, dir := range i.config.PackageCaches {
		out = append(out, i.under(ctx, dir, device, 0, func(n string) bool { return strings.HasSuffix(n, ".deb") })...)
	}
	return out
}

// rotatedLogs lists logs that were rotated and not compressed: NAME.1, NAME.2 …
func (i *instance) rotatedLogs(ctx context.Context, device uint64) []file {
	var out []file
	for _, dir := range i.config.LogDirs {
		out = append(out, i.under(ctx, dir, device, 2, rotated)...)
	}
	return out
}

func rotated(name string) bool {
	ext := path.Ext(name)
	if len(ext) < 2 || strings.TrimSuffix(name, ext) == "" {
		return false
	}
	n, err := strconv.Atoi(ext[1:])
	return err == nil && n >= 1 && n < 1000
}

// journalLimit is SystemMaxUse of journald.conf(5): as configured, else a tenth
// of the filesystem, at most 4 GiB.
func (i *instance) journalLimit(ctx context.Context, size int64) int64 {
	limit := min(size/10, 4<<30)
	for _, p := range []string{"/etc/systemd/journald.conf"} {
		data, err := i.m.Files.ReadFile(ctx, p, 1<<20)
		if err != nil {
			continue
		}
		if n, ok := maxUse(string(data)); ok {
			limit = n
		}
	}
	return limit
}

// maxUse parses SystemMaxUse=, a size in bytes with an optional K, M, G or T.
func maxUse(conf string) (int64, bool) {
	var found int64
	ok := false
	for line := range strings.Lines(conf) {
		v, is := strings.CutPrefix(strings.TrimSpace(line), "SystemMaxUse=")
		if !is || v == "" {
			continue
		}
		unit := int64(1)
		if k := strings.IndexByte("KMGT", v[len(v)-1]); k >= 0 {
			unit <<= 10 * (k + 1)
			v = v[:len(v)-1]
		}
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/unit {
			continue
		}
		found, ok = n*unit, true
	}
	return found, ok
}

// biggest lists the largest files that are of no kind that is known to be
// disposable. It only names them.
func (i *instance) biggest(ctx context.Context, mt machine.Mount) []string {
	known := map[string]bool{}
	for _, list := range [][]file{i.journalFiles(ctx, mt.Device), i.packages(ctx, mt.Device), i.rotatedLogs(ctx, mt.Device)} {
		for _, f := range list {
			known[f.path] = true
		}
	}
	var top []file
	left := walkMost
	queue := []string{mt.Point}
	for len(queue) > 0 && left > 0 && ctx.Err() == nil {
		dir := queue[0]
		queue = queue[1:]
		entries, err := i.m.Files.ReadDir(ctx, dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			left--
			p := path.Join(dir, e.Name)
			if e.Device != mt.Device || known[p] {
				continue
			}
			if e.Mode.IsDir() {
				queue = append(queue, p)
			} else if e.Mode.IsRegular() {
				top = append(top, file{p, e})
				slices.SortFunc(top, func(a, b file) int { return int(min(max(b.stat.Allocated-a.stat.Allocated, -1), 1)) })
				top = top[:min(len(top), showMost)]
			}
		}
	}
	out := []string{}
	for _, f := range top {
		out = append(out, fmt.Sprintf("%d %s", f.stat.Allocated, f.path))
	}
	return out
}
