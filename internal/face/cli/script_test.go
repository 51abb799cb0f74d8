package cli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"golang.org/x/sys/unix"

	"fettle/internal/adapter/all"
	"fettle/internal/face/cli"
	"fettle/internal/machine/loopback"
	"fettle/packaging"
	"fettle/runbooks"
)

// TestMain lets this test binary be the command itself: the scripts run the real
// command line, with every adapter and runbook.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"fettle": func() {
		os.Exit(cli.Main(cli.Setup{
			Version: "v0.0.0-script", Adapters: all.Adapters(), Runbooks: runbooks.FS(), Units: packaging.FS(), EtcdMain: etcdmain.Main,
		}, os.Args[1:]))
	}})
}

// TestScripts runs testdata/script/*.txtar. Each has folders of its own: what
// Fettle keeps goes below $WORK/state, and $WORK/quiet configures the adapters
// so that they look after nothing of the machine that the tests run on, whatever
// that is.
func TestScripts(t *testing.T) {
	recorded := recordings(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "json": jsonIs, "columns": columns, "background": background, "end": end,
			"setenv": setenv, "id": id, "damage": damage, "terminal": terminal, "freeport": freePort,
		},
		Condition: func(cond string) (bool, error) {
			if cond != "systemd" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			_, err := os.Stat("/run/systemd/system") // sd_booted(3)
			return err == nil, nil
		},
		Setup: func(e *testscript.Env) error {
			e.Values[started{}] = map[string]*process{}
			e.Setenv("FETTLE_STATE", filepath.Join(e.WorkDir, "state"))
			e.Setenv("NO_COLOR", "")
			files := map[string]string{"quiet/filesystem.yaml": "types: [none]\n", "quiet/systemd.yaml": "units: [\"no-such-unit-*\"]\n"}
			for name, text := range recorded {
				files["recorded/"+name] = text
			}
			for name, text := range files {
				name = filepath.Join(e.WorkDir, name)
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// exits runs a command and demands one of some exit statuses:
//
//	exits 0,2 fettle doctor
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS[,STATUS…] command [args…]")
	}
	got := status(ts, ts.Exec(args[1], args[2:]...))
	if !slices.Contains(strings.Split(args[0], ","), strconv.Itoa(got)) {
		ts.Fatalf("%s: exit status %d, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

func status(ts *testscript.TestScript, err error) int {
	var e *exec.ExitError
	if err != nil && !errors.As(err, &e) {
		ts.Fatalf("%v", err)
	}
	if e == nil {
		return 0
	}
	return e.ExitCode()
}

// jsonIs demands exactly one JSON document, and that what is at a path in it
// looks as a pattern says. A number in the path is an index, and len the length of
// a list.
//
//	json stdout incidents.0.state '^held$'
func jsonIs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 && len(args) != 3 {
		ts.Fatalf("usage: json FILE [PATH PATTERN]")
	}
	dec := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	dec.UseNumber()
	var v, more any
	if err := dec.Decode(&v); err != nil {
		ts.Fatalf("%s is not JSON: %v", args[0], err)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		ts.Fatalf("%s has something after the first JSON document: %v %v", args[0], more, err)
	}
	if len(args) == 1 {
		return
	}
	for key := range strings.SplitSeq(args[1], ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			if key == "len" {
				v = len(x)
				continue
			}
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(x) {
				ts.Fatalf("%s: there is no %s in %v", args[1], key, x)
			}
			v = x[i]
		default:
			ts.Fatalf("%s: there is no %s in %v", args[1], key, v)
		}
	}
	text := fmt.Sprint(v)
	if v == nil {
		text = "null"
	}
	if !regexp.MustCompile(args[2]).MatchString(text) {
		ts.Fatalf("%s is %s, which %q does not match", args[1], text, args[2])
	}
}

// columns demands that no line of a file is wider.
func columns(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: columns N FILE")
	}
	most, err := strconv.Atoi(args[0])
	ts.Check(err)
	text := ts.ReadFile(args[1])
	if text == "" {
		ts.Fatalf("%s is empty", args[1])
	}
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > most {
			ts.Fatalf("%d columns: %s", n, line)
		}
	}
}

// setenv sets a variable to the text of a file.
func setenv(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: setenv NAME FILE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

// id sets ID to that of the first thing in a list of incidents, or of others that have one.
func id(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: id FILE")
	}
	var list []struct{ ID string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &list))
	if len(list) == 0 {
		ts.Fatalf("%s lists nothing", args[0])
	}
	ts.Setenv("ID", list[0].ID)
}

// freePort sets a variable to a port of the loopback that nobody listens on.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: freeport NAME")
	}
	l, err := loopback.Open("")
	ts.Check(err)
	ts.Setenv(args[0], strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	ts.Check(l.Close())
}

// damage overwrites eight bytes of a file in place.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: damage FILE OFFSET")
	}
	at, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR, 0)
	ts.Check(err)
	_, err = f.WriteAt([]byte("damaged!"), at)
	ts.Check(errors.Join(err, f.Close()))
}

// command makes a command as the script would run it.
func command(ts *testscript.TestScript, args []string) *exec.Cmd {
	path, err := exec.LookPath(args[0]) // testscript.Main put it there
	ts.Check(err)
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = os.Environ()
	for _, name := range []string{"FETTLE_STATE", "NO_COLOR", "HOME"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	return cmd
}

type started struct{}

// process is a command in the background.
type process struct {
	cmd    *exec.Cmd
	mu     sync.Mutex
	out    bytes.Buffer
	wanted *regexp.Regexp
	said   chan struct{} // closed when a line matched wanted
	ended  chan struct{}
}

// Write implements io.Writer for both streams.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.Write(b)
	if p.wanted != nil && p.wanted.Match(p.out.Bytes()) {
		p.wanted = nil
		close(p.said)
	}
	return len(b), nil
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// patience is for a machine that has much else to do; nothing waits so long
// unless it is broken.
const patience = time.Minute

// background starts a command and goes on as soon as it has said something:
//
//	background NAME PATTERN command [args…]
func background(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: background NAME PATTERN command [args…]")
	}
	p := &process{cmd: command(ts, args[2:]), wanted: regexp.MustCompile(args[1]), said: make(chan struct{}), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	ts.Check(p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // end looks at how it ended
		close(p.ended)
	}()
	ts.Defer(func() {
		_ = p.cmd.Process.Kill() // where the script did not come to its end
		<-p.ended
	})
	ts.Value(started{}).(map[string]*process)[args[0]] = p
	select {
	case <-p.said:
	case <-p.ended:
		ts.Fatalf("%s ended (%s) before it said %q:\n%s", args[0], p.cmd.ProcessState, args[1], p.text())
	case <-time.After(patience):
		ts.Fatalf("%s did not say %q:\n%s", args[0], args[1], p.text())
	}
}

// end asks a command in the background to terminate, waits for it, demands exit
// status 0, and makes what it wrote the script's stdout.
func end(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: end NAME")
	}
	p := ts.Value(started{}).(map[string]*process)[args[0]]
	if p == nil {
		ts.Fatalf("there is no %s in the background", args[0])
	}
	ts.Check(p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.ended:
	case <-time.After(patience):
		ts.Fatalf("%s does not end:\n%s", args[0], p.text())
	}
	fmt.Fprint(ts.Stdout(), p.text())
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		ts.Fatalf("%s ended with %s:\n%s", args[0], p.cmd.ProcessState, p.text())
	}
}

// terminal runs a command whose output is a terminal (pty(7)), and makes what it
// wrote the script's stdout.
func terminal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: terminal command [args…]")
	}
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	ts.Check(err)
	defer ours.Close()
	ts.Check(unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetUint32(int(ours.Fd()), unix.TIOCGPTN)
	ts.Check(err)
	theirs, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	ts.Check(err)
	var out bytes.Buffer
	read := make(chan struct{})
	go func() {
		_, _ = io.Copy(&out, ours) // ends with EIO when nobody has the other side open
		close(read)
	}()
	cmd := command(ts, args)
	cmd.Stdout = theirs
	err = cmd.Run()
	ts.Check(errors.Join(err, theirs.Close()))
	<-read
	fmt.Fprint(ts.Stdout(), strings.ReplaceAll(out.String(), "\r\n", "\n"))
}
