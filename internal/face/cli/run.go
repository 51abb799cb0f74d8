package cli

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"fettle/internal/face/show"
	"fettle/internal/fleet/fanout"
	"fettle/internal/fleet/fanout/sshrun"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

// maxHostsFile bounds a hosts file.
const maxHostsFile = 8 << 20

// runFlags is what "fettle run" was asked for.
type runFlags struct {
	remote
	hosts     string
	hostsFile string
	ssh       bool
	sshConfig string
	batch     string
	group     bool
	list      bool
	options   fanout.Options
	connect   time.Duration
}

// follow tells what happens until the run is over.
type follow func(ctx context.Context, emit func(fanout.Event)) (fanout.Summary, error)

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use: "run --hosts SELECTOR -- COMMAND [ARGUMENT…]", Short: "Run a command on many hosts", Args: cobra.ArbitraryArgs,
		Long: `Runs a command on many hosts at once, and shows what it says as it comes, with
the host before each line: its standard output on standard output, all else on
standard error. No shell is involved: write -- sh -c '…' for one.

` + fanout.SelectorHelp + `

Hosts of the fleet are reached through their agents, if their own list of who
may run what (/etc/fettle/run.yaml there) lets you; without such a list a host
runs nothing. The command is signed with your own key, for each host when its
turn comes, and each host checks that. Each run is in the log of decisions
before it begins.

With --ssh names are what ssh would be given; with --hosts-file they are those
of a YAML file, with groups and labels. Both use your ssh configuration, keys,
agent and lists of known hosts; a host whose key is not known is refused.

A host that gives no sign of life is named after a second and holds up no other.
Nothing is tried twice. Interrupting ends the commands as far as they can be
told to, and says of each host whether it may go on.

Exit status: 0 succeeded on all hosts, 1 failed or refused on some, 2 failed on
none, but of some it cannot be told (unreachable, hung, lost, cut off, not
begun), 3 usage error (also a selector that matches nothing), 4 no contact.`,
		Example: `  fettle run --hosts 'web*&connected=yes' -- uptime
  fettle run --ssh --hosts 'web[1-12],!web7' -- uptime
  fettle run --ssh --hosts web1,db1 --group -- uname -r
  fettle run --hosts-file hosts.yaml --hosts '@web,!role=canary' \
    --batch 10% --stop-after-failures 1 -- systemctl restart app
  fettle run --hosts-file hosts.yaml --hosts @db -o json -- df -P /
  fettle run --hosts-file hosts.yaml --hosts '*' --list`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.run(cmd, f, args) },
	}
	flags := c.Flags()
	flags.SetInterspersed(false) // what stands behind the command is the command's
	f.remote.flags(c)
	flags.StringVar(&f.hosts, "hosts", "", "which hosts (see above)")
	flags.StringVar(&f.hostsFile, "hosts-file", "", "YAML file that lists the hosts; over SSH")
	flags.BoolVar(&f.ssh, "ssh", false, "over SSH, to hosts as ssh is given them")
	flags.StringVar(&f.sshConfig, "ssh-config", "", "ssh configuration file, instead of yours and the system's")
	flags.StringVar(&f.batch, "batch", "", "so many hosts, or such a share of them (10%), then the next")
	flags.IntVar(&f.options.StopAfter, "stop-after-failures", 0, "begin no more once so many did not succeed; 0: never")
	flags.IntVar(&f.options.Parallel, "parallel", fanout.DefaultParallel, "at most so many hosts at once (through agents the default is 1024)")
	flags.DurationVar(&f.connect, "connect-timeout", 0, "give up a host without a sign of life (default: as your ssh configuration says, else 1s)")
	flags.DurationVar(&f.options.Silence, "silence", fanout.DefaultSilence, "give up a host that stops to answer")
	flags.DurationVar(&f.options.Timeout, "timeout", 0, "give up what has not ended by then; 0: never")
	flags.IntVar(&f.options.Limit, "limit", fanout.DefaultLimit, "show at most so many bytes of each host's output")
	flags.BoolVarP(&f.group, "group", "g", false, "show equal outputs once, at the end")
	flags.BoolVar(&f.list, "list", false, "show which hosts it would be, and run nothing")
	return c
}

// run is the command.
func (a *app) run(cmd *cobra.Command, f runFlags, argv []string) error {
	switch {
	case f.hosts == "":
		return exit(ExitUsage, "say on which hosts: --hosts SELECTOR\n%s", fanout.SelectorHelp)
	case f.list && len(argv) > 0:
		return exit(ExitUsage, "--list runs nothing: leave the command out")
	case !f.list && len(argv) == 0:
		return exit(ExitUsage, "say what to run: fettle run --hosts %s -- COMMAND", f.hosts)
	case f.options.Parallel < 1, f.options.StopAfter < 0, f.options.Limit < 1:
		return exit(ExitUsage, "--parallel and --limit are at least 1, --stop-after-failures is not negative")
	case f.connect < 0, f.options.Silence <= 0, f.options.Timeout < 0:
		return exit(ExitUsage, "a time cannot be negative, and --silence not nothing")
	}
	var err error
	if f.options.Batch, err = fanout.ParseBatch(f.batch); err != nil {
		return exit(ExitUsage, "--batch: %w", err)
	}
	f.options.Connect = f.connect
	if f.ssh || f.hostsFile != "" {
		return a.runOverSSH(cmd.Context(), f, argv)
	}
	if f.sshConfig != "" || f.connect > 0 {
		return exit(ExitUsage, "--ssh-config and --connect-timeout are about SSH: add --ssh or --hosts-file")
	}
	if !cmd.Flags().Changed("parallel") {
		f.options.Parallel = 0 // the server knows what its agents stand
	}
	return f.callAs(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient, by *pki.Identity) error {
		return a.runThroughAgents(ctx, api, f, argv, by)
	})
}

// runOverSSH runs without a server and agents.
func (a *app) runOverSSH(ctx context.Context, f runFlags, argv []string) error {
	inventory := fanout.Inventory{Open: true, What: "what ssh is given"}
	if f.hostsFile != "" {
		data, err := readLimited(f.hostsFile, maxHostsFile)
		if err == nil {
			inventory, err = fanout.ParseHosts(f.hostsFile, data)
		}
		if err != nil {
			return &Exit{Code: ExitUsage, Err: err}
		}
		inventory.Open = false
	}
	hosts, err := fanout.Select(f.hosts, inventory)
	if err != nil {
		return &Exit{Code: ExitUsage, Err: err}
	}
	if f.list {
		return a.listHosts(hosts)
	}
	person, err := sshrun.Self()
	if err != nil {
		return err
	}
	config, err := sshrun.ReadConfig(person.Home, f.sshConfig)
	if err != nil {
		return &Exit{Code: ExitUsage, Err: err}
	}
	runner := &sshrun.Runner{Config: config, Person: person, Connect: f.connect}
	defer runner.Close()
	return a.followRun(ctx, f.group, func() int { return len(hosts) }, func(ctx context.Context, emit func(fanout.Event)) (fanout.Summary, error) {
		return fanout.Run(ctx, hosts, fanout.Command{Argv: argv}, f.options, runner, emit), nil
	})
}

func readLimited(name string, limit int64) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read the hosts file: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the hosts file: %w", err)
	case int64(len(data)) > limit:
		return nil, fmt.Errorf("the hosts file %s has more than %d bytes", name, limit)
	}
	return data, nil
}

func (a *app) listHosts(hosts []fanout.Host) error {
	list := []string{}
	for _, h := range hosts {
		list = append(list, h.Name)
	}
	return a.print(map[string]any{"hosts": list}, func(p *show.Printer) {
		for _, name := range list {
			p.Line("%s", name)
		}
	})
}

// followRun shows a run until it is over, and turns its end into an exit status.
func (a *app) followRun(ctx context.Context, group bool, hosts func() int, run follow) error {
	errs := &show.Printer{W: a.errOut}
	if file, ok := a.errOut.(*os.File); ok {
		errs = show.For(file)
	}
	out := a.printer()
	kept := &fanout.Collector{}
	view := &show.Fanout{Out: out, Err: errs}
	ended, bad := 0, 0
	var broken error // of standard output: nobody reads on
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sum, err := run(ctx, func(e fanout.Event) {
		if !group && e.Kind == fanout.Output {
			kept.Add(fanout.Event{Host: e.Host}) // its text is shown, and not needed again
		} else {
			kept.Add(e)
		}
		if e.Kind == fanout.Ended {
			ended++
			if e.Result.Outcome != fanout.Succeeded {
				bad++
			}
		}
		switch {
		case a.json && !group:
			broken = a.line(eventLine(e))
		case a.json:
		case group:
			if e.Kind == fanout.Quiet || e.Kind == fanout.Answers {
				view.Add(e)
			}
			a.count(errs, ended, bad, hosts())
		default:
			view.Add(e)
			broken = out.Err()
		}
		if broken != nil {
			cancel()
		}
	})
	if err != nil {
		return err
	}
	if a.json && group {
		for _, g := range kept.Groups() {
			if err := a.line(groupLine(g)); err != nil {
				return err
			}
		}
	}
	if a.json {
		err = a.line(struct {
			Kind string `json:"kind"`
			fanout.Summary
		}{"summary", sum})
	} else {
		if group {
			out.FanoutGroups(kept.Groups())
		}
		errs.FanoutSummary(sum, kept.Groups(), !group)
		err = out.Err()
	}
	if code := sum.Exit(); err == nil && code != ExitWell {
		return &Exit{Code: code}
	}
	return err
}

// count shows on a terminal how far it is, on one line that is overwritten.
func (a *app) count(errs *show.Printer, ended, bad, hosts int) {
	file, ok := a.errOut.(*os.File)
	if !ok || !show.IsTerminal(file) {
		return
	}
	text := fmt.Sprintf("\r\x1b[K%d of %d ended", ended, hosts)
	if bad > 0 {
		text += ", " + errs.Red(fmt.Sprintf("%d did not succeed", bad))
	}
	if ended == hosts {
		text = "\r\x1b[K"
	}
	fmt.Fprint(file, text)
}

// runEvent is one line of JSON: kind is output, clipped, quiet, answers, ended or
// summary. Output that is not UTF-8 is in base64.
type runEvent struct {
	Kind   fanout.Kind    `json:"kind"`
	Host   string         `json:"host"`
	Stream fanout.Stream  `json:"stream,omitempty"`
	Text   string         `json:"text,omitempty"`
	Base64 string         `json:"base64,omitempty"`
	Why    string         `json:"why,omitempty"`
	Result *fanout.Result `json:"result,omitempty"`
}

func eventLine(e fanout.Event) runEvent {
	l := runEvent{Kind: e.Kind, Host: e.Host, Stream: e.Stream, Why: e.Why}
	l.Text, l.Base64 = textOf(e.Data)
	if e.Kind == fanout.Ended {
		l.Result = &e.Result
	}
	return l
}

// textOf is output as JSON can hold it.
func textOf(data []byte) (text, encoded string) {
	if utf8.Valid(data) {
		return string(data), ""
	}
	return "", base64.StdEncoding.EncodeToString(data)
}

// runGroup is one group of hosts as JSON: kind is group.
type runGroup struct {
	Kind         string         `json:"kind"`
	Hosts        []string       `json:"hosts"`
	Outcome      fanout.Outcome `json:"outcome"`
	Exit         int            `json:"exit"`
	Signal       string         `json:"signal,omitempty"`
	Why          string         `json:"why,omitempty"`
	Hint         string         `json:"hint,omitempty"`
	Stdout       string         `json:"stdout,omitempty"`
	StdoutBase64 string         `json:"stdout_base64,omitempty"`
	Stderr       string         `json:"stderr,omitempty"`
	StderrBase64 string         `json:"stderr_base64,omitempty"`
	Clipped      bool           `json:"clipped,omitempty"`
}

func groupLine(g fanout.Group) runGroup {
	l := runGroup{Kind: "group", Hosts: g.Hosts, Outcome: g.Outcome, Exit: g.Exit, Signal: g.Signal, Why: g.Why, Hint: g.Hint, Clipped: g.Clipped}
	l.Stdout, l.StdoutBase64 = textOf(g.Stdout)
	l.Stderr, l.StderrBase64 = textOf(g.Stderr)
	return l
}
