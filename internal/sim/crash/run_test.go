package crash

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
)

const (
	// patience bounds a run: only one that fails lasts so long.
	patience = 60 * time.Second
	// server0 and lost0 are the server's interval of pings and the time until an
	// agent counts as lost, outside.
	server0, lost0 = time.Second, 3 * time.Second
)

// run is one run of a scenario's fleet.
type run struct {
	s        *scenario
	dir      string
	alone    bool // its agents may work without a server
	death    death
	clock    fastClock
	socket   *os.File // the server's listening socket
	address  string
	ca       *pki.CA
	children map[string]*child
	events   chan event
	readers  sync.WaitGroup

	incidents map[string]standing
	seen      bool // by the present server
	asked     bool // it was asked how it stands, and has not answered
	approved  map[string]bool
	deaths    int
}

// child is a process.
type child struct {
	name   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	stderr *os.File
	life   int
}

// event is what a child said, or its end.
type event struct {
	child *child
	said  said
	ended bool
	err   error
}

// play runs the scenario's fleet in a folder, with a death, to its end, and
// returns how the server thought that everything stood then. All processes are
// dead when it returns.
func (s *scenario) play(ctx context.Context, dir string, d death) (final state, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r := &run{
		s: s, dir: dir, death: d, clock: newFastClock(), children: map[string]*child{}, events: make(chan event),
		incidents: map[string]standing{}, approved: map[string]bool{},
	}
	if err := s.copyTo(dir); err != nil {
		return state{}, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "pids"), 0o700); err != nil {
		return state{}, err
	}
	if r.ca, err = pki.Open(caDir(dir)); err != nil {
		return state{}, err
	}
	if err := r.listen(); err != nil {
		return state{}, err
	}
	defer r.socket.Close()
	defer r.end()
	for _, name := range r.names() {
		if err := r.start(name, d); err != nil {
			return state{}, err
		}
	}
	for {
		select {
		case e := <-r.events:
			final, over, err := r.take(ctx, e)
			if over || err != nil {
				return final, err
			}
		case <-ctx.Done():
			return state{}, fmt.Errorf("not at its end after %v: %s", patience, toJSON(r.incidents))
		}
	}
}

// listen opens the server's socket, which outlives the server: whoever connects
// while it is dead waits.
func (r *run) listen() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	r.address = l.Addr().String()
	r.socket, err = l.(*net.TCPListener).File()
	return err
}

func (r *run) names() []string {
	names := []string{serverName}
	for i := range r.s.acting {
		names = append(names, agentName(i))
	}
	if len(r.s.watch) > 0 {
		names = append(names, "witness")
	}
	return names
}

func agentName(i int) string {
	if i == 0 {
		return "agent"
	}
	return "agent-" + strconv.Itoa(i+1)
}

// start starts a process.
func (r *run) start(name string, d death) error {
	b := brief{Name: name, Dir: r.dir, Address: r.address, Clock: r.clock, Store: r.s.store, Death: d, Alone: r.alone}
	if name == "witness" {
		b.Hosts = r.s.watch
	}
	for i, host := range r.s.acting {
		if name == agentName(i) {
			b.Hosts = []fettle.Subject{host}
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := &child{name: name, cmd: exec.Command(self)}
	if before := r.children[name]; before != nil {
		c.life = before.life + 1
	}
	c.cmd.Env = append(os.Environ(), childEnv+"="+string(toJSON(b)), "GOMAXPROCS=2",
		"GOGC=1000") // it lives a second, and would spend a third of its work on collecting what it leaves anyway
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if c.stderr, err = os.OpenFile(filepath.Join(r.dir, "log-"+name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err != nil {
		return err
	}
	defer c.stderr.Close()
	c.cmd.Stderr = c.stderr
	c.cmd.ExtraFiles = []*os.File{r.socket}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.cmd.Start(); err != nil {
		return err
	}
	r.children[name] = c
	if name == serverName {
		r.seen, r.asked = false, false
		clear(r.approved)
	}
	if err := os.WriteFile(pidFile(r.dir, name), []byte(strconv.Itoa(c.cmd.Process.Pid)), 0o600); err != nil {
		return err
	}
	r.readers.Go(func() { r.read(c, out) })
	return nil
}

// read passes on what a child says, and its end.
func (r *run) read(c *child, out io.Reader) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break // what was cut off was not said
		}
		var s said
		if err := json.Unmarshal(bytes.TrimSpace(line), &s); err != nil {
			r.events <- event{child: c, err: fmt.Errorf("%s said %q: %w", c.name, line, err)}
			continue
		}
		r.events <- event{child: c, said: s}
	}
	r.events <- event{child: c, ended: true, err: c.cmd.Wait()}
}

// end kills everybody and waits for them.
func (r *run) end() {
	for _, c := range r.children {
		_ = c.cmd.Process.Kill() // it may have ended
	}
	done := make(chan struct{})
	go func() { r.readers.Wait(); close(done) }()
	for {
		select {
		case <-r.events:
		case <-done:
			return
		}
	}
}

// take takes an event in; over says that the run is at its end.
func (r *run) take(ctx context.Context, e event) (final state, over bool, err error) {
	if e.ended {
		return state{}, false, r.died(e)
	}
	if e.err != nil {
		return state{}, false, e.err
	}
	if r.children[serverName] != e.child {
		return state{}, false, nil // the last words of one that is dead
	}
	for _, in := range e.said.Records {
		r.incidents[in.ID] = in
		if in.State == fettle.Proposed && !in.Approved {
			if err := r.approve(ctx, in); err != nil {
				return state{}, false, err
			}
		}
	}
	r.seen = r.seen || e.said.Seen
	if e.said.State != nil {
		r.asked = false
		if e.said.State.ended(r.s) && r.ended() { // it may be ahead of what is durable
			return *e.said.State, true, nil
		}
	}
	if r.seen && !r.asked && r.ended() {
		r.asked = true
		if _, err := r.children[serverName].in.Write([]byte("how does it stand?\n")); err != nil {
			r.asked = false // it died; its successor will say that it has seen everything
		}
	}
	return state{}, false, nil
}

// ended reports whether the incident of the scenario has ended, and no other has
// begun, as far as is known to be durable.
func (r *run) ended() bool {
	st := state{}
	for _, in := range r.incidents {
		st.Incidents = append(st.Incidents, in)
	}
	return st.ended(r.s)
}

func (st state) ended(s *scenario) bool {
	mended := false
	for _, in := range st.Incidents {
		mended = mended || in.Runbook == s.runbook && in.State == fettle.Resolved
		if !in.State.Ended() {
			return false
		}
	}
	return mended
}

// died takes in the end of a child: one that was killed is started again and dies
// no more.
func (r *run) died(e event) error {
	status, ok := e.child.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		return fmt.Errorf("%s ended by itself: %w", e.child.name, e.err)
	}
	r.deaths++
	return r.start(e.child.name, death{})
}

// approve answers for a person, through the server's own interface. A server that
// dies over it is asked again when it is back: then the incident still waits.
func (r *run) approve(ctx context.Context, in standing) error {
	if r.approved[in.Plan] {
		return nil
	}
	id, err := r.ca.Mint(pki.RoleApprover, "ann", time.Now(), time.Hour)
	if err != nil {
		return err
	}
	conn, err := wire.Dial(r.address, pki.ClientTLS(func() *pki.Identity { return id }, time.Now))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	answer := toJSON(incident.Answer{Incident: in.ID, Say: incident.SayApprove, Plan: in.Plan})
	if _, err := wire.NewAdminServiceClient(conn).Answer(ctx, &wire.AnswerRequest{Json: answer}); err != nil {
		return nil //nolint:nilerr // the plan changed meanwhile, or the server died: it is proposed again
	}
	r.approved[in.Plan] = true
	return nil
}

// logs is everything that the processes of a run wrote, for a failure.
func logs(dir string) string {
	var b bytes.Buffer
	names, _ := filepath.Glob(filepath.Join(dir, "log-*"))
	slices.Sort(names)
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err == nil && len(data) > 0 {
			fmt.Fprintf(&b, "--- %s\n%s", filepath.Base(name), data)
		}
	}
	return b.String()
}
