package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// Power is what a host's power switch and its systemd say.
type Power string

const (
	Off      Power = "off"
	Booting  Power = "booting"  // power is on; systemd has not reported the end of start-up
	On       Power = "on"       // start-up finished, perhaps with failed units
	Stopping Power = "stopping" // a clean shutdown was asked for
	Frozen   Power = "frozen"   // power is on, no process of it runs
)

// ErrOff is wrapped by what cannot be done on a host that is off.
var ErrOff = errors.New("the host is off")

// Host is one machine of a lab.
type Host struct {
	lab   *Lab
	name  string
	addr  netip.Addr
	dir   string // of the lab's folder: console.log, notify, and the overlay's up, work, root
	group cgroup

	switching chan struct{} // holds one token: what changes power takes it

	mu        sync.Mutex
	boot      *boot // nil: off
	boots     int
	rebooting bool // off, but about to be booted by the lab
	frozen    bool
	stopping  bool
	execs     int
	disks     []*Disk
	changed   chan struct{} // closed and replaced whenever one of the above changes
}

func newHost(l *Lab, n int) *Host {
	name := fmt.Sprintf("h%d", n)
	h := &Host{lab: l, name: name, addr: address(l.prefix, n), dir: filepath.Join(l.dir, name), group: l.group.child(name),
		switching: make(chan struct{}, 1), changed: make(chan struct{})}
	h.switching <- struct{}{}
	return h
}

// Name is the host's name, h1, h2, …; the other hosts of the lab know it by that (through /etc/hosts).
func (h *Host) Name() string { return h.name }

// Addr is the host's address on the lab's bridge, interface host0.
func (h *Host) Addr() netip.Addr { return h.addr }

// port is the bridge's end of the host's cable: nspawn calls it "vb-" and the machine's name.
func (h *Host) port() string { return "vb-" + h.machine() }

func (h *Host) machine() string { return fmt.Sprintf("fl%d-%s", h.lab.number, h.name) }

// create makes the host's file system and its identity. The host stays off.
func (h *Host) create(ctx context.Context) error {
	if err := h.lab.anchor.overlay(ctx, h.lab.image, h.dir); err != nil {
		return fmt.Errorf("lab: file system of %s: %w", h.name, err)
	}
	var id [16]byte
	rand.Read(id[:])
	var names strings.Builder
	names.WriteString("127.0.0.1 localhost\n")
	for i := range h.lab.cfg.Hosts {
		fmt.Fprintf(&names, "%s h%d\n", address(h.lab.prefix, i+1), i+1)
	}
	for path, text := range map[string]string{
		"/etc/hostname":                         h.name + "\n",
		"/etc/machine-id":                       hex.EncodeToString(id[:]) + "\n",
		"/etc/hosts":                            names.String(),
		"/etc/systemd/network/10-host0.network": fmt.Sprintf("[Match]\nName=host0\n[Network]\nAddress=%s/%d\nLinkLocalAddressing=no\nLLDP=no\n", h.addr, h.lab.prefix.Bits()),
	} {
		if err := h.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Power is the present state of the power switch.
func (h *Host) Power() Power {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.power()
}

func (h *Host) power() Power {
	switch {
	case h.boot == nil && h.rebooting:
		return Booting
	case h.boot == nil:
		return Off
	case h.frozen:
		return Frozen
	case h.stopping:
		return Stopping
	case !h.boot.isReady():
		return Booting
	}
	return On
}

// Boots counts how often the host was booted, reboots from inside included.
func (h *Host) Boots() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.boots
}

// update changes the host's state under its lock and wakes who waits for a change.
func (h *Host) update(change func()) {
	h.mu.Lock()
	change()
	close(h.changed)
	h.changed = make(chan struct{})
	h.mu.Unlock()
}

// await waits until ok, called under the host's lock, says true or returns an error.
func (h *Host) await(ctx context.Context, what string, ok func() (bool, error)) error {
	for {
		h.mu.Lock()
		done, err := ok()
		changed := h.changed
		h.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to be %s: %w\n%s", h.name, what, context.Cause(ctx), h.Console(20))
		}
	}
}

// WaitRunning waits until the host is on. A host that is off and will not be booted by itself is an error at once.
func (h *Host) WaitRunning(ctx context.Context) error {
	return h.await(ctx, "running", func() (bool, error) {
		if h.power() == Off {
			return false, fmt.Errorf("wait for %s: %w: boot it", h.name, ErrOff)
		}
		return h.power() == On, nil
	})
}

// WaitBoots waits until the host is on and has been booted at least n times: with n = Boots()+1 taken before, until a
// reboot that was asked for inside has been done.
func (h *Host) WaitBoots(ctx context.Context, n int) error {
	return h.await(ctx, fmt.Sprintf("booted %d times", n), func() (bool, error) { return h.boots >= n && h.power() == On, nil })
}

// WaitOff waits until the host is off.
func (h *Host) WaitOff(ctx context.Context) error {
	return h.await(ctx, "off", func() (bool, error) { return h.power() == Off, nil })
}

// take reserves the power switch until the returned function is called.
func (h *Host) take(ctx context.Context) (func(), error) {
	select {
	case <-h.switching:
		return func() { h.switching <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("power switch of %s: %w", h.name, context.Cause(ctx))
	}
}

// PowerOff cuts the power: every process of the host gets SIGKILL at once, frozen ones too, and it returns when the last
// one is gone. What the host had written stays, synced or not. A host that is off stays off.
func (h *Host) PowerOff(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, toolDeadline)
	defer cancel()
	release, err := h.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	h.mu.Lock()
	b := h.boot
	h.rebooting = false
	if b != nil {
		b.cut = true
	}
	h.mu.Unlock()
	if b == nil {
		return nil
	}
	if err := h.group.kill(ctx); err != nil {
		return fmt.Errorf("power off %s: %w", h.name, err)
	}
	return h.waitEnd(ctx, b)
}

func (h *Host) waitEnd(ctx context.Context, b *boot) error {
	select {
	case <-b.ended:
		return b.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of %s: %w", h.name, context.Cause(ctx))
	}
}

// systemd's signal for a clean poweroff is SIGRTMIN+4 (systemd(1), "Signals"); the C library's SIGRTMIN is 34.
const sigPowerOff = syscall.Signal(34 + 4)

// Shutdown asks the host's systemd for a clean poweroff and waits for it, for as long as a boot may take. It takes half a
// second on an idle host.
func (h *Host) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.lab.cfg.BootTimeout)
	defer cancel()
	h.mu.Lock()
	b, state := h.boot, h.power()
	h.mu.Unlock()
	switch {
	case b == nil:
		return nil
	case state == Frozen:
		return fmt.Errorf("shut down %s: it is frozen and would not hear of it: thaw it, or cut its power", h.name)
	case b.leader() == 0:
		return fmt.Errorf("shut down %s: it has only begun to boot: wait for it, or cut its power", h.name)
	}
	h.update(func() { h.stopping = true })
	if err := syscall.Kill(b.leader(), sigPowerOff); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("shut down %s: %w", h.name, err)
	}
	return h.waitEnd(ctx, b)
}

// Freeze hangs the host: none of its processes runs, and what is executed in it by [Host.Exec] hangs too. Its kernel
// lives on: it answers ping and accepts connections.
func (h *Host) Freeze(ctx context.Context) error { return h.setFrozen(ctx, true) }

// Thaw lets a frozen host go on.
func (h *Host) Thaw(ctx context.Context) error { return h.setFrozen(ctx, false) }

func (h *Host) setFrozen(ctx context.Context, frozen bool) error {
	ctx, cancel := context.WithTimeout(ctx, toolDeadline)
	defer cancel()
	release, err := h.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	if h.Power() == Off {
		return fmt.Errorf("freeze or thaw %s: %w", h.name, ErrOff)
	}
	if err := freeze(ctx, h.payload(), frozen); err != nil {
		return fmt.Errorf("freeze or thaw %s: %w", h.name, err)
	}
	h.update(func() { h.frozen = frozen })
	return nil
}

// payload is the cgroup2 folder in which nspawn puts the host's own processes, apart from itself.
func (h *Host) payload() string { return filepath.Join(h.group.v2(), "payload") }

// Console is the last lines of what the host wrote to its console, over all boots; "" if it cannot be read.
func (h *Host) Console(lines int) string {
	data, err := os.ReadFile(h.ConsolePath())
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}

// ConsolePath is the file on the machine to which the host's console is written. It goes when the lab is closed.
func (h *Host) ConsolePath() string { return filepath.Join(h.dir, "console.log") }
