package sshrun_test

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"fettle/internal/fleet/fanout"
	"fettle/internal/fleet/fanout/sshrun"
)

// sshd is a real one (Debian's openssh-server) on the loopback, with keys of its
// own, and a home folder for the person that connects.
type sshd struct {
	home    string // with .ssh/id_ed25519 and .ssh/known_hosts
	port    int
	hostKey ssh.PublicKey
	person  sshrun.Person
	process *os.Process
}

// newKey writes a private key and its public half, as ssh-keygen does.
func newKey(t *testing.T, name, passphrase string) ssh.PublicKey {
	t.Helper()
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(private, "test")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "test", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	write(t, name, string(pem.EncodeToMemory(block)))
	write(t, name+".pub", string(ssh.MarshalAuthorizedKey(key)))
	return key
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func startSSHD(t *testing.T, more string) *sshd {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if me.Uid == "0" { // sshd wants its folder, which Debian makes when the service starts
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	d := &sshd{home: filepath.Join(dir, "home"), port: freePort(t)}
	d.person = sshrun.Person{User: me.Username, Home: d.home}
	key := newKey(t, filepath.Join(d.home, ".ssh", "id_ed25519"), "")
	d.hostKey = newKey(t, filepath.Join(dir, "host_key"), "")
	write(t, filepath.Join(dir, "authorized_keys"), string(ssh.MarshalAuthorizedKey(key)))
	// SHLVL: bash reads the .bashrc of whoever runs the tests only in an outermost shell.
	write(t, filepath.Join(dir, "sshd_config"), fmt.Sprintf(`ListenAddress 127.0.0.1
Port %d
HostKey %s/host_key
AuthorizedKeysFile %s/authorized_keys
PidFile none
UsePAM no
SetEnv SHLVL=1
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
LogLevel VERBOSE
%s
`, d.port, dir, dir, more))
	d.know(t)

	cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(dir, "sshd_config"))
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start sshd (Debian's openssh-server): %v", err)
	}
	d.process = cmd.Process
	listening := make(chan bool, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if strings.Contains(lines.Text(), "Server listening") {
				listening <- true
			}
		}
		close(listening)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		<-read
	})
	if !<-listening {
		t.Fatal("sshd ended before it listened")
	}
	return d
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// know makes the person know the host key for some addresses.
func (d *sshd) know(t *testing.T, addresses ...string) {
	t.Helper()
	addresses = append(addresses, net.JoinHostPort("127.0.0.1", strconv.Itoa(d.port)))
	write(t, filepath.Join(d.home, ".ssh", "known_hosts"), knownhosts.Line(addresses, d.hostKey)+"\n")
}

// config writes the person's ssh configuration; %d in it is the port.
func (d *sshd) config(t *testing.T, text string) *sshrun.Config {
	t.Helper()
	name := filepath.Join(d.home, ".ssh", "config")
	write(t, name, strings.ReplaceAll(text, "%PORT", strconv.Itoa(d.port))+"\nGlobalKnownHostsFile none\n")
	c, err := sshrun.ReadConfig(d.home, name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// here is the configuration with which every name is this sshd.
const here = "Host *\n HostName 127.0.0.1\n Port %PORT\n"

// said is what came of a run.
type said struct {
	results map[string]fanout.Result
	out     map[string]string // "host stream"
	quiet   map[string]bool
	sum     fanout.Summary
}

func runOn(t *testing.T, r *sshrun.Runner, o fanout.Options, hosts []fanout.Host, argv ...string) said {
	t.Helper()
	s := said{results: map[string]fanout.Result{}, out: map[string]string{}, quiet: map[string]bool{}}
	s.sum = fanout.Run(t.Context(), hosts, fanout.Command{Argv: argv}, o, r, func(e fanout.Event) {
		switch e.Kind {
		case fanout.Output:
			s.out[e.Host+" "+string(e.Stream)] += string(e.Data)
		case fanout.Quiet:
			s.quiet[e.Host] = true
		case fanout.Ended:
			s.results[e.Host] = e.Result
		case fanout.Answers, fanout.Clipped:
		}
	})
	return s
}

func named(names ...string) []fanout.Host {
	var out []fanout.Host
	for _, n := range names {
		out = append(out, fanout.Host{Name: n})
	}
	return out
}
