package executor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
	"fettle/internal/fleet/wire"
	"fettle/internal/machine"
)

// programs is a machine's Commands port: it counts, and does what a test says.
type programs struct {
	ran  atomic.Int32
	does func(ctx context.Context, c machine.Command) (machine.Output, error)
}

func (p *programs) Run(ctx context.Context, c machine.Command) (machine.Output, error) {
	p.ran.Add(1)
	if p.does == nil {
		return machine.Output{}, nil
	}
	return p.does(ctx, c)
}

// running is an executor on whose host operators may run things.
func (f *fleet) running(p *programs, change ...func(*executor.Options)) *host {
	f.t.Helper()
	list := filepath.Join(f.t.TempDir(), "run.yaml")
	if err := os.WriteFile(list, []byte("allow:\n  - {roles: [operator], commands: [[note]], as: me}\n"), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return f.open(f.t.TempDir(), append([]func(*executor.Options){func(o *executor.Options) {
		o.Commands, o.RunFile, o.Name = p, list, "web1"
	}}, change...)...)
}

// word is what an operator says of a program, for this host and from now.
func (h *host) word(body []byte) warrant.Run {
	h.t.Helper()
	p, err := h.ex.Pulse(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return warrant.Run{Fleet: h.ca.Fleet(), Run: pki.MintID(), Host: "host:h1", Name: "web1", Nonce: p.Nonce, Within: 10 * time.Second, Body: warrant.HashOf(body)}
}

func (f *fleet) program(words ...string) []byte {
	f.t.Helper()
	body, err := warrant.Program{Argv: words}.Body()
	if err != nil {
		f.t.Fatal(err)
	}
	return body
}

func (f *fleet) said(w warrant.Run, by *pki.Identity) *warrant.Signed {
	f.t.Helper()
	s, err := warrant.SignRun(w, by)
	if err != nil {
		f.t.Fatal(err)
	}
	return &s
}

// command is one that is run.
func (h *host) command(words ...string) executor.Command {
	h.t.Helper()
	body := h.program(words...)
	return executor.Command{Body: body, Signed: h.said(h.word(body), h.operator), Limit: 1 << 20}
}

func nothing(context.Context, executor.Output) error { return nil }

// An attacker who is the agent, or a server, or both, gets nothing run: each attempt
// differs from a command that is run in one thing.
func TestAttackerGetsNothingRun(t *testing.T) {
	f, other := newFleet(t), newFleet(t)
	viewer, err := f.ca.Mint(pki.RoleViewer, "vic", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	// resigned says something else in one line, and signs that.
	resigned := func(change func(*warrant.Run)) func(*host, executor.Command) executor.Command {
		return func(h *host, c executor.Command) executor.Command {
			w := h.word(c.Body)
			change(&w)
			c.Signed = f.said(w, h.operator)
			return c
		}
	}
	// under has what an operator signed under somebody else's certificate.
	under := func(id *pki.Identity) func(*host, executor.Command) executor.Command {
		return func(_ *host, c executor.Command) executor.Command {
			c.Signed.Certificate = id.Certificate()
			return c
		}
	}
	for name, a := range map[string]struct {
		attack func(h *host, c executor.Command) executor.Command
		change func(*executor.Options)
		says   string
	}{
		"not signed": {attack: func(_ *host, c executor.Command) executor.Command {
			c.Signed = nil
			return c
		}, says: "no person has signed"},
		"a viewer's certificate":       {attack: under(viewer), says: "the role operator must sign"},
		"the agent's certificate":      {attack: under(f.compromise), says: "the role operator must sign"},
		"a server's certificate":       {attack: under(f.server), says: "the signed command"},
		"another person's certificate": {attack: under(f.approver), says: "the signed command"},
		"an operator of another fleet": {attack: func(h *host, c executor.Command) executor.Command {
			w := h.word(c.Body)
			w.Fleet = other.ca.Fleet()
			c.Signed = other.said(w, other.operator)
			return c
		}, says: "the signed command"},
		"another program": {attack: func(_ *host, c executor.Command) executor.Command {
			c.Body = f.program("note", "else")
			return c
		}, says: "not what was signed"},
		"a blank more": {attack: func(_ *host, c executor.Command) executor.Command {
			c.Body = append(c.Body, ' ')
			return c
		}, says: "not what was signed"},
		"a changed line": {attack: func(_ *host, c executor.Command) executor.Command {
			c.Signed.Note = bytes.Replace(c.Signed.Note, []byte("within 1"), []byte("within 3"), 1)
			return c
		}, says: "the signed command"},
		"an approval": {attack: func(h *host, c executor.Command) executor.Command {
			now := time.Now().Truncate(time.Second)
			s, err := warrant.SignApproval(warrant.Approval{Fleet: f.ca.Fleet(), Incident: "x", Plan: warrant.HashOf(c.Body), At: now, Until: now, Finish: now}, f.approver)
			if err != nil {
				t.Fatal(err)
			}
			c.Signed = &s
			return c
		}, says: "another version made it"},
		"for another host":                   {attack: resigned(func(w *warrant.Run) { w.Host = "host:h2" }), says: "is for host:h2, and this is host:h1"},
		"a host that the person did not see": {attack: resigned(func(w *warrant.Run) { w.Name = "web2" }), says: `shown "web2"`},
		"a nonce of its own making":          {attack: resigned(func(w *warrant.Run) { w.Nonce = "zzzzzzzzzz.00000000000000000000000000000000" }), says: "another host"},
		"a nonce of another host": {attack: func(h *host, c executor.Command) executor.Command {
			w := f.running(&programs{}).word(c.Body)
			c.Signed = f.said(w, h.operator)
			return c
		}, says: "another host"},
		"kept for too long": {attack: func(h *host, c executor.Command) executor.Command {
			h.clock.pass(11*time.Second, 0)
			return c
		}, says: "its deadline passed"},
		"kept for much too long": {attack: func(h *host, c executor.Command) executor.Command {
			w := h.word(c.Body)
			w.Within = 100 * time.Hour
			c.Signed = f.said(w, h.operator)
			h.clock.pass(2*time.Minute, 0)
			return c
		}, says: "its nonce is"},
		"after the certificate's end": {attack: func(h *host, c executor.Command) executor.Command {
			h.clock.pass(0, 25*time.Hour)
			return c
		}, says: "expired"},
		"again": {attack: func(h *host, c executor.Command) executor.Command {
			if end, err := h.ex.Run(t.Context(), c, nothing); err != nil || end.Refused != "" {
				t.Fatal(end, err)
			}
			return c
		}, says: "was run on this host already"},
		"a word of a newer version": {attack: func(h *host, _ executor.Command) executor.Command {
			body := []byte(`{"schema":1,"argv":["note"],"dir":"/srv"}`)
			return executor.Command{Body: body, Signed: f.said(h.word(body), h.operator)}
		}, says: "cannot be read"},
		"what the list does not have": {attack: func(h *host, _ executor.Command) executor.Command { return h.command("reboot") }, says: "does not let h1 (operator) run this"},
		"no list":                     {change: func(o *executor.Options) { o.RunFile += ".no" }, says: "runs no commands of people"},
		"a list that others can write": {change: func(o *executor.Options) {
			if err := os.Chmod(o.RunFile, 0o666); err != nil {
				t.Fatal(err)
			}
		}, says: "can be written by others"},
		"no programs at all": {change: func(o *executor.Options) { o.Commands = nil }, says: "runs no commands of people"},
		"a frozen host": {attack: func(h *host, c executor.Command) executor.Command {
			if err := executor.Freeze(h.dir, "being looked at"); err != nil {
				t.Fatal(err)
			}
			return c
		}, says: "this host is frozen: being looked at"},
		"a frozen fleet": {attack: func(h *host, c executor.Command) executor.Command {
			yes := true
			if err := h.ex.Told(t.Context(), executor.Word{FleetFrozen: &yes}); err != nil {
				t.Fatal(err)
			}
			return c
		}, says: "the fleet is frozen"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &programs{}
			h := f.running(p, func(o *executor.Options) {
				if a.change != nil {
					a.change(o)
				}
			})
			c := h.command("note")
			if a.attack != nil {
				c = a.attack(h, c)
			}
			before := p.ran.Load()
			end, err := h.ex.Run(t.Context(), c, nothing)
			if err != nil || !strings.Contains(end.Refused, a.says) || p.ran.Load() != before {
				t.Errorf("%+v, %v; it ran %d times; want %q", end, err, p.ran.Load()-before, a.says)
			}
		})
	}
	p := &programs{}
	h := f.running(p)
	if end, err := h.ex.Run(t.Context(), h.command("note"), nothing); err != nil || end != (executor.Ending{}) || p.ran.Load() != 1 {
		t.Errorf("what nothing is wrong with: %+v, %v", end, err)
	}
}

// What was signed for an executor is not believed by the next one of the same host,
// however the first ended: it runs once, and no journal need say so.
func TestCommandOnceOverRestart(t *testing.T) {
	f := newFleet(t)
	p := &programs{}
	h := f.running(p)
	c, later := h.command("note"), h.command("note")
	if end, err := h.ex.Run(t.Context(), c, nothing); err != nil || end.Refused != "" {
		t.Fatal(end, err)
	}
	h.stop()
	again := f.running(p, func(o *executor.Options) { o.StateDir = h.dir })
	for _, c := range []executor.Command{c, later} {
		if end, err := again.ex.Run(t.Context(), c, nothing); err != nil || !strings.Contains(end.Refused, "before it started anew") {
			t.Errorf("%+v, %v", end, err)
		}
	}
	if n := p.ran.Load(); n != 1 {
		t.Errorf("it ran %d times", n)
	}
}

// While the fleet's authority is being changed, people of both are believed; then only
// those of the one that is left.
func TestCommandOverAuthorities(t *testing.T) {
	f := newFleet(t)
	old, err := pki.NewTrust(f.ca.Fleet(), 0, f.server.Authority())
	if err != nil {
		t.Fatal(err)
	}
	changed := copyOf(t, f.ca)
	words := change(t, changed)
	both, err := old.After(words[:1])
	if err != nil {
		t.Fatal(err)
	}
	after, err := both.After(words[1:])
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := changed.Mint(pki.RoleOperator, "h1", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		trust *pki.Trust
		by    *pki.Identity
		runs  bool
	}{
		{"before", old, f.operator, true}, {"before, under the new one", old, fresh, false},
		{"meanwhile", both, f.operator, true}, {"meanwhile, under the new one", both, fresh, true},
		{"after", after, f.operator, false}, {"after, under the new one", after, fresh, true},
	} {
		p := &programs{}
		h := f.running(p, func(o *executor.Options) { o.Trust = func() *pki.Trust { return c.trust } })
		body := f.program("note")
		end, err := h.ex.Run(t.Context(), executor.Command{Body: body, Signed: f.said(h.word(body), c.by)}, nothing)
		if err != nil || (end.Refused == "") != c.runs || (p.ran.Load() == 1) != c.runs {
			t.Errorf("%s: %+v, %v", c.name, end, err)
		}
	}
}

// Both ways to an executor behave alike.
func eachWay(t *testing.T, does func(t *testing.T, h *host, p *programs, hands executor.Hands)) {
	for _, way := range []string{"in one process", "over the socket"} {
		t.Run(way, func(t *testing.T) {
			p := &programs{}
			h := newFleet(t).running(p)
			var hands executor.Hands = h.ex
			if way != "in one process" {
				path := socketIn(t)
				serve(t, h.ex, path, os.Geteuid())
				hands = client(t, path)
			}
			does(t, h, p, hands)
		})
	}
}

// What it writes comes as it is written, no faster than it is taken, in pieces, and no
// more than is wanted; then its end.
func TestCommandOutput(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host, p *programs, hands executor.Hands) {
		seen := make(chan struct{})
		p.does = func(ctx context.Context, c machine.Command) (machine.Output, error) {
			if c.User != "me" || c.Path != "note" || len(c.Args) != 1 || c.Args[0] != "x" || len(c.Env) != 0 {
				t.Errorf("%+v", c)
			}
			_, err := c.Stderr.Write([]byte("first"))
			select { // it is there while the program still runs
			case <-seen:
			case <-ctx.Done():
				t.Error(ctx.Err())
			}
			_, err2 := c.Stdout.Write(bytes.Repeat([]byte("y"), 3*wire.CommandChunk))
			return machine.Output{Exit: 3}, errors.Join(err, err2)
		}
		c := h.command("note", "x")
		c.Limit = 2*wire.CommandChunk + 5
		var got []string
		total := 0
		end, err := hands.Run(t.Context(), c, func(_ context.Context, o executor.Output) error {
			if total == 0 {
				close(seen)
			}
			total += len(o.Data)
			got = append(got, fmt.Sprint(len(o.Data), o.Stderr))
			return nil
		})
		if err != nil || end != (executor.Ending{Exit: 3}) {
			t.Errorf("%+v, %v", end, err)
		}
		if want := fmt.Sprint([]string{"5 true", "16384 false", "16384 false"}); fmt.Sprint(got) != want {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

// One that is not wanted any more, or whose time is over, is ended before Run returns.
func TestCommandEnds(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host, p *programs, hands executor.Hands) {
		var begun sync.WaitGroup
		var over atomic.Int32
		p.does = func(ctx context.Context, _ machine.Command) (machine.Output, error) {
			begun.Done()
			<-ctx.Done()
			over.Add(1)
			return machine.Output{Exit: -1}, ctx.Err()
		}
		ctx, cancel := context.WithCancel(t.Context())
		begun.Add(1)
		go func() {
			begun.Wait()
			cancel()
		}()
		end, err := hands.Run(ctx, h.command("note"), nothing)
		if err != nil || !strings.Contains(end.Error, "ended before its own end") || over.Load() != 1 {
			t.Errorf("%+v, %v", end, err)
		}
		body, err := warrant.Program{Argv: []string{"note"}, Timeout: time.Millisecond}.Body()
		if err != nil {
			t.Fatal(err)
		}
		begun.Add(1)
		end, err = hands.Run(t.Context(), executor.Command{Body: body, Signed: h.said(h.word(body), h.operator)}, nothing)
		if err != nil || !strings.Contains(end.Error, "its 1ms are over") || over.Load() != 2 {
			t.Errorf("%+v, %v", end, err)
		}
		// Nobody takes what it writes: that does not keep it from its end.
		p.does = func(_ context.Context, c machine.Command) (machine.Output, error) {
			_, err := c.Stdout.Write([]byte("x"))
			over.Add(1)
			return machine.Output{Exit: -1}, err
		}
		ctx, cancel = context.WithCancel(t.Context())
		_, _ = hands.Run(ctx, h.command("note"), func(ctx context.Context, _ executor.Output) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		})
		if over.Load() != 3 {
			t.Error("it is not over")
		}
	})
}

// What an agent has begun ends with its connection, whichever side that ends.
func TestCommandsEndWithConnection(t *testing.T) {
	p := &programs{}
	h := newFleet(t).running(p)
	for _, ends := range []string{"agent", "executor"} {
		begun, over := make(chan struct{}), make(chan struct{})
		p.does = func(ctx context.Context, _ machine.Command) (machine.Output, error) {
			close(begun)
			<-ctx.Done()
			close(over)
			return machine.Output{Exit: -1}, ctx.Err()
		}
		path := socketIn(t)
		stop := serve(t, h.ex, path, os.Geteuid())
		c := client(t, path)
		ran := make(chan error, 1)
		go func() {
			_, err := c.Run(context.Background(), h.command("note"), nothing) // it is not the caller who ends it
			ran <- err
		}()
		<-begun
		if ends == "agent" {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			stop()
		}
		<-over
		if err := <-ran; err == nil {
			t.Errorf("the %s ended, and the command is said to have", ends)
		}
		stop()
	}
}

// How many run at once is bounded, whoever asks; the one too many is refused at once.
func TestTooManyCommands(t *testing.T) {
	const atOnce = 16
	eachWay(t, func(t *testing.T, h *host, p *programs, hands executor.Hands) {
		hold := make(chan struct{})
		var begun, all sync.WaitGroup
		p.does = func(context.Context, machine.Command) (machine.Output, error) {
			begun.Done()
			<-hold
			return machine.Output{}, nil
		}
		for range atOnce {
			begun.Add(1)
			c := h.command("note")
			all.Go(func() {
				if end, err := hands.Run(t.Context(), c, nothing); err != nil || end.Refused != "" {
					t.Errorf("%+v, %v", end, err)
				}
			})
		}
		begun.Wait()
		if end, err := hands.Run(t.Context(), h.command("note"), nothing); err != nil || !strings.Contains(end.Refused, "run on this host already") {
			t.Errorf("%+v, %v", end, err)
		}
		close(hold)
		all.Wait()
		p.does = nil
		if end, err := hands.Run(t.Context(), h.command("note"), nothing); err != nil || end.Refused != "" {
			t.Errorf("then: %+v, %v", end, err)
		}
	})
}
