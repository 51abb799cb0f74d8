package armed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"fettle/internal/fettle"
)

// schema is of what is written here.
const schema = 1

// maxFile bounds a file of a record: a ruleset of some ten thousand lines.
const maxFile = 16 << 20

// programs are what a revert may run. A record is root's own file; the list is
// there so that reading it says what a revert can do.
var programs = []string{"nft"}

// record is what was armed.
type record struct {
	Schema   int            `json:"schema"`
	ID       string         `json:"id"`
	Key      string         `json:"key"` // of the dispatch
	Action   string         `json:"action"`
	Target   fettle.Subject `json:"target"`
	BootID   string         `json:"boot_id"`
	Armed    time.Duration  `json:"armed_ns"`    // since boot
	Deadline time.Duration  `json:"deadline_ns"` // since boot
	PID      int            `json:"pid"`         // who touches
	Ticks    uint64         `json:"start_ticks"`
	PutBack  fettle.PutBack `json:"put_back"`
	Sum      string         `json:"sum"` // over all of the above
}

// ended is what became of the touch.
type ended struct {
	OK     bool          `json:"ok"`
	At     time.Duration `json:"at_ns"` // since boot
	Result fettle.Result `json:"result"`
}

// Decision is how an armed change ended.
type Decision string

// The decisions. Open is none yet.
const (
	Open      Decision = ""
	Confirmed Decision = "confirmed"
	Reverting Decision = "reverting" // it is put back, or was: State.Done
	Cancelled Decision = "cancelled" // nothing was touched
)

// decided is the file of a decision.
type decided struct {
	Decision Decision `json:"decision"`
	Why      string   `json:"why"`
}

// ID is the name of the record of a dispatch, the same for the same key.
func ID(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:8])
}

// checkID refuses a name that is none of ID's: it becomes part of a path and of a
// unit's name.
func checkID(id string) error {
	if b, err := hex.DecodeString(id); err != nil || len(b) != 8 {
		return fmt.Errorf("armed change %q: want 16 hexadecimal digits, as `fettle revert` lists them", id)
	}
	return nil
}

func (r record) sum() string {
	r.Sum = ""
	data, err := json.Marshal(r)
	if err != nil { // no field of a record refuses
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// parseRecord reads a record and checks that it is whole and one that this program
// can carry out.
func parseRecord(data []byte) (record, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, fmt.Errorf("the record cannot be read: %w", err)
	}
	switch {
	case r.Schema < 1 || r.Schema > schema:
		return record{}, fmt.Errorf("the record is of schema %d, up to %d is known here (run the program that wrote it)", r.Schema, schema)
	case r.Sum != r.sum():
		return record{}, errors.New("the record is not as it was written")
	}
	return r, checkPutBack(r.PutBack)
}

func checkPutBack(b fettle.PutBack) error {
	if !slices.Contains(programs, b.Program) {
		return fmt.Errorf("%q is no program that a revert may run: %v", b.Program, programs)
	}
	return nil
}

func (a *Arms) file(id, name string) string { return path.Join(a.o.Dir, id, name) }

// read reads a file of a record into v; false, when it is not there.
func (a *Arms) read(ctx context.Context, id, name string, v any) (bool, error) {
	data, err := a.m.Files.ReadFile(ctx, a.file(id, name), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, fmt.Errorf("%s: %w", a.file(id, name), err)
	}
	return true, nil
}

// write writes a file of a record, durably.
func (a *Arms) write(ctx context.Context, id, name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return a.m.Files.WriteFile(ctx, a.file(id, name), data, 0o600)
}

// record reads the record of a change. The error is fs.ErrNotExist where there is
// none.
func (a *Arms) record(ctx context.Context, id string) (record, error) {
	if err := checkID(id); err != nil {
		return record{}, err
	}
	data, err := a.m.Files.ReadFile(ctx, a.file(id, "record"), maxFile)
	if err != nil {
		return record{}, err
	}
	r, err := parseRecord(data)
	if err == nil && r.ID != id {
		err = fmt.Errorf("the record is that of %s", r.ID)
	}
	if err != nil {
		return record{}, fmt.Errorf("armed change %s: %w", id, err)
	}
	return r, nil
}

func (a *Arms) decision(ctx context.Context, id string) (decided, error) {
	var d decided
	_, err := a.read(ctx, id, "decision", &d)
	return d, err
}

// decide makes a decision unless there is one, and returns the one that holds. A
// revert's was written when it was armed, so that a disk that has become full
// since keeps nothing from being taken back.
func (a *Arms) decide(ctx context.Context, id string, d Decision, why string) (Decision, error) {
	draft := preparedRevert
	if d != Reverting {
		now, err := a.uptime(ctx)
		if err != nil {
			return Open, err
		}
		// Its own name for each who decides and each time: it is the rename that counts.
		draft = fmt.Sprintf("decision.%s.%d.%d", d, a.o.PID, now)
		if err := a.write(ctx, id, draft, decided{Decision: d, Why: why}); err != nil {
			return Open, fmt.Errorf("armed change %s: decide: %w", id, err)
		}
	}
	err := a.m.Files.Rename(ctx, a.file(id, draft), a.file(id, "decision"))
	holds, rerr := a.decision(ctx, id)
	if rerr == nil && holds.Decision != Open {
		if err != nil && d != Reverting {
			rerr = a.m.Files.Remove(ctx, a.file(id, draft))
		}
		return holds.Decision, rerr
	}
	return Open, fmt.Errorf("armed change %s: decide: %w", id, errors.Join(err, rerr))
}

// What is written beforehand, so that it takes a rename only.
const (
	preparedRevert = "prepared-revert"
	preparedDone   = "prepared-done"
)

// prepare writes beforehand what a revert will need.
func (a *Arms) prepare(ctx context.Context, id string) error {
	return errors.Join(
		a.write(ctx, id, preparedRevert, decided{Decision: Reverting, Why: "it was not confirmed in time, or not in this boot, or a person did not want it"}),
		a.write(ctx, id, preparedDone, struct{}{}))
}

// done notes that a change was put back.
func (a *Arms) done(ctx context.Context, id string) error {
	err := a.m.Files.Rename(ctx, a.file(id, preparedDone), a.file(id, "done"))
	if err != nil {
		if over, terr := a.there(ctx, id, "done"); terr == nil && over {
			return nil
		}
	}
	return err
}
