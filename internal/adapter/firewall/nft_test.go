package firewall_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"fettle/internal/adapter/adaptertest"
	"fettle/internal/adapter/firewall"
	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
)

const (
	file   = "/etc/nftables.conf"
	canary = "correct-horse-battery"
)

// persisted is the file of the tests. Its comment has the planted secret.
const persisted = `#!/usr/sbin/nft -f
# password ` + canary + `
flush ruleset
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		iif "lo" accept
		ct state established,related accept
		tcp dport { 22, 2380 } accept
		counter
	}
}
`

// kernel is a packet filter that knows as much of nft's language as the adapter
// speaks: whole tables, listed as they were loaded. A lab test has the real one.
type kernel struct {
	mu     sync.Mutex
	tables []string          // names, in order
	text   map[string]string // of what stands in each
	loads  int               // transactions
	denied bool
	hung   bool
	watch  func(machine.RulesChange)
}

func newKernel() *kernel { return &kernel{text: map[string]string{}} }

// load carries out a script, all of it or nothing. It returns what list prints.
func (k *kernel) load(script string, files func(string) (string, error), check bool) (string, error) {
	was := newKernel()
	was.tables = append(was.tables, k.tables...)
	for n, text := range k.text {
		was.text[n] = text
	}
	printed := ""
	var run func(string) error
	run = func(script string) error {
		lines := strings.Split(script, "\n")
		for i := 0; i < len(lines); i++ {
			line := strings.TrimSpace(lines[i])
			w := strings.Fields(line)
			switch {
			case line == "" || line[0] == '#':
			case line == "flush ruleset":
				was.tables, was.text = nil, map[string]string{}
			case line == "list ruleset":
				printed += was.list()
			case w[0] == "include":
				text, err := files(strings.Trim(w[1], `"`))
				if err != nil {
					return err
				}
				if err := run(text); err != nil {
					return err
				}
			case w[0] == "delete" && len(w) == 4:
				if _, has := was.text[w[2]+" "+w[3]]; !has {
					return fmt.Errorf("no such table %s", line)
				}
				delete(was.text, w[2]+" "+w[3])
			case w[0] == "table" && len(w) == 3:
				was.add(w[1]+" "+w[2], "")
			case w[0] == "table" && len(w) == 4 && w[3] == "{":
				body := ""
				for i++; i < len(lines) && lines[i] != "}"; i++ {
					body += lines[i] + "\n"
				}
				was.add(w[1]+" "+w[2], body)
			default:
				return fmt.Errorf("syntax error: %s", line)
			}
		}
		return nil
	}
	if err := run(script); err != nil {
		return "", err
	}
	if !check {
		k.tables, k.text = was.tables, was.text
	}
	return printed, nil
}

func (k *kernel) add(name, body string) {
	if _, has := k.text[name]; !has {
		k.tables = append(k.tables, name)
	}
	k.text[name] += body
}

func (k *kernel) list() string {
	var s strings.Builder
	seen := map[string]bool{}
	for _, n := range k.tables {
		if text, has := k.text[n]; has && !seen[n] {
			seen[n] = true
			fmt.Fprintf(&s, "table %s {\n%s}\n", n, text)
		}
	}
	return s.String()
}

// change is somebody at a terminal.
func (k *kernel) change(t testing.TB, script string) {
	t.Helper()
	k.mu.Lock()
	_, err := k.load(script, nil, false)
	watch := k.watch
	k.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if watch != nil {
		watch(machine.RulesChange{Generation: 7, PID: 42, Process: "nft"})
	}
}

func (k *kernel) is() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.list()
}

// WatchRules implements machine.Rulesets.
func (k *kernel) WatchRules(ctx context.Context, emit func(machine.RulesChange)) error {
	k.mu.Lock()
	k.watch = emit
	k.mu.Unlock()
	emit(machine.RulesChange{})
	<-ctx.Done()
	return nil
}

// nft is the program on a kernel; unshare runs it on an empty one.
func (k *kernel) nft(m *memmachine.Machine, scratch bool) func(machine.Command) (machine.Output, error) {
	return func(c machine.Command) (machine.Output, error) {
		args := " " + strings.Join(c.Args, " ") + " "
		on := k
		if scratch {
			on = newKernel()
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		changes := strings.Contains(args, " -f ") && !strings.Contains(args, " -c ")
		if k.denied && (changes || strings.Contains(args, " -c ")) {
			return machine.Output{Exit: 1, Stderr: []byte("Error: Could not process rule: Operation not permitted")}, nil
		}
		if strings.Contains(args, " list ruleset ") {
			return machine.Output{Stdout: []byte(on.list())}, nil
		}
		out, err := on.load(string(c.Stdin), func(name string) (string, error) {
			data, err := m.Ports().Files.ReadFile(context.Background(), name, 1<<20)
			return string(data), err
		}, strings.Contains(args, " -c "))
		switch {
		case err != nil && scratch: // interactive: it says so, and goes on
			return machine.Output{Stderr: []byte("Error: " + err.Error())}, nil
		case err != nil:
			return machine.Output{Exit: 1, Stderr: []byte("Error: " + err.Error())}, nil
		}
		if changes {
			k.loads++
		}
		return machine.Output{Stdout: []byte(out)}, nil
	}
}

// host is a machine with a packet filter, the persisted ruleset in force.
type host struct {
	*memmachine.Machine
	kernel *kernel
}

func newHost(t testing.TB) *host {
	t.Helper()
	h := &host{memmachine.New(memmachine.Options{}), newKernel()}
	h.Put(file, []byte(persisted), 0o600)
	h.Program("nft", h.kernel.nft(h.Machine, false))
	h.Program("unshare", h.kernel.nft(h.Machine, true))
	h.kernel.change(t, persisted)
	return h
}

func (h *host) ports() machine.Machine {
	m := h.Ports()
	m.Rulesets = h.kernel
	m.Commands = hanging{h.kernel, m.Commands}
	return m
}

// hanging is the commands of a kernel that may hang: they come back when they are
// ended.
type hanging struct {
	k *kernel
	machine.Commands
}

func (c hanging) Run(ctx context.Context, cmd machine.Command) (machine.Output, error) {
	c.k.mu.Lock()
	hung := c.k.hung
	c.k.mu.Unlock()
	if hung {
		<-ctx.Done()
		return machine.Output{}, ctx.Err()
	}
	return c.Commands.Run(ctx, cmd)
}

var subject = fettle.NewSubject(firewall.KindFirewall, "h1", "nftables")

func (h *host) rig() adaptertest.Rig {
	return adaptertest.Rig{
		Adapter: firewall.Adapter{}, Machine: h.ports(), Canary: canary,
		State: func(context.Context) string { return h.kernel.is() }, Settle: func(context.Context) {},
	}
}

// open opens the adapter on the host.
func (h *host) open(t testing.TB, config string) fettle.Instance {
	t.Helper()
	in, err := firewall.Adapter{}.Open(t.Context(), h.ports(), []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// look is what the probe says.
func look(t testing.TB, in fettle.Instance) fettle.Observation {
	t.Helper()
	return in.Probes()[0].Observe(t.Context(), subject)[0]
}

// byHand is a rule that a person added to a table of the file's.
const byHand = "table inet filter\ndelete table inet filter\ntable inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n\t\ttcp dport 2380 drop comment \"mine {\"\n\t\tiif \"lo\" accept\n\t\tct state established,related accept\n\t\ttcp dport { 22, 2380 } accept\n\t\tcounter\n\t}\n}\n"
