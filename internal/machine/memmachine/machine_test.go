package memmachine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
	"fettle/internal/machine/units"
)

func read(t *testing.T, m *memmachine.Machine, p string) (string, error) {
	t.Helper()
	b, err := m.Ports().Files.ReadFile(t.Context(), p, 1<<20)
	return string(b), err
}

// What a port promised to be durable is there after a power cut, whatever the
// seed.
func TestForkKeepsWhatWasSynced(t *testing.T) {
	m := memmachine.New(memmachine.Options{})
	f := m.Ports().Files
	ctx := t.Context()
	for _, err := range []error{
		f.MkdirAll(ctx, "/a/b", 0o755),
		f.WriteFile(ctx, "/a/b/one", []byte("1"), 0o600),
		f.WriteFile(ctx, "/a/b/gone", []byte("1"), 0o600),
		f.Rename(ctx, "/a/b/one", "/a/two"),
		f.Remove(ctx, "/a/b/gone"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w, err := f.Create(ctx, "/a/w", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("synced"))
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(50) {
		after := m.Fork(seed)
		for p, want := range map[string]string{"/a/two": "1", "/a/w": "synced"} {
			if got, err := read(t, after, p); err != nil || got != want {
				t.Errorf("seed %d: %s holds %q, %v; want %q", seed, p, got, err, want)
			}
		}
		for _, p := range []string{"/a/b/one", "/a/b/gone"} {
			if _, err := read(t, after, p); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("seed %d: %s: %v, want not there", seed, p, err)
			}
		}
	}
}

// Replacing a file shows the old or the new content at every point of it.
func TestForkDuringWriteFile(t *testing.T) {
	m := memmachine.New(memmachine.Options{})
	f := m.Ports().Files
	before, after := bytes.Repeat([]byte("a"), 3000), bytes.Repeat([]byte("b"), 5000)
	if err := f.WriteFile(t.Context(), "/x", before, 0o600); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	var steps []string
	m.OnStep(func(step, _ string) {
		steps = append(steps, step)
		for seed := range uint64(20) {
			got, err := read(t, m.Fork(seed), "/x")
			switch {
			case err == nil && got == string(before):
				seen["before"] = true
			case err == nil && got == string(after):
				seen["after"] = true
			default:
				t.Errorf("after %s, seed %d: %d bytes, %v", step, seed, len(got), err)
			}
		}
	})
	if err := f.WriteFile(t.Context(), "/x", after, 0o600); err != nil {
		t.Fatal(err)
	}
	if want := []string{"create", "write", "fsync", "rename"}; !slices.Equal(steps, want) {
		t.Errorf("steps %v, want %v", steps, want)
	}
	if !seen["before"] || !seen["after"] {
		t.Errorf("saw %v, want both outcomes", seen)
	}
}

// A directory that is moved is at its old place or at its new one, never at
// neither.
func TestForkDuringRename(t *testing.T) {
	m := memmachine.New(memmachine.Options{})
	m.Put("/data/wal/0", []byte("w"), 0o600)
	m.Put("/aside/.keep", nil, 0o600)
	places := map[string]int{}
	m.OnStep(func(step, _ string) {
		for seed := range uint64(20) {
			fork := m.Fork(seed)
			_, oldErr := read(t, fork, "/data/wal/0")
			_, newErr := read(t, fork, "/aside/data.1/wal/0")
			if (oldErr == nil) == (newErr == nil) {
				t.Errorf("after %s, seed %d: old place %v, new place %v", step, seed, oldErr, newErr)
			}
			places[fmt.Sprint(newErr == nil)]++
		}
	})
	if err := m.Ports().Files.Rename(t.Context(), "/data", "/aside/data.1"); err != nil {
		t.Fatal(err)
	}
	if len(places) != 2 {
		t.Errorf("outcomes %v, want both", places)
	}
}

// What was not synced may be lost, kept or torn, and a seed always gives the
// same.
func TestForkTearsWhatWasNotSynced(t *testing.T) {
	m := memmachine.New(memmachine.Options{})
	w, err := m.Ports().Files.Create(t.Context(), "/x", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(bytes.Repeat([]byte("a"), 4096))
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	w.Write(bytes.Repeat([]byte("b"), 4096))
	kinds := map[string]int{}
	for seed := range uint64(60) {
		got, err := read(t, m.Fork(seed), "/x")
		again, _ := read(t, m.Fork(seed), "/x")
		if err != nil || got != again {
			t.Fatalf("seed %d: %v, the same again: %v", seed, err, got == again)
		}
		if len(got) < 4096 || got[:4096] != string(bytes.Repeat([]byte("a"), 4096)) {
			t.Fatalf("seed %d: lost what was synced", seed)
		}
		switch b := bytes.Count([]byte(got), []byte("b")); b {
		case 0:
			kinds["lost"]++
		case 4096:
			kinds["kept"]++
		default:
			kinds["torn"]++
		}
	}
	if len(kinds) != 3 {
		t.Errorf("outcomes %v, want lost, kept and torn", kinds)
	}
	// A file whose name was never synced may be gone.
	if _, err := m.Ports().Files.Create(t.Context(), "/y", 0o600); err != nil {
		t.Fatal(err)
	}
	there := map[bool]bool{}
	for seed := range uint64(40) {
		_, err := read(t, m.Fork(seed), "/y")
		there[err == nil] = true
	}
	if len(there) != 2 {
		t.Errorf("an unsynced name was always %v", there)
	}
}

func TestForkIsANewBoot(t *testing.T) {
	m := memmachine.New(memmachine.Options{Host: "h7"})
	m.Define(units.Definition{Unit: machine.Unit{Name: "db.service", UnitFileState: "enabled"}}, memmachine.Behaviour{})
	m.Define(units.Definition{Unit: machine.Unit{Name: "off.service", UnitFileState: "disabled"}}, memmachine.Behaviour{})
	if _, err := m.Ports().Services.Start(t.Context(), "db.service"); err != nil {
		t.Fatal(err)
	}
	after := m.Fork(1)
	a, b := m.Ports().Identity, after.Ports().Identity
	if a.Host != b.Host || a.BootID == b.BootID {
		t.Errorf("identities %+v and %+v", a, b)
	}
	list, err := after.Ports().Processes.List(t.Context())
	if err != nil || len(list) != 0 {
		t.Errorf("processes survived: %v, %v", list, err)
	}
	after.Boot()
	for name, want := range map[string]string{"db.service": "active", "off.service": "inactive"} {
		if u, err := after.Ports().Services.Unit(t.Context(), name); err != nil || u.ActiveState != want {
			t.Errorf("after boot %s is %s, %v; want %s", name, u.ActiveState, err, want)
		}
	}
}

func TestFullFilesystem(t *testing.T) {
	m := memmachine.New(memmachine.Options{})
	ports := m.Ports()
	ctx := t.Context()
	if err := ports.Files.MkdirAll(ctx, "/var", 0o755); err != nil {
		t.Fatal(err)
	}
	m.SetFilesystem(memmachine.Filesystem{
		Mount: machine.Mount{Point: "/var", Type: "ext4", Device: 2, Options: []string{"rw"}},
		Size:  1 << 20, Reserved: 1 << 16, Inodes: 100,
	})
	m.Fill("/var/log/big", 900<<10)
	wantErr := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	u, err := ports.Filesystems.Usage(ctx, "/var")
	if err != nil || u.Size != 1<<20 || u.Free != 124<<10 || u.Avail != 60<<10 {
		t.Fatalf("usage %+v, %v", u, err)
	}
	wantErr("too much", ports.Files.WriteFile(ctx, "/var/x", make([]byte, 61<<10), 0o600), syscall.ENOSPC)
	wantErr("elsewhere", ports.Files.WriteFile(ctx, "/x", make([]byte, 61<<10), 0o600), nil)
	if after, err := ports.Filesystems.Usage(ctx, "/var"); err != nil || after != u {
		t.Errorf("a failed write left something: %+v, %v", after, err)
	}
	wantErr("fits", ports.Files.WriteFile(ctx, "/var/x", make([]byte, 60<<10), 0o600), nil)
	wantErr("write check, full", ports.Filesystems.CheckWrite(ctx, "/var"), syscall.ENOSPC)

	// Deleted but open still takes its place, until its holder closes it.
	pid := m.AddProcess(machine.Process{Command: "rsyslogd", UnitName: "rsyslog.service"}, func(signal int) bool {
		return signal == int(syscall.SIGHUP)
	})
	if err := m.OpenFile(pid, 7, "/var/log/big", true); err != nil {
		t.Fatal(err)
	}
	wantErr("remove", ports.Files.Remove(ctx, "/var/log/big"), nil)
	wantErr("still full", ports.Filesystems.CheckWrite(ctx, "/var"), syscall.ENOSPC)
	open, err := ports.Processes.DeletedOpen(ctx, 2)
	if err != nil || len(open) != 1 || open[0].Bytes != 900<<10 || open[0].Path != "/var/log/big" || open[0].Process.UnitName != "rsyslog.service" {
		t.Fatalf("deleted but open: %+v, %v", open, err)
	}
	wantErr("signal to another process", ports.Processes.Signal(ctx, pid, 1, 1), machine.ErrOtherProcess)
	wantErr("signal", ports.Processes.Signal(ctx, pid, open[0].Process.StartTicks, int(syscall.SIGHUP)), nil)
	m.CloseFile(pid, 7)
	wantErr("write check, freed", ports.Filesystems.CheckWrite(ctx, "/var"), nil)

	for _, state := range []struct {
		change func(*memmachine.Filesystem)
		want   error
	}{
		{func(f *memmachine.Filesystem) { f.Mount.SuperOptions = []string{"rw", "emergency_ro"} }, syscall.EROFS},
		{func(f *memmachine.Filesystem) { f.Mount.SuperOptions, f.Dead = nil, true }, syscall.EIO},
	} {
		f, _ := m.Filesystem("/var")
		state.change(&f)
		m.SetFilesystem(f)
		wantErr("write check", ports.Filesystems.CheckWrite(ctx, "/var"), state.want)
		wantErr("write", ports.Files.WriteFile(ctx, "/var/y", nil, 0o600), state.want)
	}
}

func TestHungFilesystemEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memmachine.New(memmachine.Options{})
		m.SetFilesystem(memmachine.Filesystem{Mount: machine.Mount{Point: "/nfs"}, Hung: true})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		_, err := m.Ports().Filesystems.Usage(ctx, "/nfs")
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 5*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if _, err := m.Ports().Files.Stat(t.Context(), "/"); err != nil {
			t.Errorf("another filesystem hangs too: %v", err)
		}
	})
}

func TestWatchMounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memmachine.New(memmachine.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		var told [][]machine.Mount
		ended := make(chan error)
		go func() {
			ended <- m.Ports().Filesystems.WatchMounts(ctx, func(l []machine.Mount) { told = append(told, l) })
		}()
		synctest.Wait()
		m.SetFilesystem(memmachine.Filesystem{Mount: machine.Mount{Point: "/var"}})
		synctest.Wait()
		m.Unmount("/var")
		synctest.Wait()
		if len(told) != 3 || len(told[0]) != 1 || len(told[1]) != 2 || len(told[2]) != 1 {
			t.Errorf("told %v", told)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

// Hours of service life take no time, and the states come with their times.
func TestServiceTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memmachine.New(memmachine.Options{})
		m.Define(units.Definition{Unit: machine.Unit{Name: "slow.service"}, StartTimeout: time.Hour},
			memmachine.Behaviour{ReadyAfter: 20 * time.Minute, ExitAfter: 2 * time.Hour, ExitStatus: 1})
		s := m.Ports().Services
		start := time.Now()
		r, err := s.Start(t.Context(), "slow.service")
		if err != nil || r.Result != "done" || r.Took != 20*time.Minute || !r.Issued.Equal(start) {
			t.Fatalf("%+v, %v", r, err)
		}
		var failed machine.Unit
		ctx, cancel := context.WithCancel(t.Context())
		s.Watch(ctx, func(u machine.Unit) {
			if u.ActiveState == "failed" {
				failed = u
				cancel()
			}
		}, "slow.service")
		if got := failed.StateChanged.Sub(start); got != 2*time.Hour+20*time.Minute || failed.ExecMainStatus != 1 {
			t.Errorf("failed after %v: %+v", got, failed)
		}
	})
}

func TestStartTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memmachine.New(memmachine.Options{})
		m.Define(units.Definition{Unit: machine.Unit{Name: "a.service"}}, memmachine.Behaviour{NeverReady: true})
		s := m.Ports().Services
		r, err := s.Start(t.Context(), "a.service")
		if err != nil || r.Result != "failed" || r.Took != 90*time.Second {
			t.Errorf("%+v, %v; want failed after 90 s", r, err)
		}
		if u, _ := s.Unit(t.Context(), "a.service"); u.Result != "timeout" || u.ActiveState != "failed" {
			t.Errorf("%+v", u)
		}
	})
}

func TestCommands(t *testing.T) {
	m := memmachine.New(memmachine.Options{})
	m.Program("journalctl", func(c machine.Command) (machine.Output, error) {
		return machine.Output{Exit: len(c.Args), Stdout: []byte("12345")}, nil
	})
	out, err := m.Ports().Commands.Run(t.Context(), machine.Command{Path: "journalctl", Args: []string{"-n", "1"}, Limit: 3})
	if err != nil || out.Exit != 2 || string(out.Stdout) != "123" || !out.Truncated {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := m.Ports().Commands.Run(t.Context(), machine.Command{Path: "none"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unknown program: %v", err)
	}
	if ran := m.Ran(); len(ran) != 2 || ran[1].Path != "none" {
		t.Errorf("ran %+v", ran)
	}
}
