package filesystem_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"fettle/internal/adapter/filesystem"
	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/linuxmachine"
)

// holderDir tells a child of this test binary to hold a deleted file there.
const holderDir = "FETTLE_TEST_HOLDER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holderDir); dir != "" {
		if err := holder(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const heldBytes = 8 << 20

// holder injects filesystem.hold_deleted, says so, reverts it when it is told to,
// says so, and stays until its input ends.
func holder(dir string) error {
	ctx := context.Background()
	m, done, err := real(ctx, dir)
	if err != nil {
		return err
	}
	defer done()
	in, err := filesystem.Adapter{}.Open(ctx, m, nil)
	if err != nil {
		return err
	}
	injected, err := in.Faults()["filesystem.hold_deleted"].Inject(ctx, fettle.NewSubject(fettle.KindFilesystem, "h1", dir), fettle.Facts{"bytes": int64(heldBytes)})
	if err != nil {
		return err
	}
	fmt.Println("held")
	told := bufio.NewScanner(os.Stdin)
	for told.Scan() {
		if err := injected.Revert(ctx); err != nil {
			return err
		}
		fmt.Println("reverted")
	}
	return told.Err()
}

// real is this machine, on which a folder is said to be where its filesystem is
// mounted, so that nothing needs root.
func real(ctx context.Context, dir string) (machine.Machine, func(), error) {
	h, err := linuxmachine.Open(ctx, linuxmachine.Config{Host: "h1"})
	if err != nil {
		return machine.Machine{}, nil, err
	}
	m := h.Ports()
	st, err := m.Files.Stat(ctx, dir)
	if err != nil {
		return machine.Machine{}, nil, err
	}
	m.Filesystems = mountedAt{m.Filesystems, machine.Mount{
		ID: 1, Point: dir, Root: "/", Source: "it", Type: "ext4", Options: []string{"rw"}, SuperOptions: []string{"rw"}, Device: st.Device, Errors: -1,
	}}
	return m, func() { h.Close() }, nil
}

type mountedAt struct {
	machine.Filesystems
	mount machine.Mount
}

func (f mountedAt) Mounts(context.Context) ([]machine.Mount, error) {
	return []machine.Mount{f.mount}, nil
}

// startHolder starts a child that holds a deleted file, and returns when it does.
func startHolder(t *testing.T, dir string) (child *exec.Cmd, in io.WriteCloser, says *bufio.Scanner) {
	t.Helper()
	child = exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), holderDir+"="+dir)
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	says = bufio.NewScanner(out)
	if !says.Scan() || says.Text() != "held" {
		t.Fatalf("the child says %q", says.Text())
	}
	return child, in, says
}

// TestHoldDeleted: a real process holds a real file that has no name: it is seen,
// with what it was called and who holds it, and gone when the fault is reverted,
// and also when the process is killed.
func TestHoldDeleted(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m, done, err := real(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(done)
	s := fettle.NewSubject(fettle.KindFilesystem, "h1", dir)
	// Others may hold deleted files on the same device: only the child's count.
	held := func(pid int) int64 {
		t.Helper()
		open, err := m.Processes.DeletedOpen(t.Context(), deviceOf(t, m, dir))
		if err != nil {
			t.Logf("seen in part: %v", err) // without root only one's own processes are
		}
		sum := int64(0)
		for _, o := range open {
			if o.Process.PID == pid {
				if o.Path != dir+"/.fettle-fault-held" {
					t.Errorf("it was called %s", o.Path)
				}
				sum += o.Bytes
			}
		}
		return sum
	}

	child, in, says := startHolder(t, dir)
	if got := held(child.Process.Pid); got < heldBytes {
		t.Errorf("%d bytes are held", got)
	}
	o := look(t, m, "filesystem.fill", s)
	if got, _ := o.Facts.Int("deleted_open_bytes"); got < heldBytes {
		t.Errorf("deleted_open_bytes is %d: %+v", got, o)
	}
	if pid, _ := o.Facts.Int("deleted_holder_pid"); pid == int64(child.Process.Pid) {
		if path, _ := o.Facts.Str("deleted_path"); !strings.HasSuffix(path, "/.fettle-fault-held") {
			t.Errorf("deleted_path is %q", path)
		}
	} else {
		t.Logf("somebody else holds more here: %v", o.Facts["deleted_holder"])
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("there is %v, %v", names, err)
	}
	for range 2 { // reverting twice is safe
		if _, err := io.WriteString(in, "revert\n"); err != nil {
			t.Fatal(err)
		}
		if !says.Scan() || says.Text() != "reverted" {
			t.Fatalf("the child says %q", says.Text())
		}
		if got := held(child.Process.Pid); got != 0 {
			t.Errorf("%d bytes are held after the revert", got)
		}
	}
	in.Close()
	if err := child.Wait(); err != nil {
		t.Error(err)
	}

	child, _, _ = startHolder(t, dir)
	if got := held(child.Process.Pid); got < heldBytes {
		t.Errorf("%d bytes are held", got)
	}
	if err := child.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err == nil {
		t.Error("it was killed and ended well")
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 || held(child.Process.Pid) != 0 {
		t.Errorf("after its death there is %v, %v", names, err)
	}
}

func deviceOf(t *testing.T, m machine.Machine, dir string) uint64 {
	t.Helper()
	st, err := m.Files.Stat(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return st.Device
}

// TestHoldDeletedRefuses: what cannot be held is refused, and a name that was left
// behind is in nobody's way.
func TestHoldDeletedRefuses(t *testing.T) {
	h := newHost(t)
	in, err := filesystem.Adapter{}.Open(t.Context(), h.ports, nil)
	if err != nil {
		t.Fatal(err)
	}
	hold := in.Faults()["filesystem.hold_deleted"]
	if _, err := hold.Inject(t.Context(), varFS, fettle.Facts{"bytes": int64(0)}); fettle.ClassOf(err) != fettle.Refused {
		t.Errorf("no bytes: %v", err)
	}
	if _, err := hold.Inject(t.Context(), "filesystem:h1/%2Fnone", nil); fettle.ClassOf(err) != fettle.Refused {
		t.Errorf("not mounted: %v", err)
	}
	h.Put("/var/.fettle-fault-held", nil, 0o600)
	injected, err := hold.Inject(t.Context(), varFS, fettle.Facts{"bytes": int64(1 << 20)})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := look(t, h.ports, "filesystem.fill", varFS).Facts.Int("deleted_open_bytes"); got != 1<<20 {
		t.Errorf("%d bytes are held", got)
	}
	if err := injected.Revert(t.Context()); err != nil {
		t.Error(err)
	}
	if got, _ := look(t, h.ports, "filesystem.fill", varFS).Facts.Int("deleted_open_bytes"); got != 0 {
		t.Errorf("%d bytes are still held", got)
	}
}
