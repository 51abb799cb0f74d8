package memmachine

import (
	"fmt"
	"sync"
	"syscall"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/units"
)

// Options say what machine to make. The zero value is host h1.
type Options struct {
	Host     string // identity, as minted at enrolment; "": h1
	Hostname string // "": as Host
	BootID   string // "": made from Host and the number of boots
}

// Machine is one machine in memory. All methods may be called concurrently.
type Machine struct {
	opts  Options
	boots int

	mu          sync.Mutex // of everything below but the engine, which has its own
	root        *inode
	lastInode   uint64
	pending     []change // names changed and not yet durable, oldest first
	filesystems []*filesystem
	mountWaits  map[chan struct{}]bool
	processes   map[int]*process
	lastPID     int
	invocations int
	services    map[string]*Behaviour
	logs        map[string][]string
	programs    map[string]func(machine.Command) (machine.Output, error)
	commands    []machine.Command
	wallOffset  time.Duration
	onStep      func(step, path string)

	engine *units.Engine
}

// New returns a machine with an empty root filesystem of 1 TiB and no units.
func New(o Options) *Machine {
	if o.Host == "" {
		o.Host = "h1"
	}
	if o.Hostname == "" {
		o.Hostname = o.Host
	}
	m := &Machine{
		opts:       o,
		boots:      1,
		mountWaits: map[chan struct{}]bool{},
		processes:  map[int]*process{},
		lastPID:    1000,
		services:   map[string]*Behaviour{},
		logs:       map[string][]string{},
		programs:   map[string]func(machine.Command) (machine.Output, error){},
	}
	m.root = m.newInode(0o755|modeDir, time.Now())
	m.root.durableEntries = map[string]*inode{}
	m.engine = units.NewEngine(hands{m}, time.Now, m.newInvocation)
	m.SetFilesystem(Filesystem{Mount: machine.Mount{
		ID: 1, Point: "/", Root: "/", Source: "/dev/vda1", Type: "ext4",
		Options: []string{"rw", "relatime"}, SuperOptions: []string{"rw"}, Device: 1, Errors: 0,
	}, Size: 1 << 40, Inodes: 1 << 26})
	return m
}

// Ports returns the machine as its users see it.
func (m *Machine) Ports() machine.Machine {
	return machine.Machine{
		Identity: machine.Identity{
			Host:     fettle.HostSubject(m.opts.Host),
			Hostname: m.opts.Hostname,
			BootID:   m.bootID(),
		},
		Clock:       clock{m},
		Files:       files{m},
		Commands:    commands{m},
		Services:    services{m},
		Filesystems: filesystems{m},
		Processes:   processes{m},
	}
}

func (m *Machine) bootID() string {
	if m.opts.BootID != "" && m.boots == 1 {
		return m.opts.BootID
	}
	return fmt.Sprintf("boot-%s-%d", m.opts.Host, m.boots)
}

// OnStep has f called, unlocked, between the system calls that one operation on
// files is made of: "create", "write", "fsync", "rename", "mkdir", "remove",
// "chown", each done and perhaps not yet durable. A test forks the machine there.
func (m *Machine) OnStep(f func(step, path string)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onStep = f
}

func (m *Machine) step(name, path string) {
	m.mu.Lock()
	f := m.onStep
	m.mu.Unlock()
	if f != nil {
		f(name, path)
	}
}

func pathError(op, path string, errno syscall.Errno) error {
	return fmt.Errorf("%s %s: %w", op, path, errno)
}
