package armed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"fettle/internal/machine"
)

const (
	// putBackWithin bounds one try to put back: a large ruleset takes a second.
	putBackWithin = 30 * time.Second
	// retry is the pause between two tries.
	retry = 2 * time.Second
)

// Revert is what the unit of an armed change runs: it waits until the change is
// confirmed or cancelled, or its time is over, and then puts back and tries until
// that succeeds. ready is called once the record has been read. It returns nil
// when nothing is left to do, also for a change that is not there (any more).
// Ending it at any point and starting it anew changes nothing in the end.
func (a *Arms) Revert(ctx context.Context, id string, ready func() error) error {
	r, err := a.record(ctx, id)
	if errors.Is(err, fs.ErrNotExist) {
		// Power was cut before there was anything to put back, thus before the touch.
		return errors.Join(a.disable(ctx, id), ready())
	}
	if err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	d, err := a.await(ctx, r)
	if err != nil {
		return err
	}
	if d == Reverting {
		if err := a.putBack(ctx, r); err != nil {
			return err
		}
	}
	return a.disable(ctx, id)
}

// Now decides at once to take a change back, as a person may; the unit does it.
func (a *Arms) Now(ctx context.Context, id string) error {
	if _, err := a.record(ctx, id); err != nil {
		return err
	}
	holds, err := a.decide(ctx, id, Reverting, "")
	if err == nil && holds != Reverting {
		err = fmt.Errorf("armed change %s: it was %s already", id, holds)
	}
	return err
}

// await waits for a decision and makes it when it is due.
func (a *Arms) await(ctx context.Context, r record) (Decision, error) {
	for {
		d, err := a.decision(ctx, r.ID)
		if err != nil || d.Decision != Open {
			return d.Decision, err
		}
		now, err := a.uptime(ctx)
		if err != nil {
			return Open, err
		}
		touching, err := a.there(ctx, r.ID, "touching")
		if err != nil {
			return Open, err
		}
		switch other := r.BootID != a.m.Identity.BootID; {
		case other && !touching:
			return a.decide(ctx, r.ID, Cancelled, "the machine was booted before anything was touched")
		case other:
			return a.decide(ctx, r.ID, Reverting, "")
		case now >= r.Deadline:
			return a.decide(ctx, r.ID, Reverting, "")
		}
		if err := a.pause(ctx, min(a.o.Poll, r.Deadline-now)); err != nil {
			return Open, err
		}
	}
}

// putBack puts back until it succeeds, and once more behind a process that was
// still touching.
func (a *Arms) putBack(ctx context.Context, r record) error {
	if done, err := a.there(ctx, r.ID, "done"); err != nil || done {
		return err
	}
	for {
		// Asked before: who ends meanwhile may have touched last.
		busy, err := a.busy(ctx, r)
		if err != nil {
			return err
		}
		if err := a.run(ctx, r); err != nil {
			if ctx.Err() != nil {
				return err
			}
			// For whoever looks. A disk that does not take it must not keep the next
			// try from being made.
			_ = a.write(ctx, r.ID, "trouble", err.Error())
			if err := a.pause(ctx, retry); err != nil {
				return err
			}
			continue
		}
		if !busy {
			return a.done(ctx, r.ID)
		}
		if err := a.pause(ctx, a.o.Poll); err != nil {
			return err
		}
	}
}

// busy reports whether the process that touches may still do so.
func (a *Arms) busy(ctx context.Context, r record) (bool, error) {
	over, err := a.there(ctx, r.ID, "ended")
	if err != nil || over || r.BootID != a.m.Identity.BootID {
		return false, err
	}
	list, err := a.m.Processes.List(ctx)
	if err != nil {
		return false, fmt.Errorf("armed change %s: whether it is still being made: %w", r.ID, err)
	}
	for _, p := range list {
		if p.PID == r.PID && (r.Ticks == 0 || p.StartTicks == r.Ticks) && p.State != "Z" {
			return true, nil
		}
	}
	return false, nil
}

// run puts back once.
func (a *Arms) run(ctx context.Context, r record) error {
	ctx, stop := context.WithTimeout(ctx, putBackWithin)
	defer stop()
	out, err := a.m.Commands.Run(ctx, machine.Command{Path: r.PutBack.Program, Args: r.PutBack.Args, Stdin: []byte(r.PutBack.Stdin)})
	if err == nil && out.Exit != 0 {
		err = fmt.Errorf("exit status %d: %.500s", out.Exit, out.Stderr)
	}
	if err != nil {
		return fmt.Errorf("armed change %s: put back: %w", r.ID, err)
	}
	return nil
}

func (a *Arms) there(ctx context.Context, id, name string) (bool, error) {
	_, err := a.m.Files.Stat(ctx, a.file(id, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (a *Arms) pause(ctx context.Context, d time.Duration) error {
	due, stop := a.m.Clock.After(d)
	defer stop()
	select {
	case <-due:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
