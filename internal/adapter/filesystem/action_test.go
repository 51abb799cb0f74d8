package filesystem_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
	"fettle/internal/machine/units"
)

// TestActionsRefuse: what an action must not do it refuses, touching nothing,
// and says what to do next.
func TestActionsRefuse(t *testing.T) {
	keep := fettle.Facts{"keep_bytes": int64(journalLimit)}
	for name, c := range map[string]struct {
		action  string
		params  func(*host) fettle.Facts
		prepare func(*testing.T, *host)
		why     string
	}{
		"keeping less of the journal than its owner declared": {
			action: "filesystem.vacuum_journal", params: func(*host) fettle.Facts { return fettle.Facts{"keep_bytes": int64(journalLimit - 1)} },
			why: "1048575 is less",
		},
		"keeping nothing, which journalctl takes for everything": {
			action: "filesystem.vacuum_journal", params: func(*host) fettle.Facts { return fettle.Facts{"keep_bytes": int64(0)} },
			why: "was not said",
		},
		"no word on how much stays": {action: "filesystem.vacuum_journal", why: "was not said"},
		"a limit that is not understood": {
			action: "filesystem.vacuum_journal", params: func(*host) fettle.Facts { return keep },
			prepare: func(_ *testing.T, h *host) {
				h.Put("/run/systemd/journald.conf.d/z.conf", []byte("SystemMaxUse=some"), 0o644)
			},
			why: "is not known",
		},
		"packages that are being installed": {
			action:  "filesystem.clean_package_cache",
			prepare: func(_ *testing.T, h *host) { h.AddProcess(machine.Process{Command: "apt-get"}, nil) },
			why:     "is installing packages",
		},
		"a process that ended": {
			action: "filesystem.ask_reopen", params: func(*host) fettle.Facts { return fettle.Facts{"unit": holderUnit, "pid": int64(99)} },
			why: "has ended",
		},
		"a process that is another unit's by now": {
			action: "filesystem.ask_reopen", params: func(h *host) fettle.Facts { return fettle.Facts{"unit": holderUnit, "pid": h.reload} },
			why: "is of " + reloadUnit,
		},
		"a process in no unit": {
			action: "filesystem.ask_reopen", params: func(*host) fettle.Facts { return fettle.Facts{"unit": "tail", "pid": int64(4711)} },
			prepare: func(_ *testing.T, h *host) { h.AddProcess(machine.Process{PID: 4711, Command: "tail"}, nil) },
			why:     "is in no unit",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.hold(t, holderUnit, 1<<20)
			if c.prepare != nil {
				c.prepare(t, h)
			}
			var params fettle.Facts
			if c.params != nil {
				params = c.params(h)
			}
			before := h.state(t.Context())
			_, err := do(t, h.ports, c.action, params)
			var e *fettle.Error
			if !errors.As(err, &e) || e.Class != fettle.Refused || e.Hint == "" || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%v; want a refusal with a hint that says %q", err, c.why)
			}
			if after := h.state(t.Context()); after != before || h.asked[holderUnit] > 0 || h.asked[reloadUnit] > 0 {
				t.Errorf("it was touched: %v\n%s\nwas\n%s", h.asked, after, before)
			}
		})
	}
}

// TestAskReopenReloads: a unit that is not known to reopen on a signal is asked
// to reload; one that cannot is named to a person.
func TestAskReopenReloads(t *testing.T) {
	h := newHost(t)
	h.hold(t, reloadUnit, 1<<20)
	params := fettle.Facts{"unit": reloadUnit, "pid": h.reload}
	d := dispatch("filesystem.ask_reopen", params)
	ask := act(t, h.ports, "filesystem.ask_reopen")
	if fate, _, err := ask.Recover(t.Context(), d); fate != fettle.NeverWillBe || err != nil {
		t.Errorf("while the file is held, Recover says %q, %v", fate, err)
	}
	if _, err := ask.Apply(t.Context(), d); err != nil || h.asked[reloadUnit] != 1 {
		t.Errorf("%v, asked %v", err, h.asked)
	}
	if fate, _, err := ask.Recover(t.Context(), d); fate != fettle.Done || err != nil {
		t.Errorf("once nothing is held, Recover says %q, %v", fate, err)
	}

	h.Define(units.Definition{Unit: machine.Unit{Name: reloadUnit}}, memmachine.Behaviour{})
	_, err := ask.Apply(t.Context(), d)
	if err == nil || !strings.Contains(err.Error(), "restart app.service by hand") {
		t.Errorf("a unit that cannot reload: %v", err)
	}
}

// TestVacuumOnFullDisk: the journal cannot be rotated on a full disk; what was
// archived before goes all the same.
func TestVacuumOnFullDisk(t *testing.T) {
	h := newHost(t)
	whole := h.journalctl
	h.Program("journalctl", func(c machine.Command) (machine.Output, error) {
		if c.Args[0] == "--rotate" {
			return machine.Output{Exit: 1, Stderr: []byte("Failed to rotate: No space left on device")}, nil
		}
		return whole(c)
	})
	r, err := do(t, h.ports, "filesystem.vacuum_journal", fettle.Facts{"keep_bytes": int64(journalLimit)})
	if err != nil || len(r.Receipts) != 4 || r.Outputs["freed_bytes"] != int64(4<<20) || !strings.Contains(fmt.Sprint(r.Notes), "could not be archived") {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestVacuumTellsWhatWent: when it breaks half way, the receipt lists what went.
func TestVacuumTellsWhatWent(t *testing.T) {
	h := newHost(t)
	h.Program("journalctl", func(c machine.Command) (machine.Output, error) {
		if c.Args[0] == "--rotate" {
			return machine.Output{}, nil
		}
		err := h.ports.Files.Remove(context.Background(), journalDir+"/system@0.journal")
		return machine.Output{Exit: 1, Stderr: []byte("Input/output error")}, err
	})
	r, err := do(t, h.ports, "filesystem.vacuum_journal", fettle.Facts{"keep_bytes": int64(journalLimit)})
	if err == nil || len(r.Receipts) != 1 || r.Receipts[0].What != journalDir+"/system@0.journal" {
		t.Errorf("%+v, %v", r, err)
	}
}

// failing are files of which one cannot be listed or removed.
type failing struct {
	machine.Files
	list, remove string
	err          error
}

func (f failing) ReadDir(ctx context.Context, p string) ([]machine.Stat, error) {
	if p == f.list {
		return nil, fmt.Errorf("read directory %s: %w", p, f.err)
	}
	return f.Files.ReadDir(ctx, p)
}

func (f failing) Remove(ctx context.Context, p string) error {
	if p == f.remove {
		return fmt.Errorf("remove %s: %w", p, f.err)
	}
	return f.Files.Remove(ctx, p)
}

// TestNotSeenIsNotNothing: where a folder cannot be read, Recover does not take
// what it did not see for done, nor Apply for nothing to do.
func TestNotSeenIsNotNothing(t *testing.T) {
	for action, dir := range map[string]string{
		"filesystem.vacuum_journal": journalDir, "filesystem.clean_package_cache": archives, "filesystem.compress_logs": "/var/log",
	} {
		h := newHost(t)
		h.ports.Files = failing{Files: h.ports.Files, list: dir, err: syscall.EIO}
		d := dispatch(action, fettle.Facts{"keep_bytes": int64(journalLimit)})
		if fate, _, err := act(t, h.ports, action).Recover(t.Context(), d); fate != fettle.UnknownFate || !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: Recover says %q, %v", action, fate, err)
		}
		if r, err := act(t, h.ports, action).Apply(t.Context(), d); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: Apply says %v, %v", action, r, err)
		}
	}
}

// TestCleanTellsWhatWent: when a package cannot be removed, the receipt lists
// those that were, and Recover permits the rest.
func TestCleanTellsWhatWent(t *testing.T) {
	h := newHost(t)
	h.ports.Files = failing{Files: h.ports.Files, remove: archives + "/world_2_amd64.deb", err: fs.ErrPermission}
	r, err := do(t, h.ports, "filesystem.clean_package_cache", nil)
	if fettle.ClassOf(err) != fettle.Denied || len(r.Receipts) != 1 || r.Receipts[0].What != archives+"/hello_1_amd64.deb" {
		t.Errorf("%+v, %v", r, err)
	}
	fate, _, err := act(t, h.ports, "filesystem.clean_package_cache").Recover(t.Context(), dispatch("filesystem.clean_package_cache", nil))
	if fate != fettle.NeverWillBe || err != nil {
		t.Errorf("with a package left, Recover says %q, %v", fate, err)
	}
}
