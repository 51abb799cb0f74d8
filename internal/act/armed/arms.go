package armed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// Within is how long a change may stand unconfirmed. A new session with a server
// takes a second, a change of leader up to four, an agent's longest pause between
// two calls is five; a person who looks on waits no longer than this.
const Within = 45 * time.Second

// UnitDir is where an administrator's units are (systemd.unit(5)): it is durable
// and read at boot.
const UnitDir = "/etc/systemd/system"

// Options are what an Arms works with. Dir and Program must be set.
type Options struct {
	Dir     string        // of the records, on a filesystem that survives a boot
	Program string        // path of this program, which the unit runs
	PID     int           // of this process
	UnitDir string        // "": UnitDir
	Within  time.Duration // 0: Within
	Poll    time.Duration // how often a revert looks for a decision; 0: half a second
}

// Arms arms, confirms and takes back. Its methods may be called concurrently, by
// several processes too.
type Arms struct {
	m machine.Machine
	o Options
}

// New returns an Arms over a machine. It touches nothing.
func New(m machine.Machine, o Options) *Arms {
	if o.UnitDir == "" {
		o.UnitDir = UnitDir
	}
	if o.Within <= 0 {
		o.Within = Within
	}
	if o.Poll <= 0 {
		o.Poll = time.Second / 2
	}
	return &Arms{m: m, o: o}
}

// Order is a change that is about to be made.
type Order struct {
	Key     string // of its dispatch
	Action  string
	Target  fettle.Subject
	PutBack fettle.PutBack
}

// Arm makes the order durable, starts its unit, sees that it is active and returns
// how long from now the change may take to be made: half of the time that it has
// to be confirmed in. It returns an error where any of that is not certain; then
// nothing may be touched, and what was begun is cancelled as far as that went.
func (a *Arms) Arm(ctx context.Context, o Order) (time.Duration, error) {
	id := ID(o.Key)
	if err := errors.Join(a.supported(ctx), checkPutBack(o.PutBack)); err != nil {
		return 0, err
	}
	now, err := a.uptime(ctx)
	if err != nil {
		return 0, err
	}
	r := record{
		Schema: schema, ID: id, Key: o.Key, Action: o.Action, Target: o.Target, BootID: a.m.Identity.BootID,
		Armed: now, Deadline: now + a.o.Within, PID: a.o.PID, Ticks: a.ticks(ctx, a.o.PID), PutBack: o.PutBack,
	}
	r.Sum = r.sum()
	if _, err := a.record(ctx, id); err == nil {
		return 0, fmt.Errorf("key %s was armed before; a key is done once", o.Key)
	}
	if err := a.alone(ctx); err != nil {
		return 0, err
	}
	err = func() error {
		if err := a.m.Files.MkdirAll(ctx, a.file(id, ""), 0o700); err != nil {
			return err
		}
		if err := a.prepare(ctx, id); err != nil {
			return err
		}
		if err := a.write(ctx, id, "record", r); err != nil {
			return err
		}
		if err := errors.Join(a.install(ctx), a.enable(ctx, id)); err != nil {
			return err
		}
		if err := a.start(ctx, id); err != nil {
			return err
		}
		return a.write(ctx, id, "touching", struct{}{})
	}()
	if err != nil {
		last, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer stop()
		return 0, errors.Join(fmt.Errorf("arm a revert of %s: %w", o.Key, err), a.Cancel(last, o.Key))
	}
	later, err := a.uptime(ctx)
	if err != nil {
		return 0, errors.Join(err, a.Cancel(ctx, o.Key))
	}
	return (r.Deadline - later) / 2, nil
}

// alone refuses a second change while one is open: what each puts back is what was
// there before it, and taken back in the wrong order that would be neither.
func (a *Arms) alone(ctx context.Context) error {
	list, err := a.List(ctx)
	for _, s := range list {
		if err == nil && s.open() {
			err = fmt.Errorf("change %s (%s on %s) is not confirmed or taken back yet: %w", s.ID, s.Action, s.Target, errBusy)
		}
	}
	return err
}

var errBusy = errors.New("one change at a time")

// ticks identifies a process beyond its number; 0 when it cannot be told.
func (a *Arms) ticks(ctx context.Context, pid int) uint64 {
	list, err := a.m.Processes.List(ctx)
	if err != nil {
		return 0
	}
	for _, p := range list {
		if p.PID == pid {
			return p.StartTicks
		}
	}
	return 0
}

// ErrReverted is wrapped by errors about a change that is taken back, or was.
var ErrReverted = errors.New("the change was not confirmed in time and is taken back")

// Ended notes that the action returned, whether all went well, and what it had to
// say. The error wraps ErrReverted where that came too late.
func (a *Arms) Ended(ctx context.Context, key string, ok bool, result fettle.Result) error {
	id := ID(key)
	now, err := a.uptime(ctx)
	if err != nil {
		return err
	}
	if err := a.write(ctx, id, "ended", ended{OK: ok, At: now, Result: result}); err != nil {
		return fmt.Errorf("armed change %s: %w", id, err)
	}
	d, err := a.decision(ctx, id)
	if err == nil && d.Decision == Reverting {
		err = fmt.Errorf("armed change %s: %w (%s)", id, ErrReverted, d.Why)
	}
	return err
}

// Cancel says that nothing was touched. It may be called again.
func (a *Arms) Cancel(ctx context.Context, key string) error {
	id := ID(key)
	if _, err := a.m.Files.Stat(ctx, a.file(id, "")); err != nil {
		return nil // it was never begun
	}
	if _, err := a.decide(ctx, id, Cancelled, "nothing was touched"); err != nil {
		return err
	}
	return a.disable(ctx, id)
}

// Confirm lets a change stand. since is the time since boot at which the connection
// began over which it is confirmed: it must be after the change's end. Confirming
// twice is confirming once; what is taken back stays so (ErrReverted).
func (a *Arms) Confirm(ctx context.Context, id string, since time.Duration) error {
	r, err := a.record(ctx, id)
	if err != nil {
		return err
	}
	var end ended
	switch has, err := a.read(ctx, id, "ended", &end); {
	case err != nil:
		return err
	case r.BootID != a.m.Identity.BootID:
		return fmt.Errorf("armed change %s: the machine was booted since; %w", id, ErrReverted)
	case !has:
		return fmt.Errorf("armed change %s: it is not known to have ended", id)
	case !end.OK:
		return fmt.Errorf("armed change %s: it did not end well, and is taken back", id)
	case since <= end.At:
		return fmt.Errorf("armed change %s: the connection began before the change ended; only a new one tells", id)
	}
	holds, err := a.decide(ctx, id, Confirmed, "a server was reached over a new connection")
	switch {
	case err != nil:
		return err
	case holds != Confirmed:
		return fmt.Errorf("armed change %s: %w", id, ErrReverted)
	}
	return a.disable(ctx, id)
}
