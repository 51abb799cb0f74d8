package filesystem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// vacuumJournal lets go the oldest archived files of the system journal, down
// to no less than the journal's own limit.
type vacuumJournal struct{ *instance }

// job is what a step asks for, checked.
type job struct {
	mount machine.Mount
	keep  int64
}

func (a vacuumJournal) job(ctx context.Context, step fettle.Step) (job, error) {
	mt, err := a.mountOf(ctx, step.Target)
	if err != nil {
		return job{}, fail(step.Action, step.Target, err)
	}
	keep, ok := step.Params.Int("keep_bytes")
	if !ok || keep <= 0 {
		return job{}, fettle.Refuse(step.Action, step.Target, "give keep_bytes", "how much of the journal stays was not said")
	}
	return job{mt, keep}, nil
}

// permitted is job, and refuses to keep less than the journal may use by its own
// configuration: only what is past that is disposable (S5), whatever a runbook
// says.
func (a vacuumJournal) permitted(ctx context.Context, step fettle.Step) (job, error) {
	j, err := a.job(ctx, step)
	if err != nil {
		return job{}, err
	}
	u, err := a.m.Filesystems.Usage(ctx, j.mount.Point)
	if err != nil {
		return job{}, fail(step.Action, step.Target, err)
	}
	limit, err := a.journalLimit(ctx, u.Size)
	if err != nil {
		return job{}, fettle.Refuse(step.Action, step.Target, "look into journald.conf", "what the journal may use is not known: %w", err)
	}
	if j.keep < limit {
		return job{}, fettle.Refuse(step.Action, step.Target, "keep its limit, or lower SystemMaxUse in journald.conf",
			"the journal may use %d bytes by its own configuration; %d is less", limit, j.keep)
	}
	return j, nil
}

func (a vacuumJournal) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	j, err := a.permitted(ctx, step)
	if err != nil {
		return fettle.Preview{}, err
	}
	files, err := a.journalFiles(ctx, j.mount.Device)
	if err != nil {
		return fettle.Preview{}, fail(step.Action, step.Target, err)
	}
	return fettle.Preview{Would: []string{fmt.Sprintf("rotate the journal and let go its oldest archived files until %d of %d bytes are left", j.keep, total(files))}}, nil
}

func (a vacuumJournal) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	op, s := d.Step.Action, d.Step.Target
	j, err := a.permitted(ctx, d.Step)
	if err != nil {
		return fettle.Result{}, err
	}
	// Rotating archives what is being written, for only archived files can go.
	// On a full disk it may fail, and what was archived before can still go.
	rotated := a.journalctl(ctx, "--rotate")
	if errors.Is(rotated, fs.ErrPermission) || ctx.Err() != nil {
		return fettle.Result{}, fail(op, s, rotated)
	}
	before, err := a.journalFiles(ctx, j.mount.Device)
	if err != nil {
		return fettle.Result{}, fail(op, s, err)
	}
	failed := a.vacuum(ctx, j)
	after, err := a.journalFiles(ctx, j.mount.Device)
	if err != nil {
		return fettle.Result{}, fail(op, s, errors.Join(failed, err))
	}
	r := result(missing(before, after), "journal files")
	if rotated != nil {
		r.Notes = append(r.Notes, "what was being written could not be archived first: "+rotated.Error())
	}
	if failed != nil {
		return r, fail(op, s, failed)
	}
	return r, nil
}

// vacuum asks for each folder of the journal that has files on the device.
func (a vacuumJournal) vacuum(ctx context.Context, j job) error {
	for _, dir := range a.config.JournalDirs {
		files, err := a.under(ctx, dir, j.mount.Device, 1, isJournal)
		if err != nil {
			return err
		}
		if len(files) == 0 {
			continue
		}
		if err := a.journalctl(ctx, "--directory="+dir, "--vacuum-size="+strconv.FormatInt(j.keep, 10)); err != nil {
			return err
		}
	}
	return nil
}

func (a vacuumJournal) journalctl(ctx context.Context, args ...string) error {
	out, err := a.m.Commands.Run(ctx, machine.Command{Path: "journalctl", Args: args})
	if err != nil {
		return err
	}
	if out.Exit == 0 {
		return nil
	}
	said := bytes.TrimSpace(out.Stderr)
	for _, words := range []string{"ermission denied", "ccess denied", "uthentication required"} {
		if bytes.Contains(said, []byte(words)) {
			return fmt.Errorf("journalctl %v: %s: %w", args, said, fs.ErrPermission)
		}
	}
	return fmt.Errorf("journalctl %v: exit %d: %s", args, out.Exit, said)
}

func (a vacuumJournal) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	j, err := a.job(ctx, d.Step)
	if err != nil {
		return lost(d.Step.Action, d.Step.Target, err)
	}
	files, err := a.journalFiles(ctx, j.mount.Device)
	if err != nil {
		return lost(d.Step.Action, d.Step.Target, err)
	}
	return leftToDo(total(files) > j.keep)
}

func (a vacuumJournal) Undo(context.Context, fettle.Dispatch) (fettle.Result, error) {
	return fettle.Result{}, fettle.ErrNotSupported
}

// missing returns the files of before whose names are not in after. Archived
// files have names that do not come back, whereas inodes are used again.
func missing(before, after []file) []file {
	var out []file
	for _, f := range before {
		if !slices.ContainsFunc(after, func(g file) bool { return g.path == f.path }) {
			out = append(out, f)
		}
	}
	return out
}
