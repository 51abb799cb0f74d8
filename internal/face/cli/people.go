package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/face/control"
	"fettle/internal/face/show"
	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
)

// remote is how a command reaches the server.
type remote struct{ dir, server string }

func (r *remote) flags(c *cobra.Command) {
	c.PersistentFlags().StringVar(&r.dir, "dir", stateDir(), "folder of \"fettle up\", with the identity for this command line")
	c.PersistentFlags().StringVar(&r.server, "server", "", "address of the server (default: the one of this machine)")
}

// call connects, calls and disconnects. Errors of the wire become exits.
func (r *remote) call(ctx context.Context, do func(context.Context, wire.AdminServiceClient) error) error {
	return r.callAs(ctx, func(ctx context.Context, api wire.AdminServiceClient, _ *pki.Identity) error { return do(ctx, api) })
}

// callAs is call, with the identity under which it calls.
func (r *remote) callAs(ctx context.Context, do func(context.Context, wire.AdminServiceClient, *pki.Identity) error) error {
	dir := r.dir
	if _, err := os.Stat(control.AdminDir(dir)); errors.Is(err, fs.ErrNotExist) && dir == "/var/lib/fettle" {
		dir = serverDir // of a server that runs under its unit
	}
	id, err := pki.LoadIdentity(control.AdminDir(dir), pki.RoleAdmin)
	if errors.Is(err, fs.ErrNotExist) {
		return exit(ExitNoContact, "no identity for this command line in %s (run it where `fettle up` runs, as the same user, or name its folder with --dir)", r.dir)
	}
	if err != nil {
		return &Exit{Code: ExitNoContact, Err: err}
	}
	address := r.server
	if address == "" {
		data, err := os.ReadFile(control.AddressFile(dir))
		if err != nil {
			return exit(ExitNoContact, "the server's address is not known: %w (name it with --server)", err)
		}
		address = strings.TrimSpace(string(data))
	}
	dial := func() (*grpc.ClientConn, error) {
		as := id
		conn, err := wire.Dial(address, pki.ClientTLS(func() *pki.Identity { return as }, time.Now))
		if err != nil {
			return nil, &Exit{Code: ExitUsage, Err: err}
		}
		return conn, nil
	}
	conn, err := dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing is under way on it
	fresh, err := stayBelieved(ctx, wire.NewAdminServiceClient(conn), id, control.AdminDir(dir))
	if err != nil {
		fmt.Fprintln(os.Stderr, "fettle: your certificate should be renewed, and that fails: "+err.Error())
	}
	if fresh != id { // who signs must be who calls
		id = fresh
		next, err := dial()
		if err != nil {
			return err
		}
		_ = conn.Close() // nothing is under way on it
		conn = next
	}
	return said(address, do(ctx, wire.NewAdminServiceClient(conn), id))
}

// said turns what the server answered into an exit.
func said(address string, err error) error {
	var e *Exit
	if err == nil || errors.As(err, &e) || errors.Is(err, context.Canceled) {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch s.Code() {
	case codes.Unavailable, codes.DeadlineExceeded:
		return exit(ExitNoContact, "no contact with the server at %s: %s (does `fettle up` run?)", address, s.Message())
	case codes.NotFound, codes.InvalidArgument:
		return exit(ExitUsage, "%s", s.Message())
	default:
		return exit(ExitIll, "%s", s.Message())
	}
}

func short(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, wire.CallTimeout)
}

// all reads a stream to its end.
func all[T any](next func() (T, error)) ([]T, error) {
	list := []T{}
	for {
		v, err := next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
}

// line writes one JSON object on one line.
func (a *app) line(v any) error { return json.NewEncoder(a.out).Encode(v) }

func (a *app) statusCommand() *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use: "status", Short: "Say how the fleet is: hosts, open incidents, freeze", Args: cobra.NoArgs,
		Example: "  fettle status\n  fettle status -o json | jq .open_incidents",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				st, err := api.Status(ctx, &wire.StatusRequest{})
				if err != nil {
					return err
				}
				hosts, err := api.Hosts(ctx, &wire.HostsRequest{})
				if err != nil {
					return err
				}
				return a.printStatus(st, hosts.GetHosts())
			})
		},
	}
	r.flags(c)
	return c
}

// fleetStatus is status for programs.
type fleetStatus struct {
	Fleet     string         `json:"fleet"`
	Version   string         `json:"version"`
	Frozen    *guard.Freeze  `json:"frozen,omitempty"`
	NotFrozen []string       `json:"not_frozen,omitempty"`
	Hosts     int32          `json:"hosts"`
	Connected int32          `json:"connected"`
	Open      int32          `json:"open_incidents"`
	Waiting   int32          `json:"waiting_for_people"`
	Log       int64          `json:"log_entries"`
	LogHash   string         `json:"log_hash"`
	Machines  []machineLine  `json:"machines"`
	Gossip    *gossipLine    `json:"gossip,omitempty"`
	Authority *authorityLine `json:"authority,omitempty"`
	Store     *storeLine     `json:"store,omitempty"`
}

type machineLine struct {
	ID        string        `json:"id"`
	Label     string        `json:"label"`
	Connected bool          `json:"connected"`
	Life      string        `json:"life,omitempty"`
	RoundTrip time.Duration `json:"round_trip_ns"`
	Frozen    bool          `json:"frozen,omitempty"`
	Refuses   string        `json:"refuses,omitempty"` // why it takes no steps of this server
}

func (a *app) printStatus(st *wire.StatusResponse, hosts []*wire.Host) error {
	s := fleetStatus{
		Fleet: st.GetFleet(), Version: st.GetVersion(), NotFrozen: st.GetNotFrozen(), Hosts: st.GetHosts(), Connected: st.GetConnected(),
		Open: st.GetOpenIncidents(), Waiting: st.GetWaitingForPeople(), Log: st.GetLogEntries(), LogHash: st.GetLogHash(), Machines: []machineLine{},
		Gossip: gossipOf(st.GetGossip(), hosts), Authority: authorityLineOf(st.GetAuthority(), hosts), Store: storeOf(st.GetStore()),
	}
	if len(st.GetFreeze()) > 0 {
		f, err := wire.Unpack[guard.Freeze](st.GetFreeze())
		if err != nil {
			return err
		}
		s.Frozen = &f
	}
	for _, h := range hosts {
		s.Machines = append(s.Machines, machineLine{h.GetId(), h.GetLabel(), h.GetConnected(), h.GetLife(), time.Duration(h.GetRoundTripNs()), h.GetFrozen(), h.GetLogRefused()})
	}
	err := a.print(s, func(p *show.Printer) {
		p.Line("fleet %s, fettle %s", s.Fleet, s.Version)
		for _, m := range s.Machines {
			word := p.Green("connected")
			if !m.Connected {
				word = p.Red("no contact")
			}
			if m.Connected {
				word += "  round trip " + show.Took(m.RoundTrip)
			} else if m.Life != "" {
				word += "  " + lifeWord(p, m.Life)
			}
			p.Line("  %-20s %s  %s", m.Label, word, p.Dim(m.ID))
			if m.Refuses != "" {
				p.Text("    "+p.Red("takes no steps")+" ", m.Refuses)
			}
		}
		if s.Frozen != nil {
			p.Text(p.Yellow("frozen")+" ", fmt.Sprintf("by %s since %s: %s", s.Frozen.By, s.Frozen.Since.Format(time.DateTime), s.Frozen.Why))
			for _, h := range s.NotFrozen {
				p.Line("  %s has not confirmed it", h)
			}
		}
		if s.Gossip != nil {
			s.Gossip.print(p)
		}
		if s.Authority != nil {
			s.Authority.print(p)
		}
		if s.Store != nil {
			s.Store.print(p, time.Now())
		}
		p.Line("%d open incidents, %d of them wait for a person; %d entries in the log", s.Open, s.Waiting, s.Log)
	})
	switch {
	case err != nil:
		return err
	case s.Open > 0, slices.ContainsFunc(s.Machines, func(m machineLine) bool { return m.Refuses != "" }):
		return &Exit{Code: ExitIll}
	case s.Connected < s.Hosts:
		return &Exit{Code: ExitUnknown}
	}
	return nil
}

func (a *app) incidentsCommand() *cobra.Command {
	var r remote
	var ended bool
	c := &cobra.Command{
		Use: "incidents", Short: "List the open incidents", Example: "  fettle incidents\n  fettle incidents --all -o json", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				stream, err := api.Incidents(ctx, &wire.IncidentsRequest{Ended: ended})
				if err != nil {
					return err
				}
				list, err := all(func() (fettle.Incident, error) {
					m, err := stream.Recv()
					if err != nil {
						return fettle.Incident{}, err
					}
					return wire.Unpack[fettle.Incident](m.GetJson())
				})
				if err != nil {
					return err
				}
				open := 0
				for _, in := range list {
					if !in.State.Ended() {
						open++
					}
				}
				if err := a.print(list, func(p *show.Printer) {
					for _, in := range list {
						p.IncidentLine(in)
						if in.Why != "" && !in.State.Ended() {
							p.Text("         ", in.Why)
						}
					}
					if len(list) == 0 {
						p.Line("%s", p.Green("no incident is open"))
					}
				}); err != nil {
					return err
				}
				if open > 0 {
					return &Exit{Code: ExitIll}
				}
				return nil
			})
		},
	}
	c.Flags().BoolVar(&ended, "all", false, "those that have ended too")
	r.flags(c)
	return c
}

func (a *app) incidentCommand() *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use: "incident", Short: "Show, explain, approve, refuse or undo an incident",
		Example: "  fettle incident show tap5fdsz\n  fettle incident explain tap5fdsz\n  fettle incident approve tap5fdsz\n  fettle incident undo tap5fdsz",
	}
	r.flags(c)
	get := func(use, what string, text func(*show.Printer, fettle.Incident)) *cobra.Command {
		return &cobra.Command{
			Use: use + " ID", Short: what, Args: cobra.ExactArgs(1), Example: "  fettle incident " + use + " tap5fdsz",
			RunE: func(cmd *cobra.Command, args []string) error {
				return r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
					in, err := fetch(ctx, api, args[0])
					if err != nil {
						return err
					}
					return a.print(in, func(p *show.Printer) { text(p, in) })
				})
			},
		}
	}
	c.AddCommand(
		get("show", "Show its story", func(p *show.Printer, in fettle.Incident) { p.Incident(in) }),
		get("explain", "Show what was decided, on what, and why not otherwise", func(p *show.Printer, in fettle.Incident) { p.Explain(in) }),
		a.answerCommand(&r, incident.SayApprove, "Approve its present plan, as it was shown"),
		a.answerCommand(&r, incident.SayRefuse, "Take it over: Fettle does no more about it"),
		a.answerCommand(&r, incident.SayUndo, "Take back what was done, as far as it can be"),
	)
	return c
}

func fetch(ctx context.Context, api wire.AdminServiceClient, id string) (fettle.Incident, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	m, err := api.Incident(ctx, &wire.IncidentRequest{Id: id})
	if err != nil {
		return fettle.Incident{}, err
	}
	return wire.Unpack[fettle.Incident](m.GetJson())
}

func (a *app) answerCommand(r *remote, say incident.Say, what string) *cobra.Command {
	var why, hash string
	var life time.Duration
	c := &cobra.Command{
		Use: string(say) + " ID", Short: what, Args: cobra.ExactArgs(1), Example: "  fettle incident " + string(say) + " tap5fdsz",
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.callAs(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient, id *pki.Identity) error {
				in, err := fetch(ctx, api, args[0])
				if err != nil {
					return err
				}
				answer := incident.Answer{Incident: in.ID, Say: say, Why: why, By: person()}
				request := &wire.AnswerRequest{ForNs: int64(life)}
				if say == incident.SayApprove {
					if in.Plan == nil {
						return exit(ExitIll, "incident %s has no plan to approve (%s)", in.ID, in.Why)
					}
					if hash != "" && !strings.HasPrefix(in.Plan.Hash, hash) {
						return exit(ExitIll, "the plan is now %.12s, not %s; look at it with `fettle incident show %s`", in.Plan.Hash, hash, in.ID)
					}
					answer.Plan = in.Plan.Hash
					signed, err := approve(in, life, id, time.Now())
					if err != nil {
						return &Exit{Code: ExitIll, Err: err}
					}
					request.Note, request.Certificate = signed.Note, signed.Certificate
				}
				if request.Json, err = wire.Pack(answer); err != nil {
					return err
				}
				callCtx, cancel := short(ctx)
				defer cancel()
				if _, err := api.Answer(callCtx, request); err != nil {
					return err
				}
				return a.print(map[string]string{"incident": in.ID, "said": string(say)}, func(p *show.Printer) {
					p.Line("%s: %s", in.ID, say)
					if say == incident.SayApprove {
						p.Plan(*in.Plan)
					}
				})
			})
		},
	}
	c.Flags().StringVar(&why, "why", "", "the reason, for the story")
	if say == incident.SayApprove {
		c.Flags().StringVar(&hash, "plan", "", "approve only if the plan's hash begins so")
		c.Flags().DurationVar(&life, "for", approvalLife, "how long the approval holds")
	}
	return c
}

func (a *app) freezeCommand() *cobra.Command {
	var r remote
	var why string
	c := &cobra.Command{
		Use: "freeze", Short: "Start nothing new anywhere; what runs goes to a safe point", Args: cobra.NoArgs,
		Example: "  fettle freeze --why 'database migration'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				if _, err := api.SetFreeze(ctx, &wire.SetFreezeRequest{Why: why, By: person()}); err != nil {
					return err
				}
				return a.print(map[string]bool{"frozen": true}, func(p *show.Printer) {
					p.Line("frozen; `fettle thaw` ends it, `fettle status` shows who has not confirmed it")
				})
			})
		},
	}
	c.Flags().StringVar(&why, "why", "", "the reason, shown to everybody who asks why nothing is done")
	r.flags(c)
	return c
}

func (a *app) thawCommand() *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use: "thaw", Short: "End a freeze", Example: "  fettle thaw", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				if _, err := api.Thaw(ctx, &wire.ThawRequest{By: person()}); err != nil {
					return err
				}
				return a.print(map[string]bool{"frozen": false}, func(p *show.Printer) { p.Line("thawed") })
			})
		},
	}
	r.flags(c)
	return c
}
