//go:build compare

package fanout_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fettle/internal/face/cli"
)

// asFettle makes this test's binary the command line itself.
const asFettle = "BENCH_AS_FETTLE"

func TestMain(m *testing.M) {
	if os.Getenv(asFettle) != "" {
		os.Exit(cli.Main(cli.Setup{Version: "bench"}, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// site is some sshds with names for them.
type site struct {
	dir   string
	sshds []*exec.Cmd
	names []string
}

// newSite starts sshds and gives them names, the same number to each.
func newSite(b *testing.B, sshds, names int) *site {
	b.Helper()
	if os.Geteuid() == 0 { // as Debian does when the service starts
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			b.Fatal(err)
		}
	}
	s := &site{dir: b.TempDir()}
	in := func(name string) string { return filepath.Join(s.dir, name) }
	for _, key := range []string{"host", "me"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", in(key)).CombinedOutput(); err != nil {
			b.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	public, err := os.ReadFile(in("host.pub"))
	if err != nil {
		b.Fatal(err)
	}
	var ports []int
	for range sshds {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-o", "ListenAddress=127.0.0.1", "-o", fmt.Sprint("Port=", port),
			"-o", "HostKey="+in("host"), "-o", "AuthorizedKeysFile="+in("me.pub"), "-o", "PidFile=none", "-o", "UsePAM=no", "-o", "StrictModes=no",
			"-o", "PermitRootLogin=yes", "-o", "MaxStartups=1000", "-o", "LogLevel=INFO")
		log, err := cmd.StderrPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatalf("sshd (Debian's openssh-server): %v", err)
		}
		lines := bufio.NewScanner(log)
		for lines.Scan() && !strings.Contains(lines.Text(), "Server listening") {
		}
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			for lines.Scan() {
			}
		}()
		b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); <-drained })
		s.sshds, ports = append(s.sshds, cmd), append(ports, port)
	}
	var config strings.Builder
	for i := range names {
		name := fmt.Sprintf("h%d", i+1)
		s.names = append(s.names, name)
		fmt.Fprintf(&config, "Host %s\n Port %d\n", name, ports[i%sshds])
	}
	fmt.Fprintf(&config, "Host *\n HostName 127.0.0.1\n HostKeyAlias here\n IdentityFile %s\n IdentitiesOnly yes\n UserKnownHostsFile %s\n LogLevel ERROR\n BatchMode yes\n", in("me"), in("known"))
	for name, text := range map[string]string{"config": config.String(), "known": "here " + string(public)} {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// tools are the commands that run "echo ok" on all hosts.
func (s *site) tools(b *testing.B) map[string]*exec.Cmd {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	config := filepath.Join(s.dir, "config")
	all := strings.Join(s.names, ",")
	with := func(env []string, name string, args ...string) *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), env...)
		return cmd
	}
	return map[string]*exec.Cmd{
		"fettle": with([]string{asFettle + "=1"}, self, "run", "--ssh", "--ssh-config", config, "--hosts", all, "--", "echo", "ok"),
		"pdsh":   with([]string{"PDSH_SSH_ARGS_APPEND=-F " + config}, "pdsh", "-R", "ssh", "-w", all, "echo ok"),
		"clush":  with(nil, "clush", "-o", "-F "+config, "-w", all, "echo ok"),
		"ansible": with([]string{"ANSIBLE_SSH_ARGS=-F " + config, "ANSIBLE_NOCOLOR=1", "ANSIBLE_DEPRECATION_WARNINGS=0", "ANSIBLE_PYTHON_INTERPRETER=/usr/bin/python3", "ANSIBLE_LOCAL_TEMP=" + s.dir},
			"ansible", "-i", all+",", "all", "-o", "-m", "command", "-a", "echo ok"),
	}
}

// measured is one run of a tool.
type measured struct {
	healthy, named, cpu time.Duration
}

// measure runs a tool once. Stopped is the host that does not answer, "" for none.
func measure(b *testing.B, tool *exec.Cmd, healthy int, stopped string) measured {
	b.Helper()
	cmd := exec.Command(tool.Path, tool.Args[1:]...)
	cmd.Env = tool.Env
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	errs, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	var m measured
	var mu sync.Mutex
	var said strings.Builder
	answers := 0
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatalf("%s: %v", tool.Path, err)
	}
	var read sync.WaitGroup
	for _, r := range []*bufio.Scanner{bufio.NewScanner(out), bufio.NewScanner(errs)} {
		read.Go(func() {
			for r.Scan() {
				line, at := r.Text(), time.Since(begin)
				mu.Lock()
				said.WriteString(line + "\n")
				if strings.HasSuffix(strings.TrimSpace(line), " ok") {
					if answers++; answers == healthy {
						m.healthy = at
					}
				} else if stopped != "" && m.named == 0 && strings.Contains(line, stopped) {
					m.named = at
				}
				mu.Unlock()
			}
		})
	}
	read.Wait()
	_ = cmd.Wait() // with a host that is stopped no tool is content
	if answers != healthy {
		b.Fatalf("%s: %d answers instead of %d:\n%s", filepath.Base(tool.Path), answers, healthy, said.String())
	}
	m.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return m
}

func benchmark(b *testing.B, sshds, names int, stop bool) {
	s := newSite(b, sshds, names)
	healthy, stopped := names, ""
	if stop {
		healthy, stopped = names-1, s.names[names-1]
		if err := s.sshds[sshds-1].Process.Signal(syscall.SIGSTOP); err != nil {
			b.Fatal(err)
		}
	}
	tools := s.tools(b)
	for _, name := range []string{"fettle", "pdsh", "clush", "ansible"} {
		b.Run(name, func(b *testing.B) {
			var sum measured
			n := 0
			for b.Loop() {
				m := measure(b, tools[name], healthy, stopped)
				n++
				sum.healthy, sum.named, sum.cpu = sum.healthy+m.healthy, sum.named+m.named, sum.cpu+m.cpu
			}
			ms := func(d time.Duration) float64 { return float64(d.Milliseconds()) / float64(n) }
			b.ReportMetric(ms(sum.healthy), "healthy-ms")
			b.ReportMetric(ms(sum.cpu), "cpu-ms")
			if stop {
				b.ReportMetric(ms(sum.named), "named-ms")
			}
		})
	}
}

func Benchmark5Healthy(b *testing.B)   { benchmark(b, 5, 5, false) }
func Benchmark50Healthy(b *testing.B)  { benchmark(b, 5, 50, false) }
func Benchmark5OneFrozen(b *testing.B) { benchmark(b, 5, 5, true) }
