// Package machine is the ports to one Linux machine: everything that Fettle
// reads or changes on it goes through here, so that the same adapter runs on a
// real host, on the in-memory machine of a test (memmachine), under injected
// faults (faultmachine), and over child processes in the demo.
//
// It is not a place for decisions. Its invariants: no shell is ever involved;
// every call takes a context and returns when it ends, also when the kernel does
// not (a hung mount costs one goroutine, counted, and no delay); errors keep the
// errno (errors.Is works with fs.ErrNotExist, syscall.ENOSPC and the like); what
// could not be read because of missing privilege is fs.ErrPermission.
package machine

import (
	"context"
	"io"
	"io/fs"
	"time"

	"fettle/internal/fettle"
)

// Machine bundles the ports to one machine. Every field is set, but for Rulesets
// where nobody tells of changes.
type Machine struct {
	Identity    Identity
	Clock       Clock
	Files       Files
	Commands    Commands
	Services    Services
	Filesystems Filesystems
	Processes   Processes
	Rulesets    Rulesets // nil: not told
}

// Identity is who this machine is.
type Identity struct {
	Host     fettle.Subject // minted once at enrolment
	Hostname string         // a label
	BootID   string         // of this boot: /proc/sys/kernel/random/boot_id
}

// Adapter is one external system's knowledge and hands, as the agent and the
// command line use it.
type Adapter interface {
	Catalogue() fettle.Catalogue
	// Discover proposes configurations for what it finds on the machine, each a
	// YAML document that Open accepts. It changes nothing; finding nothing is no
	// error. Each proposal has a comment that says where it was found.
	Discover(ctx context.Context, m Machine) ([]Found, error)
	// Open makes the adapter ready on a machine with one configuration. It may
	// connect lazily; it starts no goroutine.
	Open(ctx context.Context, m Machine, config []byte) (fettle.Instance, error)
}

// Found is one discovered configuration.
type Found struct {
	Name   string // short, unique on the machine: "etcd", "var"
	Config []byte // YAML
	Why    string // where it was found, a sentence
}

// Clock tells time. Now is wall-clock anchored once and advanced by
// CLOCK_BOOTTIME, so differences are right across suspend and wall-clock steps.
type Clock interface {
	Now() time.Time
	// Wall is what the machine's wall clock says: for people and certificates.
	Wall() time.Time
	// After returns a channel that gets the time once d has passed, and a stop.
	After(d time.Duration) (<-chan time.Time, func())
}

// Files reads and changes files. Paths are absolute. Writes are durable when the
// call returns: file and directory are synced.
type Files interface {
	ReadFile(ctx context.Context, path string, limit int64) ([]byte, error) // more than limit bytes is an error
	Stat(ctx context.Context, path string) (Stat, error)
	ReadDir(ctx context.Context, path string) ([]Stat, error) // sorted by name
	// WriteFile replaces the file by rename, keeping owner and mode of the one
	// that is there, else with perm.
	WriteFile(ctx context.Context, path string, data []byte, perm fs.FileMode) error
	Rename(ctx context.Context, from, to string) error // within one filesystem; the target must not exist
	MkdirAll(ctx context.Context, path string, perm fs.FileMode) error
	Chown(ctx context.Context, path string, uid, gid int, recursive bool) error
	Remove(ctx context.Context, path string) error // one file or empty directory; actions may use it only on what they made or S5 permits
	Open(ctx context.Context, path string) (io.ReadCloser, error)
	Create(ctx context.Context, path string, perm fs.FileMode) (Writer, error) // must not exist
}

// Writer is a file being written. Sync makes it durable.
type Writer interface {
	io.WriteCloser
	Sync() error
}

// Stat is what is known of one file.
type Stat struct {
	Name      string // base name
	Mode      fs.FileMode
	Bytes     int64 // length
	Allocated int64 // on disk
	UID, GID  int
	Inode     uint64
	Device    uint64
	Links     uint64
	Modified  time.Time
}

// Commands runs programs that have no library or kernel interface. Arguments are
// passed as they are, never through a shell.
type Commands interface {
	Run(ctx context.Context, c Command) (Output, error) // a non-zero exit is in Output, not an error
}

// Command is a program with its arguments.
type Command struct {
	Path  string // a name is looked up in the standard directories, never in the current one
	Args  []string
	Env   []string // added to a minimal environment (PATH, LANG=C.UTF-8)
	Stdin []byte
	Limit int // of stdout and stderr each, in bytes; 0: 1 MiB
	// User is the name of the account that it runs as, with its groups; "": that of
	// this process. Another than that needs root.
	User string
	// Stdout and Stderr get what it writes as it comes, without a limit, instead of
	// Output. Each is written to by one goroutine at a time, both perhaps at once. A
	// Write that blocks holds the program up, and must return when ctx ends.
	Stdout, Stderr io.Writer
}

// Output is what a program said.
type Output struct {
	Exit           int // -1: ended by a signal
	Signal         int
	Stdout, Stderr []byte
	Truncated      bool
}

// Services is the service manager: systemd on a host, child processes in the
// demo. Units are named as systemd names them.
type Services interface {
	// Units lists the loaded units whose names match one of the patterns
	// (path.Match), all services when none is given.
	Units(ctx context.Context, patterns ...string) ([]Unit, error)
	Unit(ctx context.Context, name string) (Unit, error)
	// Watch reports every change of a unit until its context ends: first the
	// present state of all that match, then changes as the manager tells them.
	Watch(ctx context.Context, emit func(Unit), patterns ...string) error
	// Start, Stop, Restart queue a job and wait for its end. The result names
	// the job's outcome ("done", "failed", "timeout"…); an error means that the
	// manager refused or could not be asked.
	Start(ctx context.Context, name string) (JobResult, error)
	Stop(ctx context.Context, name string) (JobResult, error)
	Restart(ctx context.Context, name string) (JobResult, error)
	// Reload asks the unit to reread its configuration.
	Reload(ctx context.Context, name string) (JobResult, error)
	ResetFailed(ctx context.Context, name string) error
	Kill(ctx context.Context, name string, signal int) error // the main process
	DaemonReload(ctx context.Context) error
	// Log returns the last lines of the unit's log of its present invocation,
	// oldest first.
	Log(ctx context.Context, name string, lines int) ([]string, error)
}

// Unit is a service as its manager sees it. Names follow systemd's properties
// (org.freedesktop.systemd1(5)).
type Unit struct {
	Name              string
	LoadState         string // loaded, not-found, masked, bad-setting, error
	ActiveState       string // active, reloading, inactive, failed, activating, deactivating
	SubState          string // running, exited, dead, auto-restart…
	UnitFileState     string // enabled, disabled, static, masked…; "" where there is no file
	Result            string // of a service: success, exit-code, signal, core-dump, watchdog, start-limit-hit, oom-kill, timeout…
	MainPID           int
	ExecMainCode      int // CLD_EXITED 1, CLD_KILLED 2, CLD_DUMPED 3
	ExecMainStatus    int
	NRestarts         int
	Restart           string // no, on-failure, always…
	InvocationID      string // changes at each start
	FragmentPath      string
	Wants             []string // Requires, Requisite, BindsTo, Wants
	WantedBy          []string // RequiredBy, BoundBy, WantedBy: who asks for it
	NeedsDaemonReload bool
	StateChanged      time.Time // of ActiveState; zero when never
	StoppedBy         string    // who asked for its stop: ByPerson, BySelf, ByUnknown, or "" (nobody: it ended by itself, or it runs)
	Job               string    // type of a queued job, "" when none
}

// JobResult is the end of a service manager's job.
type JobResult struct {
	Result string    // done, canceled, timeout, failed, dependency, skipped
	Issued time.Time // when the manager accepted it
	Took   time.Duration
}

// Filesystems is mounts and their use.
type Filesystems interface {
	Mounts(ctx context.Context) ([]Mount, error)
	// Usage asks the filesystem at a mount point. A hung one answers with the
	// context's error.
	Usage(ctx context.Context, mountpoint string) (Usage, error)
	// WatchMounts calls emit at every change of the mount table, and once at the
	// beginning.
	WatchMounts(ctx context.Context, emit func([]Mount)) error
	// CheckWrite makes, syncs and removes one small file of Fettle's own at the
	// mount point and returns the error that a writer would get.
	CheckWrite(ctx context.Context, mountpoint string) error
}

// Mount is one line of mountinfo(5).
type Mount struct {
	ID           int
	Point        string
	Root         string
	Source       string // device or remote
	Type         string
	Options      []string // per mount
	SuperOptions []string // per filesystem; ext4 shows emergency_ro here
	Device       uint64   // st_dev
	Errors       int64    // the filesystem's own error counter where the kernel shows one (ext4); -1: none
}

// Usage is statfs(2), in bytes and inodes.
type Usage struct {
	Size, Free, Avail  int64 // Avail: to an ordinary user; Free − Avail is reserved
	Inodes, InodesFree int64
}

// Rulesets tells of changes of the packet filter. What it is, nft(8) prints.
type Rulesets interface {
	// WatchRules calls emit once it is told, with the zero RulesChange, and then after
	// every change until its context ends. An error means that changes may have been
	// missed. emit is called from one goroutine.
	WatchRules(ctx context.Context, emit func(RulesChange)) error
}

// RulesChange is one transaction on the packet filter.
type RulesChange struct {
	Generation uint32
	PID        int    // of the process that made it, 0: not known
	Process    string // its command name
}

// Processes reads /proc and speaks to processes.
type Processes interface {
	List(ctx context.Context) ([]Process, error)
	// DeletedOpen lists open files that have no name any more, on the given
	// device (st_dev). Where some processes could not be looked into it returns
	// what it found together with an fs.ErrPermission.
	DeletedOpen(ctx context.Context, device uint64) ([]OpenFile, error)
	Signal(ctx context.Context, pid int, startTicks uint64, signal int) error // refused when the process is not the same one
}

// Process is one process.
type Process struct {
	PID        int
	StartTicks uint64 // with PID and boot, its identity
	Command    string // comm
	Args       []string
	State      string // R, S, D, T, Z
	Cgroup     string
	UnitName   string // the systemd unit it belongs to, "" when none
}

// OpenFile is one open descriptor.
type OpenFile struct {
	Process  Process
	FD       int
	Path     string // as it was named
	Device   uint64 // st_dev
	Inode    uint64 // with Device its identity: several descriptors may share one file
	Bytes    int64  // allocated
	Writable bool
}
