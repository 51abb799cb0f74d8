//go:build lab

package linuxmachine

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/lab"
)

// hostRun chooses tests on the host, as -run does here.
var hostRun = flag.String("hostrun", "", "run only these tests on the lab host")

// TestOnALabHost builds this package's tests once more, with what needs a real
// systemd and root on a machine of one's own (build tag labhost), and runs them
// on a host of the lab.
func TestOnALabHost(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	binary := filepath.Join(t.TempDir(), "linuxmachine.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "labhost", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests: %v\n%s", err, out)
	}
	l, err := lab.Start(ctx, lab.Config{Hosts: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h := l.Host(1)
	if err := h.CopyIn(binary, hostBinary); err != nil {
		t.Fatal(err)
	}
	disk, err := h.AttachDisk(ctx, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Shell(ctx, "mkfs.ext4 -q "+disk.Device+"; mkdir -p /mnt/lab; mount -o errors=remount-ro "+disk.Device+" /mnt/lab"); err != nil {
		t.Fatal(err)
	}
	// WatchMounts has to be told of an error that only the machine can trigger.
	trigger := make(chan error, 1)
	go func() {
		err := waitForFile(ctx, h, "/run/trigger-ext4-error")
		if err == nil {
			err = disk.TriggerError()
		}
		trigger <- err
	}()
	code, err := h.Stream(ctx, nil, testWriter{t}, testWriter{t}, "env", "TMPDIR=/var/tmp", hostBinary, "-test.v", "-test.timeout=4m", "-test.run="+*hostRun)
	if err != nil || code != 0 {
		t.Errorf("tests on the host: exit status %d, %v", code, err)
	}
	cancel()
	if err := <-trigger; err != nil && *hostRun == "" {
		t.Error(err)
	}
}

// hostBinary is where the tests are on the host.
const hostBinary = "/usr/local/bin/linuxmachine.test"

// waitForFile waits until the host has made a file.
func waitForFile(ctx context.Context, h *lab.Host, path string) error {
	_, err := h.Shell(ctx, "until [ -e "+path+" ]; do sleep 0.05; done")
	return err
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}
