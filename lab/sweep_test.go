//go:build lab

package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLabsSideBySide(t *testing.T) {
	ctx := testContext(t)
	type started struct {
		lab *Lab
		err error
	}
	got := make(chan started, 2)
	for range 2 {
		go func() {
			l, err := Start(ctx, Config{Hosts: 2})
			got <- started{l, err}
		}()
	}
	var labs []*Lab
	for range 2 {
		s := <-got
		if s.err != nil {
			t.Fatal(s.err)
		}
		defer s.lab.Close()
		labs = append(labs, s.lab)
	}
	if labs[0].Prefix().Overlaps(labs[1].Prefix()) || labs[0].Name() == labs[1].Name() {
		t.Errorf("%s has %s, %s has %s", labs[0].Name(), labs[0].Prefix(), labs[1].Name(), labs[1].Prefix())
	}
	if swept, err := Sweep(ctx, ""); err != nil || strings.Contains(strings.Join(swept, " "), labs[0].Name()) {
		t.Errorf("swept a lab that is alive: %q, %v", swept, err)
	}
	if _, err := Start(ctx, Config{Name: labs[0].Name(), Hosts: 1}); err == nil {
		t.Error("two labs of one name")
	}
	// Neither sees the other, nor the world.
	a, b := labs[0].Host(1), labs[1].Host(1)
	for _, target := range []string{b.Addr().String(), "192.0.2.1"} { // the second is for documentation only, RFC 5737
		r, err := a.Exec(ctx, "ping", "-c", "1", "-W", "1", target)
		if err != nil || r.Code == 0 || !strings.Contains(r.Stderr, "Network is unreachable") {
			t.Errorf("%s from %s: %+v, %v", target, a.Addr(), r, err)
		}
	}
	if conn, err := labs[0].Dial(ctx, "tcp", b.Addr().String()+":1"); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("from bridge to bridge: %v, %v", conn, err)
	}
	// A packet of the machine for the lab does not leave by the default route.
	if out, err := run(ctx, nil, "ip", "route", "get", a.Addr().String()); err == nil {
		t.Errorf("the machine would send to %s by %s", a.Addr(), out)
	}
	// The end of one is not the end of the other.
	if err := labs[0].Close(); err != nil {
		t.Fatal(err)
	}
	output(t, b, "ping", "-c", "1", "-W", "5", labs[1].Host(2).Name())
	left := leftovers(t, trace{Name: labs[0].Name(), Dir: labs[0].dir, Number: labs[0].number})
	if len(left) > 0 {
		t.Errorf("closing left %q", left)
	}
}

// trace is what is to be looked for when a lab is gone.
type trace struct {
	Name, Dir, Net string
	Number         int
}

// leftovers looks for everything that a lab makes.
func leftovers(t *testing.T, tr trace) []string {
	t.Helper()
	var left []string
	if _, err := os.Stat(tr.Dir); !errors.Is(err, fs.ErrNotExist) {
		left = append(left, fmt.Sprintf("folder %s (%v)", tr.Dir, err))
	}
	all, err := mounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mountsUnder(all, tr.Dir) {
		left = append(left, "mount "+m.path)
	}
	loops, err := loopsUnder(tr.Dir)
	if err != nil {
		t.Fatal(err)
	}
	left = append(left, loops...)
	h, err := machineHierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range h.group(numberName(tr.Number)).dirs() {
		if _, err := os.Stat(dir); err == nil {
			left = append(left, "cgroup "+dir)
		}
	}
	route, err := run(testContext(t), nil, "ip", "-o", "route", "show", "exact", prefix(tr.Number).String())
	if err != nil || route != "" {
		left = append(left, fmt.Sprintf("route %s (%v)", route, err))
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if ns, err := os.Readlink(p + "/ns/net"); err == nil && ns == tr.Net {
			cmd, _ := os.ReadFile(p + "/cmdline")
			left = append(left, fmt.Sprintf("process %s in the lab's network: %q", p, cmd))
		}
		if cmd, err := os.ReadFile(p + "/cmdline"); err == nil && tr.Dir != "" && bytes.Contains(cmd, []byte(tr.Dir)) {
			left = append(left, fmt.Sprintf("process %s: %q", p, cmd))
		}
	}
	return left
}

// ownerEnv makes the test program the owner of a lab, that TestKilledOwnerLeavesNothing kills.
const ownerEnv = "FETTLE_LAB_TEST_OWNER"

func TestMain(m *testing.M) {
	if os.Getenv(ownerEnv) == "" {
		os.Exit(m.Run())
	}
	if err := own(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {} // until it is killed
}

// own starts a lab that has one of everything, and says on standard output what to look for.
func own(ctx context.Context) error {
	l, err := Start(ctx, Config{Hosts: 2})
	if err != nil {
		return err
	}
	h := l.Host(1)
	d, err := h.AttachDisk(ctx, 32<<20)
	if err == nil {
		_, err = h.Shell(ctx, "mkfs.ext4 -q "+d.Device+"; mount "+d.Device+" /mnt; echo x >/mnt/x")
	}
	if err == nil {
		_, err = h.Start(ctx, "sleep", "1000")
	}
	if err == nil {
		err = errors.Join(l.Delay(ctx, h, l.Host(2), 10*time.Millisecond, 0), l.Host(2).Freeze(ctx))
	}
	ns, lerr := os.Readlink(l.anchor.netns())
	if err = errors.Join(err, lerr); err != nil {
		return errors.Join(err, l.Close())
	}
	go func() { _, _ = h.Exec(ctx, "sleep", "1000") }()
	out, err := json.Marshal(trace{Name: l.Name(), Dir: l.dir, Number: l.number, Net: ns})
	if err != nil {
		return err
	}
	fmt.Printf("TRACE %s\n", out)
	return nil
}

func TestKilledOwnerLeavesNothing(t *testing.T) {
	ctx := testContext(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), ownerEnv+"=1")
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var tr trace
	var said strings.Builder
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		fmt.Fprintln(&said, lines.Text())
		if text, ok := strings.CutPrefix(lines.Text(), "TRACE "); ok {
			if err := json.Unmarshal([]byte(text), &tr); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("a killed process ended well")
	}
	if tr.Dir == "" {
		t.Fatalf("the owner did not start its lab:\n%s", said.String())
	}
	// The processes go without anybody's help, the frozen ones too.
	h, err := machineHierarchies()
	if err != nil {
		t.Fatal(err)
	}
	if err := awaitEvent(ctx, filepath.Join(h.group(numberName(tr.Number)).v2(), "cgroup.events"), "populated 0"); err != nil {
		t.Fatal(err)
	}
	swept, err := Sweep(ctx, "")
	if err != nil || !strings.Contains(strings.Join(swept, " "), tr.Name) {
		t.Errorf("swept %q, %v", swept, err)
	}
	if left := leftovers(t, tr); len(left) > 0 {
		t.Errorf("left: %s", strings.Join(left, "\n"))
	}
	if again, err := Sweep(ctx, ""); err != nil || strings.Contains(strings.Join(again, " "), tr.Name) {
		t.Errorf("swept again: %q, %v", again, err)
	}
}

func TestRemote(t *testing.T) {
	ctx := testContext(t)
	l := startLab(t, 2)
	r, err := Open(l.Name(), "")
	if err != nil {
		t.Fatal(err)
	}
	info, err := r.Info(ctx)
	if err != nil || info.State != "up" || len(info.Hosts) != 2 || info.Hosts[0].Power != On || info.Prefix != l.Prefix() {
		t.Fatalf("%+v, %v", info, err)
	}
	var out bytes.Buffer
	if code, err := r.Stream(ctx, "h2", strings.NewReader("told"), &out, nil, "sh", "-c", "hostname; cat; exit 4"); err != nil || code != 4 || out.String() != "h2\ntold" {
		t.Errorf("exec: %d, %q, %v", code, out.String(), err)
	}
	for _, o := range []Order{
		{Do: "poweroff", Hosts: []string{"h1", "h2"}}, {Do: "boot", Hosts: []string{"h1", "h2"}},
		{Do: "freeze", Hosts: []string{"h1"}}, {Do: "thaw", Hosts: []string{"h1"}},
		{Do: "partition", Hosts: []string{"h1"}, To: []string{"h2"}}, {Do: "cut", Hosts: []string{"h1"}, To: []string{"h2"}},
		{Do: "heal"}, {Do: "loss", Hosts: []string{"h1"}, Percent: 50}, {Do: "delay", Hosts: []string{"h1"}, To: []string{"h2"}, Base: time.Millisecond},
		{Do: "isolate", Hosts: []string{"h2"}}, {Do: "shutdown", Hosts: []string{"h2"}},
	} {
		if err := r.Order(ctx, o); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if l.Host(1).Boots() != 2 || l.Host(2).Power() != Off || len(l.Faults()) != 4 {
		t.Errorf("after the orders: %+v", l.Info())
	}
	for _, o := range []Order{{Do: "explode"}, {Do: "boot"}, {Do: "boot", Hosts: []string{"h3"}}, {Do: "partition"}} {
		if err := r.Order(ctx, o); err == nil {
			t.Errorf("%+v was obeyed", o)
		}
	}
	list, err := List(ctx, "")
	found := false
	for _, i := range list {
		found = found || i.Name == l.Name() && i.State == "up"
	}
	if err != nil || !found {
		t.Errorf("list is %+v, %v", list, err)
	}
	if err := r.Down(ctx); err != nil {
		t.Fatal(err)
	}
	<-l.Done()
	if _, err := r.Info(ctx); !errors.Is(err, ErrNoContact) {
		t.Errorf("a lab that is down answers: %v", err)
	}
}
