package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fleet/fanout"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

// runFileFlag is for commands that run an agent.
func runFileFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "run-file", "/etc/fettle/run.yaml", "who may run commands here with \"fettle run\"; nobody where it is not there")
}

// runThroughAgents has the server run a command, which the person's key signs for each
// host.
func (a *app) runThroughAgents(ctx context.Context, api wire.AdminServiceClient, f runFlags, argv []string, by *pki.Identity) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request := &wire.RunRequest{
		Hosts: f.hosts, By: person(), Parallel: int32(min(f.options.Parallel, 1<<20)), Batch: f.options.Batch.String(), StopAfter: int32(min(f.options.StopAfter, 1<<20)),
		SilenceNs: int64(f.options.Silence), TimeoutNs: int64(f.options.Timeout), Limit: int64(f.options.Limit),
	}
	if f.list {
		return a.listThroughAgents(ctx, api, request)
	}
	words, err := newPersonsWords(argv, f.options.Timeout, by)
	if err != nil {
		return &Exit{Code: ExitUsage, Err: err}
	}
	stream, err := api.RunSigned(ctx)
	if err != nil {
		return err
	}
	// An error of sending is told where one receives.
	_ = stream.Send(&wire.RunSignedRequest{What: &wire.RunSignedRequest_Begin{Begin: &wire.RunBegin{Run: request, Program: words.program, Id: words.id}}})
	first, err := stream.Recv()
	if status.Code(err) == codes.Unimplemented {
		return exit(ExitIll, "the server is of an older version, which cannot hand on what a person signs (upgrade it, call it with the fettle beside it, or use --ssh)")
	}
	if err != nil {
		return err
	}
	names := first.GetHosts().GetNames()
	words.shown(names, first.GetHosts().GetHosts())
	return a.followRun(ctx, f.group, func() int { return len(names) }, func(inner context.Context, emit func(fanout.Event)) (fanout.Summary, error) {
		defer context.AfterFunc(inner, cancel)() // nobody reads what is printed
		return recvRun(ctx, stream, names, words, emit)
	})
}

// listThroughAgents shows which hosts it would be.
func (a *app) listThroughAgents(ctx context.Context, api wire.AdminServiceClient, request *wire.RunRequest) error {
	stream, err := api.Run(ctx, request)
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	names := first.GetHosts().GetNames()
	hosts := make([]fanout.Host, len(names))
	for i, name := range names {
		hosts[i].Name = name
	}
	return a.listHosts(hosts)
}

// recvRun passes on what the server tells of a run. Of the hosts whose end it did
// not tell, since the connection broke or we broke it off, nothing is known.
func recvRun(ctx context.Context, stream wire.AdminService_RunSignedClient, names []string, words *personsWords, emit func(fanout.Event)) (fanout.Summary, error) {
	open := map[string]bool{}
	for _, name := range names {
		open[name] = true
	}
	counts := map[fanout.Outcome]int{}
	lost := func(outcome fanout.Outcome, why string) (fanout.Summary, error) {
		for _, name := range names {
			if open[name] {
				counts[outcome]++
				emit(fanout.Event{Kind: fanout.Ended, Host: name, Result: fanout.Result{Host: name, Outcome: outcome, Began: true, Why: why,
					Hint: "the command may have run; the server ends what nobody waits for, and the log of decisions has how it went"}})
			}
		}
		return fanout.Summary{Hosts: len(names), Counts: counts, Stopped: why}, nil
	}
	for {
		m, err := stream.Recv()
		switch {
		case err != nil && ctx.Err() != nil:
			return lost(fanout.Cut, "interrupted")
		case errors.Is(err, io.EOF):
			return fanout.Summary{}, exit(ExitUnknown, "the server ended the run without a summary (a defect of the server)")
		case err != nil:
			return lost(fanout.Lost, fmt.Sprintf("no contact with the server: %v", err))
		case m.GetSummary() != nil:
			var sum fanout.Summary
			err := json.Unmarshal(m.GetSummary(), &sum)
			return sum, err
		case m.GetSign() != nil:
			answer, err := words.sign(m.GetSign())
			if err != nil {
				return fanout.Summary{}, err
			}
			_ = stream.Send(answer) // an error of it is told where one receives
		case m.GetEvent() != nil:
			w := m.GetEvent()
			e := fanout.Event{Kind: fanout.Kind(w.GetKind()), Host: w.GetHost(), Stream: fanout.Stream(w.GetStream()), Data: w.GetData(), Why: w.GetWhy()}
			if e.Kind == fanout.Ended {
				if err := json.Unmarshal(w.GetResult(), &e.Result); err != nil {
					return fanout.Summary{}, fmt.Errorf("what the server says of %s: %w", e.Host, err)
				}
				counts[e.Result.Outcome]++
				delete(open, e.Host)
			}
			emit(e)
		}
	}
}
