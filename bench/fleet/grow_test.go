//go:build compare

package fleet_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof" // see profileAt
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/adapter/all"
	"fettle/internal/face/cli"
	"fettle/internal/face/control"
	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/fanout"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
	"fettle/internal/fleet/wire"
	"fettle/runbooks"
)

// asFettle makes this test's binary the command line itself.
const asFettle = "BENCH_AS_FETTLE"

// asAgents makes it a part of the fleet: a server's address, a folder of identities, and
// from which to which (not including the last), between spaces.
const asAgents = "BENCH_AS_AGENTS"

// logTo is a file to which the server's log goes.
const logTo = "FETTLE_BENCH_LOG"

// fleetsIn is a folder in which fleets are kept, to be measured again: to join ten
// thousand machines takes minutes.
const fleetsIn = "FETTLE_BENCH_FLEETS"

// profileAt is an address of the loopback at which the server shows profiles (net/http/pprof).
const profileAt = "FETTLE_BENCH_PPROF"

func TestMain(m *testing.M) {
	if os.Getenv(asFettle) != "" {
		if at := os.Getenv(profileAt); at != "" {
			go func() { _ = http.ListenAndServe(at, nil) }() // until the process ends
		}
		os.Exit(cli.Main(cli.Setup{Version: "bench", Adapters: all.Adapters(), Runbooks: runbooks.FS()}, os.Args[1:]))
	}
	if part := os.Getenv(asAgents); part != "" {
		if err := swarm(strings.Fields(part)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := descriptors(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// bars are what the fleet must do with 10,000 agents and fewer.
const (
	barReturned = time.Minute
	barCommand  = 3 * time.Second
	barMemory   = 96 << 10 // bytes for an agent
)

func TestGrows(t *testing.T) {
	sizes := "100,1000,3000,10000"
	if s := os.Getenv("FETTLE_BENCH_AGENTS"); s != "" {
		sizes = s
	}
	fmt.Println(heading)
	var rows []row
	for _, s := range strings.Split(sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(s, func(t *testing.T) {
			r := grow(t, n)
			rows = append(rows, r)
			fmt.Println(r)
			if os.Getenv("FETTLE_BENCH_BARS") != "" && (r.connected > barReturned || r.returned > barReturned || r.command > barCommand || n >= 1000 && r.each() > barMemory) {
				t.Errorf("with %d agents a bar is not reached: connected and returned within %s, a command within %s, %d KiB for each", n, barReturned, barCommand, barMemory>>10)
			}
		})
	}
	fmt.Println(heading)
	for _, r := range rows {
		fmt.Println(r)
	}
}

const heading = "    agents connected  returned   command    memory KiB/agent peak/agent goroutines  idle cpu   decision alarms load"

// row is what was measured with one number of agents.
type row struct {
	agents                       int
	connected, returned, command time.Duration
	decision                     time.Duration // from a fault on a host to the incident
	empty                        int64         // bytes that the server has in memory without agents
	memory                       resident
	goroutines                   int
	idle                         float64 // of one core
	alarms                       int64
	load                         string
}

// each is what an agent costs in memory, in bytes.
func (r row) each() int64 { return (r.memory.now - r.empty) / int64(r.agents) }

func (r row) String() string {
	kib := func(b int64) float64 { return float64(b) / 1024 }
	return fmt.Sprintf("%10d %9s %9s %9s %5.0f MiB %9.1f %10.1f %10.1f %8.1f%% %10s %6d %s", r.agents, r.connected.Round(time.Millisecond), r.returned.Round(time.Millisecond), r.command.Round(time.Millisecond),
		kib(r.memory.now)/1024, kib(r.each()), kib((r.memory.peak-r.empty)/int64(r.agents)), float64(r.goroutines)/float64(r.agents), 100*r.idle, r.decision.Round(time.Millisecond), r.alarms, r.load)
}

// grow measures one size.
func grow(t *testing.T, n int) row {
	r := row{agents: n}
	empty := newServer(t, t.TempDir())
	empty.start(t)
	r.empty = empty.memory(t).now
	empty.kill(t)

	dir := t.TempDir()
	if in := os.Getenv(fleetsIn); in != "" {
		dir = filepath.Join(in, strconv.Itoa(n))
	}
	srv := newServer(t, dir)
	srv.start(t)
	srv.joinAll(t, n) // before anything is measured
	srv.kill(t)

	// As after an outage of everything: nobody has called yet, and all call at once.
	srv.start(t)
	began := time.Now()
	srv.swarm(t, n)
	srv.connected(t, n)
	r.connected = time.Since(began)

	// As after an outage of the server: all call again and again.
	srv.kill(t)
	srv.start(t)
	began = time.Now()
	srv.connected(t, n)
	r.returned = time.Since(began)

	<-time.After(15 * time.Second) // alarms of those who came late, if there were any, are over
	cpu := srv.cpu(t)
	const idle = 20 * time.Second
	<-time.After(idle) // what is measured: nothing happens
	r.idle = (srv.cpu(t) - cpu).Seconds() / idle.Seconds()
	r.memory = srv.memory(t)
	r.goroutines = srv.goroutines(t)

	for range 3 {
		api, by := srv.person(t)
		if took := runAll(t, api, by, n); r.command == 0 || took < r.command {
			r.command = took
		}
	}
	r.alarms = srv.calls.Load()
	for i := range 3 {
		if took := srv.fault(t, n/2+i); r.decision == 0 || took < r.decision {
			r.decision = took
		}
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		r.load = strings.Fields(string(load))[0]
	}
	return r
}

// connected waits until the server says that all are.
func (p *process) connected(t *testing.T, n int) {
	t.Helper()
	api := p.admin(t)
	last := int32(0)
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for until := time.Now().Add(5 * time.Minute); ; {
		st, err := api.Status(t.Context(), &wire.StatusRequest{})
		if err == nil {
			last = st.GetConnected()
		}
		if int(last) == n {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%d of %d are connected after five minutes (%v)", last, n, err)
		}
		<-look.C
	}
}

// runAll runs a command on all, and says how long that took.
func runAll(t *testing.T, api wire.AdminServiceClient, by *pki.Identity, n int) time.Duration {
	t.Helper()
	body, err := warrant.Program{Argv: []string{"true"}}.Body()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	stream, err := api.RunSigned(t.Context())
	if err == nil {
		err = stream.Send(&wire.RunSignedRequest{What: &wire.RunSignedRequest_Begin{Begin: &wire.RunBegin{
			Run: &wire.RunRequest{Hosts: "*", By: "bench", Parallel: 10_000}, Program: body, Id: "bench"}}})
	}
	if err != nil {
		t.Fatal(err)
	}
	sign := func(w *wire.RunSign) error {
		s, err := warrant.SignRun(warrant.Run{
			Fleet: by.Name.Fleet, Run: "bench", Host: fettle.Subject(w.GetHost()), Name: "bench", Nonce: w.GetNonce(), Within: time.Minute, Body: warrant.HashOf(body),
		}, by)
		if err != nil {
			return err
		}
		return stream.Send(&wire.RunSignedRequest{What: &wire.RunSignedRequest_Signature{Signature: &wire.RunSignature{
			Host: w.GetHost(), Signed: &wire.SignedCommand{Note: s.Note, Certificate: s.Certificate}}}})
	}
	ended := 0
	for ended < n {
		m, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %d results: %v", ended, err)
		}
		if w := m.GetSign(); w != nil {
			if err := sign(w); err != nil {
				t.Fatal(err)
			}
		}
		if m.GetEvent().GetKind() == string(fanout.Ended) {
			ended++
		}
	}
	took := time.Since(began)
	for {
		if _, err := stream.Recv(); err != nil {
			return took
		}
	}
}

// joinAll joins n machines, each with a token of its own, and keeps their identities
// in folders of these numbers.
func (p *process) joinAll(t *testing.T, n int) {
	t.Helper()
	api := p.admin(t)
	next := make(chan int)
	join := func(i int) error {
		where := filepath.Join(p.ids, strconv.Itoa(i))
		if _, err := os.Stat(pki.IdentityFile(where, pki.RoleAgent)); err == nil { // of an earlier time
			return nil
		}
		if err := os.MkdirAll(where, 0o700); err != nil {
			return err
		}
		tok, err := api.JoinToken(t.Context(), &wire.JoinTokenRequest{Address: p.address})
		if err != nil {
			return err
		}
		token, err := pki.ParseToken(tok.GetToken())
		if err != nil {
			return err
		}
		_, err = agent.Join(t.Context(), agent.JoinOptions{Token: token, Dir: where, Label: labelOf(i), Wall: time.Now})
		return err
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range next {
				err := join(i)
				for range 20 { // a machine that is short of everything loses its leader now and then
					if status.Code(err) != codes.Unavailable {
						break
					}
					<-time.After(time.Second)
					err = join(i)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func labelOf(i int) string { return fmt.Sprintf("h%05d", i) }

// process is the server.
type process struct {
	dir     string
	address string
	peer    string
	// profiles is where it shows net/http/pprof.
	profiles string
	cmd      *exec.Cmd
	read     chan struct{} // closed when it has said its last word
	calls    atomic.Int64  // times that it called a person
	ids      string        // the folder of the agents' identities
	faults   []io.Writer   // by agent, where its process is told that a service fails
}

// newServer makes a server, or goes on with the one that is in the folder. It ends with
// the test.
func newServer(t *testing.T, dir string) *process {
	t.Helper()
	p := &process{dir: filepath.Join(dir, "server"), ids: filepath.Join(dir, "agents")}
	for _, d := range []string{p.dir, p.ids} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	places := filepath.Join(dir, "addresses")
	var list []string
	if data, err := os.ReadFile(places); err == nil {
		list = strings.Fields(string(data))
	}
	for len(list) < 3 { // ports that nobody has
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, l.Addr().String())
		defer l.Close() // so that the next one is another
	}
	p.address, p.peer, p.profiles = list[0], list[1], list[2]
	if err := os.WriteFile(places, []byte(strings.Join(list, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	if at := os.Getenv(profileAt); at != "" {
		p.profiles = at
	}
	t.Cleanup(func() { p.kill(t) })
	return p
}

// start starts it, and returns when it leads.
func (p *process) start(t *testing.T) {
	t.Helper()
	p.cmd = exec.Command(os.Args[0], "server", "--dir", p.dir, "--listen", p.address, "--peer", p.peer, "-v")
	p.cmd.Env = append(os.Environ(), asFettle+"=1", profileAt+"="+p.profiles)
	out, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	leads := make(chan struct{})
	p.read = make(chan struct{})
	go func() {
		defer close(p.read)
		led := false
		log := io.Discard
		if name := os.Getenv(logTo); name != "" {
			if f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
				defer f.Close()
				log = f
			}
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			fmt.Fprintln(log, lines.Text())
			if strings.Contains(lines.Text(), "this server leads") && !led {
				led = true
				close(leads)
			}
			if strings.Contains(lines.Text(), "level=ERROR") {
				fmt.Fprintln(os.Stderr, lines.Text())
			}
		}
	}()
	p.calls.Store(0)
	go func() { // ends with the process
		for lines := bufio.NewScanner(said); lines.Scan(); {
			if strings.Contains(lines.Text(), " escalated ") {
				p.calls.Add(1)
			}
		}
	}()
	select {
	case <-leads:
	case <-p.read:
		t.Fatal("the server ended")
	}
}

// kill kills it, if it runs, and waits for its end.
func (p *process) kill(t *testing.T) {
	if p.cmd == nil {
		return
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	<-p.read
	_ = p.cmd.Wait() // it was killed
	p.cmd = nil
}

func (p *process) admin(t *testing.T) wire.AdminServiceClient {
	t.Helper()
	api, _ := p.person(t)
	return api
}

// person is admin, with who that is.
func (p *process) person(t *testing.T) (wire.AdminServiceClient, *pki.Identity) {
	t.Helper()
	id, err := pki.LoadIdentity(control.AdminDir(p.dir), pki.RoleAdmin)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := wire.Dial(p.address, pki.ClientTLS(func() *pki.Identity { return id }, time.Now))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return wire.NewAdminServiceClient(conn), id
}

// resident is what a process has in memory, in bytes (proc_pid_status(5)).
type resident struct{ now, peak int64 }

func (p *process) memory(t *testing.T) resident {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	get := func(name string) int64 {
		_, rest, _ := strings.Cut(string(data), name+":")
		fields := strings.Fields(rest)
		kib, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return kib << 10
	}
	return resident{get("VmRSS"), get("VmHWM")}
}

// cpu is the processor time that a process has used (proc_pid_stat(5)): 100 ticks a second.
func (p *process) cpu(t *testing.T) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	user, err1 := strconv.Atoi(fields[11])
	sys, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return time.Duration(user+sys) * 10 * time.Millisecond
}

// goroutines is how many the server has.
func (p *process) goroutines(t *testing.T) int {
	t.Helper()
	resp, err := http.Get("http://" + p.profiles + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_, number, _ := strings.Cut(strings.TrimSpace(line), "total ")
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// descriptors lets this process, and those that it starts, have as many open files as
// agents need (getrlimit(2)).
func descriptors() error {
	const want = 40_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur >= want {
		return nil
	}
	limit.Cur, limit.Max = want, max(want, limit.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		limit.Cur = limit.Max - 1 // who is not root cannot raise it
		return nil
	}
	return nil
}
