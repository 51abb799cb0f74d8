//go:build labhost

package linuxmachine

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"fettle/internal/machine"
)

func sh(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// The mount table is told when it changes, and so is an error of an ext4
// filesystem, which changes no line of it. /mnt/lab is an ext4 of the lab's.
func TestWatchMounts(t *testing.T) {
	s := open(t).Ports().Filesystems
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan []machine.Mount, 1000)
	ended := make(chan error, 1)
	go func() { ended <- s.WatchMounts(ctx, func(m []machine.Mount) { told <- m }) }()
	until := func(what string, ok func([]machine.Mount) bool) {
		t.Helper()
		late := time.After(time.Minute)
		for {
			select {
			case m := <-told:
				if ok(m) {
					return
				}
			case <-late:
				t.Fatalf("never told: %s", what)
			}
		}
	}
	at := func(point string, ok func(machine.Mount) bool) func([]machine.Mount) bool {
		return func(m []machine.Mount) bool {
			return slices.ContainsFunc(m, func(m machine.Mount) bool { return m.Point == point && ok(m) })
		}
	}
	always := func(machine.Mount) bool { return true }
	dir := filepath.Join(t.TempDir(), "a b")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	until("the present", at("/mnt/lab", func(m machine.Mount) bool { return m.Type == "ext4" && m.Errors == 0 }))
	sh(t, "mount -t tmpfs -o size=64k none '"+dir+"'")
	until("a new mount", at(dir, always))

	// Full, inside the new one.
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckWrite(t.Context(), dir); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write check on a full filesystem: %v, want ENOSPC", err)
	}
	if u, err := s.Usage(t.Context(), dir); err != nil || u.Size != 64<<10 || u.Avail != 0 {
		t.Errorf("usage %+v, %v", u, err)
	}
	sh(t, "mount -o remount,ro '"+dir+"'")
	until("read-only", at(dir, func(m machine.Mount) bool { return slices.Contains(m.Options, "ro") }))
	sh(t, "umount '"+dir+"'")
	until("unmounted", func(m []machine.Mount) bool { return !at(dir, always)(m) })

	if err := s.CheckWrite(t.Context(), "/mnt/lab"); err != nil {
		t.Errorf("write check before the error: %v", err)
	}
	if err := os.WriteFile("/run/trigger-ext4-error", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	until("an error of ext4", at("/mnt/lab", func(m machine.Mount) bool {
		stopped := slices.Contains(m.SuperOptions, "emergency_ro") || slices.Contains(m.SuperOptions, "ro")
		return m.Errors > 0 && stopped
	}))
	if err := s.CheckWrite(t.Context(), "/mnt/lab"); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write check after it: %v, want EROFS", err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
