//go:build lab

package lab

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestPowerCutAndBoot(t *testing.T) {
	ctx := testContext(t)
	l := startLab(t, 1)
	h := l.Host(1)
	before := output(t, h, "cat", "/proc/sys/kernel/random/boot_id")
	if _, err := h.Shell(ctx, "echo kept >/root/kept; echo gone >/run/gone"); err != nil {
		t.Fatal(err)
	}
	if err := h.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	if p := h.Power(); p != Off {
		t.Fatalf("power is %s", p)
	}
	if _, err := h.Exec(ctx, "true"); !errors.Is(err, ErrOff) {
		t.Errorf("exec on a host that is off: %v, want ErrOff", err)
	}
	if err := h.PowerOff(ctx); err != nil {
		t.Errorf("power off twice: %v", err)
	}
	if got, err := h.ReadFile("/root/kept"); err != nil || string(got) != "kept\n" {
		t.Errorf("file of a host that is off: %q, %v", got, err)
	}
	if err := h.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	if got := output(t, h, "cat", "/root/kept"); got != "kept" {
		t.Errorf("after the power cut: %q", got)
	}
	if r, err := h.Exec(ctx, "test", "-e", "/run/gone"); err != nil || r.Code != 1 {
		t.Errorf("/run survived the power cut: %+v, %v", r, err)
	}
	if after := output(t, h, "cat", "/proc/sys/kernel/random/boot_id"); after == before {
		t.Error("the boot id did not change")
	}
	if err := h.Boot(ctx); err == nil {
		t.Error("booting a running host is no error")
	}
	// The journal has both lives.
	if got := output(t, h, "sh", "-c", "journalctl --list-boots -o json | jq length"); got != "2" {
		t.Errorf("journal knows %s boots, want 2", got)
	}
}

func TestShutdownAndReboot(t *testing.T) {
	ctx := testContext(t)
	l := startLab(t, 1)
	h := l.Host(1)
	boots := h.Boots()
	if _, err := h.Exec(ctx, "systemctl", "reboot"); err != nil {
		t.Logf("the command was cut short by its own effect: %v", err)
	}
	if err := h.WaitBoots(ctx, boots+1); err != nil {
		t.Fatal(err)
	}
	output(t, h, "true")
	if err := h.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if h.Power() != Off {
		t.Fatalf("power is %s after a shutdown", h.Power())
	}
	if err := h.WaitRunning(ctx); !errors.Is(err, ErrOff) {
		t.Errorf("waiting for a host that is off: %v", err)
	}
	if !strings.Contains(h.Console(1000), "Reached target") {
		t.Errorf("nothing of the boots on the console:\n%s", h.Console(1000))
	}
}

func TestFrozenHostAnswersPingButDoesNothing(t *testing.T) {
	ctx := testContext(t)
	l := startLab(t, 2)
	h, other := l.Host(1), l.Host(2)
	if err := h.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	output(t, other, "ping", "-c", "1", "-W", "5", h.Name())
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if r, err := h.Exec(short, "true"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a frozen host ran a command: %+v, %v", r, err)
	}
	if err := h.Shutdown(ctx); err == nil {
		t.Error("a frozen host was shut down")
	}
	if err := h.Thaw(ctx); err != nil {
		t.Fatal(err)
	}
	output(t, h, "true")
	// A hang must not survive a power cut.
	if err := errors.Join(h.Freeze(ctx), h.PowerOff(ctx), h.Boot(ctx)); err != nil {
		t.Fatal(err)
	}
	output(t, h, "true")
}

func TestPowerCutDuringBoot(t *testing.T) {
	ctx := testContext(t)
	l := startLab(t, 1)
	h := l.Host(1)
	if err := h.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	booted := make(chan error, 1)
	go func() { booted <- h.Boot(ctx) }()
	if err := h.await(ctx, "booting", func() (bool, error) { return h.boot != nil, nil }); err != nil {
		t.Fatal(err)
	}
	if err := h.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-booted; !errors.Is(err, ErrOff) {
		t.Errorf("a boot that was cut off says %v", err)
	}
	if err := h.Boot(ctx); err != nil {
		t.Fatal(err)
	}
}
