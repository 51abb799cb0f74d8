package linuxmachine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// Config says where this machine's own things are. The zero value is the real
// machine without an enrolled identity.
type Config struct {
	// Host is the machine's identity, minted at enrolment. Where it is empty it
	// is read from HostFile; where that is empty too, Open fails.
	Host     string
	HostFile string
	// StateDir is where this program remembers, over its own restarts, which
	// units it stopped itself. "": it does not, and calls them stopped by a
	// person after a restart.
	StateDir string
	// StopsOf is the StateDir of another process of this program that stops units here:
	// what that one stopped was not stopped by a person. "": there is none.
	StopsOf string

	// Mounts is the mountinfo(5) of the host, for a process that sees others than the
	// host does. "": this process's own.
	Mounts string

	Proc string // "": /proc
	Sys  string // "": /sys
	Run  string // "": /run
}

// Host is the machine. Close it when its ports are no longer used.
type Host struct {
	cfg   Config
	ports machine.Machine
	bus   *bus
	table *mountTable
}

// hostFileBytes is more than any identity has.
const hostFileBytes = 256

// Open reads the machine's identity and prepares its ports. It connects to
// nothing yet and starts nothing.
func Open(ctx context.Context, cfg Config) (*Host, error) {
	cfg.Proc, cfg.Sys, cfg.Run = cmp.Or(cfg.Proc, "/proc"), cmp.Or(cfg.Sys, "/sys"), cmp.Or(cfg.Run, "/run")
	table := &mountTable{path: cmp.Or(cfg.Mounts, filepath.Join(cfg.Proc, "self/mountinfo"))}
	lanes := &lanes{mountOf: table.pointOf}
	files := &files{lanes: lanes}
	clock, err := newClock()
	if err != nil {
		return nil, err
	}
	identity, err := readIdentity(ctx, cfg, files)
	if err != nil {
		return nil, err
	}
	h := &Host{cfg: cfg, table: table}
	commands := &commands{}
	h.bus = newBus(cfg)
	h.ports = machine.Machine{
		Identity:    identity,
		Clock:       clock,
		Files:       files,
		Commands:    commands,
		Services:    newServices(cfg, h.bus, clock, commands, identity.BootID),
		Filesystems: &filesystems{cfg: cfg, lanes: lanes, table: table},
		Processes:   &processes{cfg: cfg, lanes: lanes},
		Rulesets:    rules{},
	}
	return h, nil
}

// Ports returns the machine's ports.
func (h *Host) Ports() machine.Machine { return h.ports }

// Close ends the connection to the service manager; running calls on it fail.
func (h *Host) Close() error {
	return errors.Join(h.bus.close(), h.table.close())
}

func readIdentity(ctx context.Context, cfg Config, files *files) (machine.Identity, error) {
	id := cfg.Host
	if id == "" {
		if cfg.HostFile == "" {
			return machine.Identity{}, fettle.Refuse("machine.open", "", "give the host's identity or the file that has it", "no host identity")
		}
		data, err := files.ReadFile(ctx, cfg.HostFile, hostFileBytes)
		if errors.Is(err, fs.ErrNotExist) {
			return machine.Identity{}, &fettle.Error{Op: "machine.open", Class: fettle.Broken, Err: err, Hint: "enrol this machine first: fettle join"}
		}
		if err != nil {
			return machine.Identity{}, fmt.Errorf("machine identity: %w", err)
		}
		id = strings.TrimSpace(string(data))
	}
	if id == "" || strings.ContainsAny(id, " \t\n/") {
		return machine.Identity{}, fettle.Refuse("machine.open", "", "enrol this machine again: fettle join", "%q is no host identity", id)
	}
	boot, err := files.ReadFile(ctx, filepath.Join(cfg.Proc, "sys/kernel/random/boot_id"), hostFileBytes)
	if err != nil {
		return machine.Identity{}, fmt.Errorf("boot identity: %w", err)
	}
	name, err := os.Hostname()
	if err != nil {
		return machine.Identity{}, fmt.Errorf("host name: %w", err)
	}
	return machine.Identity{
		Host: fettle.HostSubject(id), Hostname: name, BootID: strings.TrimSpace(string(boot)),
	}, nil
}
