//go:build lab

package lab

import (
	"os"
	"strings"
	"testing"
)

func TestFullDisk(t *testing.T) {
	ctx := testContext(t)
	l := startLab(t, 1)
	h := l.Host(1)
	d, err := h.AttachDisk(ctx, 32<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Shell(ctx, "mkfs.ext4 -q "+d.Device+"; mkdir /data; mount "+d.Device+" /data; echo kept >/data/kept; sync"); err != nil {
		t.Fatal(err)
	}
	r, err := h.Exec(ctx, "dd", "if=/dev/zero", "of=/data/big", "bs=1M", "count=100")
	if err != nil || r.Code == 0 || !strings.Contains(r.Stderr, "No space left on device") {
		t.Errorf("filling the disk: %+v, %v", r, err)
	}
	// Its content outlives the power.
	if err := h.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	if err := h.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := h.Shell(ctx, "mount "+d.Device+" /data; cat /data/kept"); err != nil || got != "kept" {
		t.Errorf("after the power cut: %q, %v", got, err)
	}
	// The kernel's own ext4 error, and its counter as the host sees it.
	if err := d.TriggerError(); err != nil {
		t.Fatal(err)
	}
	if got := output(t, h, "cat", "/sys/fs/ext4/"+strings.TrimPrefix(d.Device, "/dev/")+"/errors_count"); got != "1" {
		t.Errorf("the host counts %s errors of its file system, want 1", got)
	}
	if _, err := h.Exec(ctx, "umount", "/data"); err != nil {
		t.Fatal(err)
	}
	if err := d.Detach(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.Image); err == nil {
		t.Error("the image of a detached disk is still there")
	}
	if r, err := h.Exec(ctx, "test", "-e", d.Device); err != nil || r.Code != 1 {
		t.Errorf("the device of a detached disk is still in the host: %+v, %v", r, err)
	}
	for _, size := range []int64{0, -1, 1<<20 + 1} {
		if _, err := h.AttachDisk(ctx, size); err == nil {
			t.Errorf("attached a disk of %d bytes", size)
		}
	}
}
