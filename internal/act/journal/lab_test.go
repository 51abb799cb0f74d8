//go:build lab

package journal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLabFullFilesystem fills a real file system under a journal: a tmpfs of
// 1 MiB that only the child sees, in a mount namespace of its own.
func TestLabFullFilesystem(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := child(ctx, t, "full", t.TempDir())
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("records: %s", out)
}

func childModes(mode, dir string) error {
	if mode != "full" {
		return fmt.Errorf("no child mode %q", mode)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	path, ballast := filepath.Join(dir, "j"), filepath.Join(dir, "ballast")
	j, err := Open(context.Background(), path, Options{Reserve: MinReserve})
	if err != nil {
		return err
	}
	f, err := os.Create(ballast)
	if err != nil {
		return err
	}
	for err == nil { // to the last byte
		_, err = f.Write(make([]byte, 1024))
	}
	if !isFull(err) {
		return err
	}
	n, err := fill(j)
	if err != nil {
		return err
	}
	// A full journal on a full disk is closed and opened like any other.
	if err := j.Close(); err != nil {
		return err
	}
	if j, err = Open(context.Background(), path, Options{Reserve: MinReserve}); err != nil {
		return err
	}
	if got := j.Opened().Records; got != int64(n) {
		return fmt.Errorf("%d records, want %d", got, n)
	}
	if err := os.Truncate(ballast, 0); err != nil {
		return err
	}
	return goOn(j, n)
}
