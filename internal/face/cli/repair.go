package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"fettle/internal/act/execute"
	"fettle/internal/act/journal"
	"fettle/internal/act/probe"
	"fettle/internal/face/show"
	"fettle/internal/fettle"
	"fettle/internal/fleet/store"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
	"fettle/internal/loop"
)

// approvalLife is how long an answer at the terminal holds: long enough to
// gather facts again, too short to be of another day.
const approvalLife = 5 * time.Minute

func (a *app) repairCommand() *cobra.Command {
	var configs adapterFolder
	var yes bool
	var limit time.Duration
	c := &cobra.Command{
		Use: "repair", Short: "Look at this machine, show each plan, ask, repair, verify",
		Long: `Looks as doctor does, then shows each plan and asks before anything is touched,
repairs, and verifies. Every intent is on disk before the machine is touched; a
repair that was interrupted is taken up again by the next call.

Exit status: 0 nothing is wrong any more, 1 something still is or was refused.`,
		Example: "  sudo fettle repair\n  sudo fettle repair --yes    # what loses something for good is still asked", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &repairer{app: a, yes: yes, limit: limit, p: a.printer(), in: bufio.NewReader(a.in)}
			return r.run(cmd.Context(), string(configs))
		},
	}
	configs.flag(c)
	c.Flags().BoolVar(&yes, "yes", false, "approve every plan that loses nothing for good")
	c.Flags().DurationVar(&limit, "limit", 10*time.Minute, "stop waiting for a repair after this long")
	return c
}

// repairer is one call of repair.
type repairer struct {
	*app
	yes   bool
	limit time.Duration
	p     *show.Printer
	in    *bufio.Reader

	mu      sync.Mutex
	changed chan struct{}
}

func (r *repairer) onChange(rec incident.Record, events []fettle.Event) {
	if !r.json {
		for _, e := range events {
			r.p.Event(rec.Opened, e)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *repairer) run(ctx context.Context, configs string) (err error) {
	dir := stateDir()
	l, err := r.openLocal(ctx, dir, configs, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	exec, done, err := r.executor(ctx, l, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	st, err := store.OpenFile(ctx, filepath.Join(dir, "repair.journal"), l.m.Identity.Host.Name(), journal.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	// At a terminal a person is at hand, so every plan is asked about.
	ask := fettle.Policy{Budgets: runbook.DefaultBudgets(), Rules: []fettle.PolicyRule{{Runbook: "*", Rung: "*", Subject: "*", Level: fettle.Approve}}}
	m, err := r.mind(ask, nil)
	if err != nil {
		return err
	}
	r.changed = make(chan struct{})
	lp := loop.New(loop.Options{
		Mind: m, Store: st, Clock: l.m.Clock, OnChange: r.onChange,
		Hands: loop.Local{Runner: l.runner, Executor: exec, Host: l.m.Identity.Host},
	})
	return r.drive(ctx, l, lp)
}

// executor opens the journal and what acts on this machine.
func (a *app) executor(ctx context.Context, l *local, dir string) (*execute.Executor, func() error, error) {
	j, err := journal.Open(ctx, filepath.Join(dir, "actions.journal"), journal.Options{})
	if err != nil {
		return nil, nil, err
	}
	frozen := filepath.Join(dir, "frozen")
	exec, err := execute.New(execute.Options{
		Journal: j, Actions: l.roster.Actions(), Catalogues: a.catalogues(), Clock: l.m.Clock,
		Host: l.m.Identity.Host, Fleet: l.m.Identity.Host.Name(),
		Allow:  func(string) bool { return true }, // a person at this terminal approves each plan
		Frozen: func() bool { _, err := os.Stat(frozen); return err == nil },
	})
	if err != nil {
		return nil, nil, errors.Join(err, j.Close())
	}
	return exec, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return errors.Join(exec.Close(ctx), j.Close())
	}, nil
}

// drive runs probes and loop until every incident has ended or waits for what
// is not to be had here.
func (r *repairer) drive(ctx context.Context, l *local, lp *loop.Loop) error {
	ctx, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	runner, err := probe.New(probe.Options{
		Instances: l.roster.Instances, Clock: l.m.Clock, Host: l.m.Identity.Host,
		Emit: func(b probe.Batch) { lp.Feed(incident.Input{Observations: b.Changed}) },
	})
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	errs := make([]error, 2)
	group.Go(func() { errs[0] = lp.Run(ctx); cancel() })
	r.progress("looking …")
	lp.Feed(incident.Input{Observations: l.runner.Once(ctx)})
	group.Go(func() { errs[1] = runner.Run(ctx) })
	left, err := r.untilDone(ctx, lp)
	cancel()
	group.Wait()
	for _, e := range errs {
		if e != nil && !errors.Is(e, context.Canceled) && !errors.Is(e, context.DeadlineExceeded) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return err
	}
	return r.sum(left)
}

// untilDone answers plans until nothing moves any more, and returns the
// incidents.
func (r *repairer) untilDone(ctx context.Context, lp *loop.Loop) ([]fettle.Incident, error) {
	answered := map[string]bool{}
	quiet := time.Now()
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		var list []fettle.Incident
		if err := lp.Ask(ctx, func(m *incident.Mind) { list = m.Incidents() }); err != nil {
			return list, ignoreEnd(ctx, err)
		}
		moved, err := r.answer(ctx, lp, list, answered)
		if err != nil {
			return list, err
		}
		if moved || slices.ContainsFunc(list, moving) {
			quiet = time.Now()
		}
		// A cause may clear and leave another to be seen: what a repair brings
		// about shows within seconds.
		if time.Since(quiet) > 3*time.Second {
			return list, nil
		}
		select {
		case <-changed:
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return list, ignoreEnd(ctx, ctx.Err())
		}
	}
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func moving(in fettle.Incident) bool {
	return in.State == fettle.Acting || in.State == fettle.Verifying || in.State == fettle.Undoing || in.State == fettle.Open
}

// answer asks about each plan that waits, once.
func (r *repairer) answer(ctx context.Context, lp *loop.Loop, list []fettle.Incident, answered map[string]bool) (bool, error) {
	moved := false
	for _, in := range list {
		if in.State != fettle.Proposed || in.Plan == nil || answered[in.ID+in.Plan.Hash] {
			continue
		}
		answered[in.ID+in.Plan.Hash] = true
		moved = true
		say, err := r.ask(in)
		if err != nil {
			return moved, err
		}
		err = lp.Answer(ctx, incident.Answer{
			Incident: in.ID, Say: say, Plan: in.Plan.Hash, By: person(), Until: time.Now().Add(approvalLife),
		})
		if err != nil {
			fmt.Fprintln(r.errOut, "fettle: "+err.Error())
		}
	}
	return moved, nil
}

// ask shows a plan and reads the answer. Anything but a clear yes is a no.
func (r *repairer) ask(in fettle.Incident) (incident.Say, error) {
	if !r.json {
		r.p.Line("")
		r.p.Text(r.p.Bold("because  "), in.Cause.String())
		r.p.Diagnosis(in.Diagnosis)
		r.p.Plan(*in.Plan)
		for _, e := range in.Story {
			if e.Kind == fettle.EvAsked {
				r.p.Verdicts(e.Verdicts, false)
			}
		}
	}
	if r.yes && in.Plan.Loses == "" {
		return incident.SayApprove, nil
	}
	if r.json || !show.IsTerminal(r.app.in) && r.yes {
		return incident.SayRefuse, nil
	}
	fmt.Fprint(r.errOut, "Do it? [y/N] ")
	line, err := r.in.ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(r.errOut, "no answer: not done")
		return incident.SayRefuse, nil
	}
	if word := strings.ToLower(strings.TrimSpace(line)); word == "y" || word == "yes" {
		return incident.SayApprove, nil
	}
	return incident.SayRefuse, nil
}

// person is who sits at the terminal.
func person() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// sum says how it ended.
func (r *repairer) sum(list []fettle.Incident) error {
	left := 0
	for _, in := range list {
		if !in.State.Ended() {
			left++
		}
	}
	if err := r.print(append([]fettle.Incident{}, list...), func(p *show.Printer) {
		if len(list) == 0 {
			p.Line("%s", p.Green("nothing is wrong with what could be seen"))
		}
		for _, in := range list {
			p.IncidentLine(in)
			if !in.State.Ended() && in.Why != "" {
				p.Text("  why      ", in.Why)
			}
			for _, rc := range in.Receipts {
				p.Receipt(rc)
			}
		}
	}); err != nil {
		return err
	}
	if left > 0 {
		return &Exit{Code: ExitIll}
	}
	return nil
}
