package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/fanout"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/warrant"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
	"fettle/internal/machine/linuxmachine"
)

// kept is what was recorded of a person.
type kept struct{ kind, text, data string }

// Record lets the brain keep what people do.
func (b *brain) Record(_ context.Context, kind, text string, data any) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept = append(b.kept, kept{kind, text, string(raw)})
	return nil
}

func (b *brain) recorded() []kept {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]kept(nil), b.kept...)
}

// everybody lets everybody run everything as the account of this process.
const everybody = "allow:\n  - {roles: [operator], any: true, as: %s}\n"

// realCommands gives an agent the programs of this machine, and a list of who may
// run what; "" is no list.
func realCommands(t testing.TB, list string) func(*agent.Options) {
	t.Helper()
	dir := t.TempDir()
	h, err := linuxmachine.Open(t.Context(), linuxmachine.Config{Host: "x", StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return func(o *agent.Options) {
		o.Machine.Commands = h.Ports().Commands
		o.RunFile = filepath.Join(dir, "run.yaml")
		if list != "" {
			writeRunFile(t, o.RunFile, list)
		}
	}
}

func writeRunFile(t testing.TB, name, list string) {
	t.Helper()
	if strings.Contains(list, "%s") {
		list = fmt.Sprintf(list, account(t))
	}
	if err := os.WriteFile(name, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
}

// account is that of this process.
func account(t testing.TB) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

// runner is a box that runs commands.
func (f *fleet) runner(list string) *box {
	f.t.Helper()
	id, dir := f.join("box")
	b := &box{f: f, id: id, dir: dir, state: filepath.Join(f.t.TempDir(), "state"), host: id.Name.Host(), toy: newToy("main")}
	from := f.brain.mark()
	b.start(realCommands(f.t, list))
	b.connected(from, true)
	return b
}

// ran is what a caller was told.
type ran struct {
	hosts   []string
	out     map[string]string // "host stream"
	results map[string]fanout.Result
	sum     *fanout.Summary
	err     error
}

// run calls RunSigned, as a person does, and reads to its end; what cannot be signed it
// has run as a person of an older version would. See is called with each event.
func run(ctx context.Context, api wire.AdminServiceClient, r *wire.RunRequest, see func(*wire.RunEvent)) ran {
	got := ran{out: map[string]string{}, results: map[string]fanout.Result{}}
	var stream interface {
		Recv() (*wire.RunResponse, error)
	}
	sign := func(*wire.RunSign) error { return errors.New("what is not signed is to be signed") }
	who, ok := api.(*person)
	body, err := warrant.Program{Argv: r.GetArgv(), Timeout: time.Duration(r.GetTimeoutNs())}.Body()
	if ok && err == nil {
		stream, sign, err = who.begin(ctx, r, body)
	} else {
		stream, err = api.Run(ctx, r)
	}
	for err == nil {
		var m *wire.RunResponse
		if m, err = stream.Recv(); err != nil {
			break
		}
		switch w := m.GetWhat().(type) {
		case *wire.RunResponse_Sign:
			err = sign(w.Sign)
		case *wire.RunResponse_Hosts:
			got.hosts = w.Hosts.GetNames()
		case *wire.RunResponse_Event:
			e := w.Event
			got.out[e.GetHost()+" "+e.GetStream()] += string(e.GetData())
			if e.GetKind() == string(fanout.Ended) {
				var result fanout.Result
				if err := json.Unmarshal(e.GetResult(), &result); err != nil {
					return ran{err: err}
				}
				got.results[e.GetHost()] = result
			}
			if see != nil {
				see(e)
			}
		case *wire.RunResponse_Summary:
			got.sum = &fanout.Summary{}
			if err := json.Unmarshal(w.Summary, got.sum); err != nil {
				return ran{err: err}
			}
		}
	}
	if !errors.Is(err, io.EOF) {
		got.err = err
	}
	return got
}

// begin begins a run that the person signs.
func (p *person) begin(ctx context.Context, r *wire.RunRequest, body []byte) (wire.AdminService_RunSignedClient, func(*wire.RunSign) error, error) {
	stream, err := p.RunSigned(ctx)
	if err != nil {
		return nil, nil, err
	}
	asked := proto.CloneOf(r)
	asked.Argv = nil
	run := pki.MintID()
	// What goes wrong with sending is told where one receives.
	_ = stream.Send(&wire.RunSignedRequest{What: &wire.RunSignedRequest_Begin{Begin: &wire.RunBegin{Run: asked, Program: body, Id: run}}})
	return stream, func(w *wire.RunSign) error {
		s, err := warrant.SignRun(warrant.Run{Fleet: p.id.Name.Fleet, Run: run, Host: fettle.Subject(w.GetHost()), Name: w.GetHost(), Nonce: w.GetNonce(), Within: time.Minute, Body: warrant.HashOf(body)}, p.id)
		if err != nil {
			return err
		}
		_ = stream.Send(&wire.RunSignedRequest{What: &wire.RunSignedRequest_Signature{Signature: &wire.RunSignature{
			Host: w.GetHost(), Signed: &wire.SignedCommand{Note: s.Note, Certificate: s.Certificate}}}})
		return nil
	}, nil
}

func argv(words ...string) *wire.RunRequest {
	return &wire.RunRequest{Hosts: "*", Argv: words, By: "ann's shell"}
}

// TestRun: a command runs once, with its streams and its end, and is in the log
// before it begins and when it has ended, without its secrets.
func TestRun(t *testing.T) {
	f := newFleet(t)
	f.runner(everybody)
	file := filepath.Join(t.TempDir(), "ran")
	var begun []kept
	got := run(t.Context(), f.admin(pki.RoleOperator), argv("sh", "-c", `echo "$0"; echo err >&2; echo x >>"$1"; until [ -e "$1.seen" ]; do sleep 0.01; done; exit 3`, "--password=hunter2", file), func(*wire.RunEvent) {
		if begun == nil {
			begun = f.brain.recorded()
			if err := os.WriteFile(file+".seen", nil, 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	if got.err != nil || got.sum == nil {
		t.Fatalf("%+v", got)
	}
	name := got.hosts[0]
	if r := got.results[name]; r.Outcome != fanout.Failed || r.Exit != 3 || got.out[name+" stdout"] != "--password=hunter2\n" || got.out[name+" stderr"] != "err\n" {
		t.Errorf("%+v %q", r, got.out)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "x\n" {
		t.Errorf("it ran %d times (%v)", strings.Count(string(text), "x"), err)
	}
	if len(begun) != 1 || begun[0].kind != "run" || !strings.HasPrefix(begun[0].text, "ann (ann's shell): runs [") || strings.Contains(begun[0].text+begun[0].data, "hunter2") {
		t.Errorf("before it began the log had %q", begun)
	}
	after := f.brain.recorded()
	if len(after) != 2 || !strings.Contains(after[1].text, "1 failed") || strings.Contains(after[1].text+after[1].data, "hunter2") {
		t.Errorf("when it had ended the log had %q", after)
	}
	if got := run(t.Context(), f.admin(pki.RoleOperator), argv("sh", "-c", "kill -TERM $$"), nil); got.results[name].Outcome != fanout.Signalled || got.results[name].Signal != "TERM" {
		t.Errorf("%+v", got)
	}
	// More than any window holds, and cut where it was asked for.
	r := argv("sh", "-c", "yes | head -c 3000000; echo over >&2")
	r.Limit = 200_000
	if got := run(t.Context(), f.admin(pki.RoleOperator), r, nil); got.results[name].Outcome != fanout.Succeeded || len(got.out[name+" stdout"]) != 200_000 || !got.results[name].Clipped {
		t.Errorf("%d bytes, %+v", len(got.out[name+" stdout"]), got.results)
	}
	// Only which hosts it would be: nothing runs, nothing is recorded.
	if got := run(t.Context(), f.admin(pki.RoleOperator), &wire.RunRequest{Hosts: "*"}, nil); got.err != nil || len(got.hosts) != 1 || len(f.brain.recorded()) != 6 {
		t.Errorf("%+v, %d in the log", got, len(f.brain.recorded()))
	}
}

// TestRunRefused: without a list that lets this person run this command, on a host
// that is frozen, or by somebody without the role, nothing runs.
func TestRunRefused(t *testing.T) {
	f := newFleet(t)
	b := f.runner("")
	list := ""
	for _, c := range []struct {
		name, list string
		mode       os.FileMode
		role       pki.Role
		argv       []string
		want       string
	}{
		{"no list", "", 0, pki.RoleAdmin, []string{"true"}, "runs no commands of people: there is no"},
		{"an empty list", "\n", 0o600, pki.RoleAdmin, []string{"true"}, "of no use"},
		{"a broken list", "allow:\n  - {any: true, as: root}\n", 0o600, pki.RoleAdmin, []string{"true"}, "does not say who"},
		{"a list others can write", everybody, 0o622, pki.RoleAdmin, []string{"true"}, "can be written by others"},
		{"another role", "allow:\n  - {roles: [admin], any: true, as: %s}\n", 0o600, pki.RoleOperator, []string{"true"}, "does not let ann (operator) run this"},
		{"another person", "allow:\n  - {people: [bob], any: true, as: %s}\n", 0o600, pki.RoleAdmin, []string{"true"}, "does not let ann"},
		{"another command", "allow:\n  - {people: [ann], commands: [[uptime], [ls, -l]], as: %s}\n", 0o600, pki.RoleAdmin, []string{"ls", "/"}, "does not let ann"},
		{"less than the words", "allow:\n  - {people: [ann], commands: [[ls, -l]], as: %s}\n", 0o600, pki.RoleAdmin, []string{"ls"}, "does not let ann"},
		{"no such account", "allow:\n  - {people: [ann], any: true, as: no-such-account-x}\n", 0o600, pki.RoleAdmin, []string{"true"}, "there is no user"},
		{"no such program", everybody, 0o600, pki.RoleAdmin, []string{"no-such-program-x"}, "not found"},
	} {
		from := f.brain.mark()
		b.stop()
		b.connected(from, false)
		list = filepath.Join(t.TempDir(), "run.yaml")
		from = f.brain.mark()
		b.start(realCommands(t, ""), func(o *agent.Options) { o.RunFile = list })
		b.connected(from, true)
		if c.mode != 0 {
			writeRunFile(t, list, c.list)
			if err := os.Chmod(list, c.mode); err != nil {
				t.Fatal(err)
			}
		}
		got := run(t.Context(), f.admin(c.role), argv(c.argv...), nil)
		for _, r := range got.results {
			if r.Outcome != fanout.Refused || r.Began || !strings.Contains(r.Why, c.want) {
				t.Errorf("%s: %+v, want %q", c.name, r, c.want)
			}
		}
		if got.err != nil || len(got.results) != 1 || got.sum.Exit() != 1 {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	before := len(f.brain.recorded())
	if got := run(t.Context(), f.admin(pki.RoleViewer), argv("true"), nil); status.Code(got.err) != codes.PermissionDenied {
		t.Errorf("a viewer: %v", got.err)
	}
	for _, bad := range []*wire.RunRequest{
		{Argv: []string{"true"}}, {Hosts: "no-such-host", Argv: []string{"true"}}, {Hosts: "*", Argv: []string{"a\x00b"}}, {Hosts: "*", Argv: []string{"true"}, Batch: "x"},
		{Hosts: "*", Argv: []string{strings.Repeat("x", 300<<10)}}, {Hosts: "*", Argv: []string{"true"}, Parallel: -1},
	} {
		if got := run(t.Context(), f.admin(pki.RoleAdmin), bad, nil); status.Code(got.err) != codes.InvalidArgument {
			t.Errorf("%.60s: %v", bad, got.err)
		}
	}
	if n := len(f.brain.recorded()); n != before {
		t.Errorf("%d more entries in the log for what was not begun", n-before)
	}
}

// TestRunFrozen: a frozen fleet runs nothing, and neither does a host that is
// frozen by itself.
func TestRunFrozen(t *testing.T) {
	f := newFleet(t)
	b := f.runner(everybody)
	if err := agent.Freeze(b.state, "being looked at"); err != nil {
		t.Fatal(err)
	}
	got := run(t.Context(), f.admin(pki.RoleAdmin), argv("true"), nil)
	for _, r := range got.results {
		if r.Outcome != fanout.Refused || !strings.Contains(r.Why, "this host is frozen: being looked at") {
			t.Errorf("%+v", r)
		}
	}
	if err := agent.Thaw(b.state); err != nil {
		t.Fatal(err)
	}
	if got := run(t.Context(), f.admin(pki.RoleAdmin), argv("true"), nil); got.sum == nil || got.sum.Exit() != 0 {
		t.Errorf("thawed: %+v", got)
	}
	f.brain.Feed(incident.Input{Freeze: &guard.Freeze{By: "bob", Why: "migration"}})
	before := len(f.brain.recorded())
	if got := run(t.Context(), f.admin(pki.RoleAdmin), argv("true"), nil); status.Code(got.err) != codes.FailedPrecondition || !strings.Contains(got.err.Error(), "frozen by bob: migration") {
		t.Errorf("%+v", got)
	}
	if n := len(f.brain.recorded()); n != before {
		t.Error("what was refused was recorded as begun")
	}
}

// TestRunAgentLost: an agent that is gone in mid-command leaves "cannot tell", the
// command is ended with it, and nobody gets it again when it is back.
func TestRunAgentLost(t *testing.T) {
	f := newFleet(t)
	b := f.runner(everybody)
	file := filepath.Join(t.TempDir(), "ran")
	var pid int
	got := run(t.Context(), f.admin(pki.RoleAdmin), argv("sh", "-c", `echo x >>"$0"; echo $$; exec sleep 300`, file), func(e *wire.RunEvent) {
		if e.GetKind() == string(fanout.Output) {
			if _, err := fmt.Sscan(string(e.GetData()), &pid); err != nil {
				t.Error(err)
			}
			b.stop()
		}
	})
	if got.sum == nil || got.sum.Exit() != 2 || len(got.results) != 1 {
		t.Fatalf("%+v", got)
	}
	for _, r := range got.results {
		if r.Outcome != fanout.Lost || !r.Began || r.Hint == "" {
			t.Errorf("%+v", r)
		}
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the command goes on without its agent: %v", err)
	}
	if got := run(t.Context(), f.admin(pki.RoleAdmin), argv("true"), nil); got.sum.Counts[fanout.Unreachable] != 1 {
		t.Errorf("without an agent: %+v", got)
	}
	from := f.brain.mark()
	b.start(realCommands(t, everybody))
	b.connected(from, true)
	if got := run(t.Context(), f.admin(pki.RoleAdmin), argv("true"), nil); got.sum.Exit() != 0 {
		t.Errorf("back again: %+v", got)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "x\n" {
		t.Errorf("it ran %d times (%v)", strings.Count(string(text), "x"), err)
	}
}

// TestRunCutOff: whoever hangs up, or sets an end, has the command's whole group
// of processes ended.
func TestRunCutOff(t *testing.T) {
	f := newFleet(t)
	f.runner(everybody)
	words := []string{"sh", "-c", "sleep 300 & echo $!; wait"}
	pidOf := func(pid *int, then func()) func(*wire.RunEvent) {
		return func(e *wire.RunEvent) {
			if e.GetKind() == string(fanout.Output) {
				if _, err := fmt.Sscan(string(e.GetData()), pid); err != nil {
					t.Error(err)
				}
				then()
			}
		}
	}
	var first, second int
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if got := run(ctx, f.admin(pki.RoleAdmin), argv(words...), pidOf(&first, cancel)); status.Code(got.err) != codes.Canceled {
		t.Errorf("%+v", got)
	}
	r := argv(words...)
	r.TimeoutNs = int64(time.Second)
	got := run(t.Context(), f.admin(pki.RoleAdmin), r, pidOf(&second, func() {}))
	if got.sum == nil || got.sum.Counts[fanout.Cut] != 1 || got.sum.Exit() != 2 {
		t.Errorf("%+v", got)
	}
	for _, pid := range []int{first, second} {
		gone(t, pid)
	}
	// Also of the caller who hung up it is recorded how it ended.
	late := time.After(patience)
	for len(f.brain.recorded()) < 4 {
		select {
		case <-time.After(time.Millisecond):
		case <-late:
			t.Fatalf("the log has %q", f.brain.recorded())
		}
	}
}

// gone waits until a process has ended.
func gone(t *testing.T, pid int) {
	t.Helper()
	late := time.After(patience)
	for pid > 0 {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(text), ") Z ") {
			return
		}
		select {
		case <-time.After(time.Millisecond):
		case <-late:
			t.Fatalf("process %d goes on", pid)
		}
	}
	t.Error("the command said no process")
}

// TestRunUnrecorded: where what people do cannot be recorded, nothing is run. That the
// store is full is no want of contact, and not to be tried again.
func TestRunUnrecorded(t *testing.T) {
	for _, c := range []struct {
		err  error
		code codes.Code
	}{
		{errors.New("the store does not answer"), codes.Unavailable},
		{fmt.Errorf("record run: %w", loop.ErrFull), codes.ResourceExhausted},
	} {
		f := newFleet(t)
		f.stop()
		s, err := server.New(f.options)
		if err != nil {
			t.Fatal(err)
		}
		f.run(s, deaf{f.brain, c.err}, "")
		f.runner(everybody)
		got := run(t.Context(), f.admin(pki.RoleAdmin), argv("true"), nil)
		if status.Code(got.err) != c.code || !strings.Contains(got.err.Error(), "nothing was run") || len(got.results) != 0 {
			t.Errorf("%v: %+v", c.err, got)
		}
	}
}

// deaf is a brain that cannot keep anything.
type deaf struct {
	*brain
	why error
}

func (d deaf) Record(context.Context, string, string, any) error { return d.why }

// TestRunHostileAgent: an agent of a version without commands is refused one; one
// that takes it and hangs is named in time and given up as hung; one that says more
// than it may loses its session, and the caller is told that it cannot be told.
func TestRunHostileAgent(t *testing.T) {
	f := newFleet(t)
	for _, c := range []struct {
		name    string
		knows   bool
		answer  func(id uint64) []*wire.SessionRequest
		outcome fanout.Outcome
		quiet   bool
	}{
		{"old", false, nil, fanout.Refused, false},
		{"hangs", true, func(uint64) []*wire.SessionRequest { return nil }, fanout.Hung, true},
		{"lies", true, func(id uint64) []*wire.SessionRequest {
			end := &wire.CommandEnd{Id: id, Refused: strings.Repeat("no ", 1000)}
			return []*wire.SessionRequest{{What: &wire.SessionRequest_CommandEnd{CommandEnd: end}}, {What: &wire.SessionRequest_CommandEnd{CommandEnd: end}},
				{What: &wire.SessionRequest_CommandEnd{CommandEnd: &wire.CommandEnd{Id: id + 1000}}}}
		}, fanout.Refused, false},
		{"floods", true, func(id uint64) []*wire.SessionRequest {
			var out []*wire.SessionRequest
			for range 5000 { // nothing asked for so much
				out = append(out, &wire.SessionRequest{What: &wire.SessionRequest_CommandOutput{CommandOutput: &wire.CommandOutput{Id: id, Data: []byte("x")}}})
			}
			return out
		}, fanout.Lost, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, _ := f.join(c.name)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stream, err := f.session(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			first := hello(id.Name.Host())
			first.GetHello().Commands, first.GetHello().Label = c.knows, c.name
			from := f.brain.mark()
			if err := stream.Send(first); err != nil {
				t.Fatal(err)
			}
			f.brain.await(t, from, "it is connected", func(o fettle.Observation) bool {
				is, _ := o.Facts.Bool("connected")
				return o.Subject == id.Name.Host() && is
			})
			over := make(chan struct{})
			go func() {
				defer close(over)
				for {
					m, err := stream.Recv()
					if err != nil {
						return
					}
					switch w := m.GetWhat().(type) {
					case *wire.SessionResponse_Ping:
						_ = stream.Send(&wire.SessionRequest{What: &wire.SessionRequest_Pong{Pong: &wire.Pong{Id: w.Ping.GetId()}}})
					case *wire.SessionResponse_Command:
						for _, a := range c.answer(w.Command.GetId()) {
							if stream.Send(a) != nil {
								return
							}
						}
					}
				}
			}()
			quiet := false
			r := argv("true")
			r.Hosts, r.SilenceNs, r.Limit = c.name, int64(1500*time.Millisecond), 100
			got := run(t.Context(), f.admin(pki.RoleAdmin), r, func(e *wire.RunEvent) {
				quiet = quiet || e.GetKind() == string(fanout.Quiet)
			})
			if res := got.results[c.name]; res.Outcome != c.outcome || quiet != c.quiet || len(res.Why) > 1200 {
				t.Errorf("%+v, named %v", got, quiet)
			}
			cancel()
			<-over
		})
	}
}
