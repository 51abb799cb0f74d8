package filesystem

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

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

// fillWithin bounds the look at one filesystem, below the probe's own timeout.
const fillWithin = 8 * time.Second

// fill finds what fills a filesystem.
type fill struct{ *instance }

func (p fill) Spec() fettle.ProbeSpec { return spec(fillProbe) }

// Observe implements fettle.Probe.
func (p fill) Observe(ctx context.Context, subjects ...fettle.Subject) []fettle.Observation {
	asked := p.m.Clock.Now()
	mounts, err := p.mounts(ctx)
	if err != nil {
		return unseen(subjects, asked, err)
	}
	mounts, foreign := p.named(mounts, subjects, asked)
	seen := each(ctx, mounts, fillWithin, func(ctx context.Context, mt machine.Mount) fettle.Observation {
		return p.look(ctx, mt, len(subjects) > 0)
	})
	// Of what is not full, and was not asked for, it says nothing.
	seen = slices.DeleteFunc(seen, func(o fettle.Observation) bool { return o.Subject == "" })
	return append(seen, foreign...)
}

// look looks at one filesystem; the zero observation says that it need not be
// looked at.
func (p fill) look(ctx context.Context, mt machine.Mount, named bool) fettle.Observation {
	o := fettle.Observation{Subject: p.subject(mt.Point), Asked: p.m.Clock.Now()}
	short, cancel := context.WithTimeout(ctx, answerWithin)
	u, err := p.m.Filesystems.Usage(short, mt.Point)
	cancel()
	switch {
	case !named && (err != nil || usedPermille(u) < fullFrom && inodesPermille(u) < fullFrom):
		return fettle.Observation{}
	case err != nil:
		o.Reason, o.Detail = reason(err), err.Error()
		return o
	}
	o.Facts = p.facts(ctx, mt, u)
	if err := ctx.Err(); err != nil {
		o.Facts, o.Reason, o.Detail = nil, reason(err), "looking at what fills it took too long"
	}
	return o
}

// facts leaves out what could not be looked at: nothing seen is not nothing
// there.
func (i *instance) facts(ctx context.Context, mt machine.Mount, u machine.Usage) fettle.Facts {
	f := fettle.Facts{"biggest": i.biggest(ctx, mt)}
	for name, list := range map[string]func(context.Context, uint64) ([]file, error){
		"journal_bytes": i.journalFiles, "package_cache_bytes": i.packages, "rotated_log_bytes": i.rotatedLogs,
	} {
		if files, err := list(ctx, mt.Device); err == nil {
			f[name] = total(files)
		}
	}
	if limit, err := i.journalLimit(ctx, u.Size); err == nil {
		f["journal_limit_bytes"] = limit
	}
	// Where some processes could not be looked into, what was found is still
	// true of those that could; that nothing was found is not.
	if open, err := i.m.Processes.DeletedOpen(ctx, mt.Device); err == nil || len(open) > 0 && errors.Is(err, fs.ErrPermission) {
		describeHolder(f, open)
	}
	return f
}

// describeHolder sums deleted files, each inode once, and names the unit, or the
// process that is in none, that holds most of them.
func describeHolder(f fettle.Facts, open []machine.OpenFile) {
	type holder struct {
		unit string
		pid  int // 0 where there is a unit: its processes hold together
	}
	type holding struct {
		bytes   int64
		largest machine.OpenFile
		first   machine.Process
	}
	by := func(p machine.Process) holder {
		if p.UnitName != "" {
			return holder{unit: p.UnitName}
		}
		return holder{pid: p.PID}
	}
	seen := map[uint64]bool{}
	held := map[holder]*holding{}
	var order []holder
	sum := int64(0)
	for _, o := range open {
		if seen[o.Inode] {
			continue
		}
		seen[o.Inode] = true
		h := by(o.Process)
		if held[h] == nil {
			held[h] = &holding{largest: o, first: o.Process}
			order = append(order, h)
		}
		sum += o.Bytes
		held[h].bytes += o.Bytes
		if o.Bytes > held[h].largest.Bytes {
			held[h].largest = o
		}
		if o.Process.PID < held[h].first.PID {
			held[h].first = o.Process // of a daemon with workers the one that started them
		}
	}
	f["deleted_open_bytes"] = sum
	f["deleted_holder"], f["deleted_holder_pid"], f["deleted_path"] = "", int64(0), ""
	if sum == 0 {
		return
	}
	most := slices.MaxFunc(order, func(a, b holder) int { return cmp.Compare(held[a].bytes, held[b].bytes) })
	h := held[most]
	f["deleted_holder"], f["deleted_holder_pid"], f["deleted_path"] = cmp.Or(most.unit, h.first.Command), int64(h.first.PID), h.largest.Path
}

// biggest lists the largest files that are of no kind that is known to be
// disposable. It only names them.
func (i *instance) biggest(ctx context.Context, mt machine.Mount) []string {
	known := map[string]bool{}
	for _, list := range []func(context.Context, uint64) ([]file, error){i.journalFiles, i.packages, i.rotatedLogs} {
		files, err := list(ctx, mt.Device)
		if err != nil {
			continue // then they are named too, which harms nobody
		}
		for _, f := range files {
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
				slices.SortFunc(top, func(a, b file) int {
					return cmp.Or(cmp.Compare(b.stat.Allocated, a.stat.Allocated), cmp.Compare(a.path, b.path))
				})
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
