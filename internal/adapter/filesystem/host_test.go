package filesystem_test

import (
	"context"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"fettle/internal/adapter/adaptertest"
	"fettle/internal/adapter/filesystem"
	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
	"fettle/internal/machine/units"
)

const (
	varFS  = fettle.Subject("filesystem:h1/%2Fvar")
	rootFS = fettle.Subject("filesystem:h1/%2F")
	// canary stands in logs, configuration and command lines, none of which may
	// be repeated.
	canary = "hunter2-of-the-filesystem"

	journalDir   = "/var/log/journal/0f0e"
	journalLimit = 1 << 20
	archives     = "/var/cache/apt/archives"
	holderUnit   = "rsyslog.service"
	reloadUnit   = "app.service"
)

// host is a machine with a small /var that holds something of every kind, two
// thirds full.
type host struct {
	*memmachine.Machine
	ports  machine.Machine
	asked  map[string]int // units, by how often they were asked to reopen
	holder int64          // process of holderUnit
	reload int64          // process of reloadUnit
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{Machine: memmachine.New(memmachine.Options{Host: "h1"}), asked: map[string]int{}}
	h.ports = h.Ports()
	h.SetFilesystem(memmachine.Filesystem{Mount: machine.Mount{
		ID: 2, Point: "/var", Root: "/", Source: "/dev/vdb", Type: "ext4",
		Options: []string{"rw"}, SuperOptions: []string{"rw"}, Device: 2,
	}, Size: 24 << 20, Inodes: 4096})
	h.Put("/etc/systemd/journald.conf", fmt.Appendf(nil, "# %s\n[Journal]\nSystemMaxUse=8G\n", canary), 0o644)
	h.Put("/etc/systemd/journald.conf.d/size.conf", []byte("[Journal]\nSystemMaxUse=1M\n"), 0o644)
	h.Put("/etc/fstab", fmt.Appendf(nil, "/dev/vda1 / ext4 rw 0 1\n/dev/vdb /var ext4 rw,x-secret=%s 0 2\n", canary), 0o644)

	h.Fill(journalDir+"/system.journal", 1<<20)
	for n := range 4 {
		h.Fill(fmt.Sprintf("%s/system@%d.journal", journalDir, n), 1<<20)
	}
	h.Fill(archives+"/hello_1_amd64.deb", 2<<20)
	h.Fill(archives+"/world_2_amd64.deb", 1<<20)
	h.Put(archives+"/lock", nil, 0o640)
	h.Put("/var/log/app.log", []byte("password="+canary), 0o640)
	h.Put("/var/log/app.log.1", []byte(strings.Repeat("password="+canary+"\n", 1_000)), 0o640)
	h.Put("/var/log/app.log.2", []byte(strings.Repeat("password="+canary+"\n", 4_000)), 0o600)
	h.Put("/var/lib/app/precious", []byte(canary), 0o600)
	h.Fill("/var/lib/app/big", 2<<20)

	h.Program("journalctl", h.journalctl)
	for _, unit := range []string{holderUnit, reloadUnit} {
		h.Define(units.Definition{Unit: machine.Unit{Name: unit}, CanReload: true}, memmachine.Behaviour{OnSignal: func(int) bool {
			h.reopen(unit)
			return true
		}})
		if _, err := h.ports.Services.Start(t.Context(), unit); err != nil {
			t.Fatal(err)
		}
	}
	h.holder, h.reload = h.mainPID(t, holderUnit), h.mainPID(t, reloadUnit)
	h.ports.Services = reloads{h.ports.Services, h}
	h.AddProcess(machine.Process{Command: "sleep", Args: []string{"sleep", canary}}, nil)
	return h
}

func (h *host) mainPID(t *testing.T, unit string) int64 {
	t.Helper()
	u, err := h.ports.Services.Unit(t.Context(), unit)
	if err != nil || u.MainPID == 0 {
		t.Fatalf("%s does not run: %v", unit, err)
	}
	return int64(u.MainPID)
}

// hold has a unit's process hold a deleted file.
func (h *host) hold(t *testing.T, unit string, bytes int64) {
	t.Helper()
	pid := h.holder
	if unit == reloadUnit {
		pid = h.reload
	}
	p := "/var/lib/app/deleted-of-" + unit
	h.Fill(p, bytes)
	if err := h.OpenFile(int(pid), 9, p, true); err != nil {
		t.Fatal(err)
	}
	if err := h.ports.Files.Remove(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// reopen is what a daemon does that is asked to: it closes its old log.
func (h *host) reopen(unit string) {
	h.asked[unit]++
	pid := h.holder
	if unit == reloadUnit {
		pid = h.reload
	}
	h.CloseFile(int(pid), 9)
}

// reloads has a reload reach the process.
type reloads struct {
	machine.Services
	h *host
}

func (r reloads) Reload(ctx context.Context, name string) (machine.JobResult, error) {
	result, err := r.Services.Reload(ctx, name)
	if err == nil && result.Result == "done" {
		r.h.reopen(name)
	}
	return result, err
}

// journalctl does in memory what the real one does to the files: --rotate
// archives the file being written, --vacuum-size removes archived ones, oldest
// first. What it may not do it says as the real one does.
func (h *host) journalctl(c machine.Command) (machine.Output, error) {
	ctx := context.Background()
	dir, size, rotate := path.Dir(journalDir), int64(-1), false
	for _, a := range c.Args {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "--rotate":
			rotate = true
		case "--directory":
			dir = value
		case "--vacuum-size":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return machine.Output{Exit: 1, Stderr: []byte("Failed to parse vacuum size: " + value)}, nil
			}
			size = n
		default:
			return machine.Output{Exit: 1, Stderr: []byte("journalctl: unrecognized option '" + a + "'")}, nil
		}
	}
	files := h.ports.Files
	if rotate {
		to := fmt.Sprintf("%s/system@%d.journal", journalDir, 1000+len(h.Ran()))
		if err := files.Rename(ctx, journalDir+"/system.journal", to); err != nil {
			return machine.Output{Exit: 1, Stderr: fmt.Appendf(nil, "Failed to rotate journal: %v", err)}, nil
		}
		h.Fill(journalDir+"/system.journal", 64<<10)
	}
	if size <= 0 { // no limit given
		return machine.Output{}, nil
	}
	entries, err := files.ReadDir(ctx, path.Join(dir, path.Base(journalDir)))
	if err != nil {
		return machine.Output{Exit: 1, Stderr: []byte(err.Error())}, nil
	}
	sum := int64(0)
	for _, e := range entries {
		sum += e.Allocated
	}
	for _, e := range entries { // by name, which is by age
		if sum <= size || !strings.Contains(e.Name, "@") || !strings.HasSuffix(e.Name, ".journal") {
			continue
		}
		if err := files.Remove(ctx, path.Join(dir, path.Base(journalDir), e.Name)); err != nil {
			return machine.Output{Exit: 1, Stderr: fmt.Appendf(nil, "Failed to vacuum: %v", err)}, nil
		}
		sum -= e.Allocated
	}
	return machine.Output{}, nil
}

var sums = crc32.MakeTable(crc32.Castagnoli)

// tree lists every file with what it holds, as far as two states can be told
// apart by it.
func tree(ctx context.Context, f machine.Files, dir string) map[string]string {
	out := map[string]string{}
	entries, err := f.ReadDir(ctx, dir)
	if err != nil {
		out[dir] = err.Error()
	}
	for _, e := range entries {
		p := path.Join(dir, e.Name)
		if e.Mode.IsDir() {
			for k, v := range tree(ctx, f, p) {
				out[k] = v
			}
			continue
		}
		data, err := f.ReadFile(ctx, p, 1<<30)
		out[p] = fmt.Sprintf("%v %d:%d %d %x %v", e.Mode, e.UID, e.GID, len(data), crc32.Checksum(data, sums), err)
	}
	return out
}

func (h *host) state(ctx context.Context) string {
	files := tree(ctx, h.Ports().Files, "/")
	var names []string
	for p := range files {
		names = append(names, p)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, p := range names {
		fmt.Fprintln(&b, p, files[p])
	}
	open, err := h.Ports().Processes.DeletedOpen(ctx, 2)
	for _, o := range open {
		fmt.Fprintln(&b, "held by", o.Process.UnitName, o.Path)
	}
	fmt.Fprintln(&b, err)
	return b.String()
}

func (h *host) rig() adaptertest.Rig {
	return adaptertest.Rig{
		Adapter: filesystem.Adapter{}, Machine: h.ports, Canary: canary,
		State: h.state, Settle: func(context.Context) {},
	}
}

// denied wraps the ports of a machine so that they show everything and change
// nothing.
func denied(m machine.Machine) machine.Machine {
	m.Files, m.Services, m.Processes = deniedFiles{m.Files}, deniedServices{m.Services}, deniedProcesses{m.Processes}
	m.Filesystems = deniedFilesystems{m.Filesystems}
	return m
}

func no(op string) error { return fmt.Errorf("%s: %w", op, fs.ErrPermission) }

type deniedFiles struct{ machine.Files }

func (deniedFiles) WriteFile(context.Context, string, []byte, fs.FileMode) error { return no("write") }
func (deniedFiles) Rename(context.Context, string, string) error                 { return no("rename") }
func (deniedFiles) MkdirAll(context.Context, string, fs.FileMode) error          { return no("mkdir") }
func (deniedFiles) Chown(context.Context, string, int, int, bool) error          { return no("chown") }
func (deniedFiles) Remove(context.Context, string) error                         { return no("remove") }
func (deniedFiles) Create(context.Context, string, fs.FileMode) (machine.Writer, error) {
	return nil, no("create")
}

type deniedServices struct{ machine.Services }

func (deniedServices) Reload(context.Context, string) (machine.JobResult, error) {
	return machine.JobResult{}, no("reload")
}

type deniedProcesses struct{ machine.Processes }

func (deniedProcesses) Signal(context.Context, int, uint64, int) error { return no("signal") }

type deniedFilesystems struct{ machine.Filesystems }

func (deniedFilesystems) CheckWrite(context.Context, string) error { return no("write check") }
