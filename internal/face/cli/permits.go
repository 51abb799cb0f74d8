package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"fettle/internal/face/control"
	"fettle/internal/face/show"
	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

// permitsView is what agents may do alone, as a program reads it.
type permitsView struct {
	Here  *permitHere  `json:"here,omitempty"`  // this machine's own; absent: no agent of it is here
	Fleet *permitFleet `json:"fleet,omitempty"` // as a server says; absent: none was asked
}

type permitHere struct {
	Host   fettle.Subject `json:"host"`
	Permit *fettle.Permit `json:"permit,omitempty"`
	Why    string         `json:"why,omitempty"` // why it may do nothing alone at present
}

type permitFleet struct {
	Grants []fettle.Grant `json:"grants"`
	Life   time.Duration  `json:"life_ns"`
	Hosts  []permitHost   `json:"hosts"`
}

type permitHost struct {
	ID     string        `json:"id"`
	Label  string        `json:"label"`
	Serial string        `json:"serial,omitempty"`
	Left   time.Duration `json:"left_ns,omitempty"`
	Why    string        `json:"why,omitempty"`

	Connected bool `json:"connected"`
}

func (a *app) permitsCommand() *cobra.Command {
	var r remote
	var agentDir, executorIn string
	c := &cobra.Command{
		Use: "permits", Short: "Say what agents may do alone while they reach no server",
		Long: `On a machine with an agent: the standing permit that it keeps, and until when.
Where this command line may speak to a server: what the policy grants, and which
hosts were heard to keep a permit.

Whatever is granted, alone an agent only gives: on its own host, reversibly, at
low risk, and nothing that takes votes, replicas, capacity, reachability or
data.
Exit status: 1 where this machine, or a connected one, may do nothing alone.`,
		Example: "  fettle permits\n  fettle permits -o json | jq -r .here.permit.until", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var v permitsView
			here, err := permitOf(agentDir, executorIn, time.Now())
			if err != nil {
				return err
			}
			v.Here = here
			_, noServer := os.Stat(control.AdminDir(r.dir))
			if noServer == nil || r.server != "" || here == nil {
				if err := r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
					v.Fleet, err = permitsOf(ctx, api)
					return err
				}); err != nil && here == nil {
					return err
				}
			}
			if err := a.print(v, v.show); err != nil {
				return err
			}
			if !v.well() {
				return &Exit{Code: ExitIll}
			}
			return nil
		},
	}
	r.flags(c)
	c.Flags().StringVar(&agentDir, "agent-dir", filepath.Join(stateDir(), "agent"), "folder of this machine's agent")
	c.Flags().StringVar(&executorIn, "executor-dir", executorDir(), "folder of \"fettle executor\", if there is one")
	return c
}

// permitOf is what this machine keeps, in its agent's folder or that of the executor
// beside it; nil where there is no agent.
func permitOf(dir, beside string, now time.Time) (*permitHere, error) {
	id, err := pki.LoadIdentity(dir, pki.RoleAgent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, exit(ExitUnknown, "this machine's agent: %w (run it as the agent's user)", err)
	}
	here := &permitHere{Host: id.Name.Host()}
	switch pin, _, err := executor.LoadPin(beside); {
	case err == nil && pin.Host == here.Host:
		dir = beside
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, exit(ExitUnknown, "this machine's executor: %w (run it as root)", err)
	}
	p, err := executor.KeptPermit(dir, id.Trust(), here.Host)
	if err != nil {
		here.Why = err.Error()
		return here, nil
	}
	here.Permit = &p
	_, frozen := os.Lstat(executor.FreezeFile(dir))
	switch {
	case !now.Before(p.Until):
		here.Why = "it has ended; contact with a server renews it"
	case now.Before(p.From.Add(-time.Minute)):
		here.Why = "this machine's clock is in doubt: the permit begins later"
	case !errors.Is(frozen, fs.ErrNotExist):
		here.Why = "this host is frozen"
	case executor.FleetFrozen(dir):
		here.Why = "the fleet was frozen when a server was last heard"
	case len(p.Grants) == 0:
		here.Why = "the policy grants it nothing"
	}
	return here, nil
}

func permitsOf(ctx context.Context, api wire.AdminServiceClient) (*permitFleet, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	got, err := api.Permits(ctx, &wire.PermitsRequest{})
	if err != nil {
		return nil, err
	}
	f := &permitFleet{Life: time.Duration(got.GetLifeNs()), Grants: []fettle.Grant{}, Hosts: []permitHost{}}
	for _, data := range got.GetGrants() {
		var g fettle.Grant
		if err := json.Unmarshal(data, &g); err != nil {
			return nil, err
		}
		f.Grants = append(f.Grants, g)
	}
	for _, h := range got.GetHosts() {
		f.Hosts = append(f.Hosts, permitHost{h.GetId(), h.GetLabel(), h.GetSerial(), time.Duration(h.GetLeftNs()), h.GetWhy(), h.GetConnected()})
	}
	return f, nil
}

// well reports whether everybody who is shown may do something alone.
func (v permitsView) well() bool {
	well := v.Here == nil || v.Here.Why == ""
	if v.Fleet != nil && len(v.Fleet.Grants) > 0 {
		for _, h := range v.Fleet.Hosts {
			well = well && (h.Serial != "" || !h.Connected)
		}
	}
	return well
}

func (v permitsView) show(p *show.Printer) {
	if h := v.Here; h != nil {
		switch {
		case h.Why != "":
			p.Text(p.Yellow("! "), fmt.Sprintf("%s may do nothing alone: %s", h.Host, h.Why))
		default:
			p.Line("%s may do alone, until %s:", p.Bold(string(h.Host)), h.Permit.Until.Local().Format("2006-01-02 15:04"))
		}
		if h.Permit != nil {
			showGrants(p, h.Permit.Grants)
		}
	}
	if f := v.Fleet; f != nil {
		p.Line("The policy lets agents do alone, %v at a time:", f.Life)
		showGrants(p, f.Grants)
		for _, h := range f.Hosts {
			if h.Serial == "" {
				p.Text(fmt.Sprintf("  %-20s ", h.Label), p.Yellow("may do nothing alone: "+h.Why))
				continue
			}
			p.Line("  %-20s for %v", h.Label, h.Left.Round(time.Minute))
		}
	}
}

func showGrants(p *show.Printer, list []fettle.Grant) {
	if len(list) == 0 {
		p.Line("  nothing")
	}
	for _, g := range list {
		where := ""
		if g.Hosts != "" && g.Hosts != "*" {
			where = " on " + g.Hosts
		}
		p.Text("  ", g.Action+" of "+g.Subject+where+", "+p.Dim(rate(g)))
	}
}

func rate(g fettle.Grant) string {
	return times(g.PerSubject) + " each and " + times(g.PerHost) + " in all within " + g.Window.String()
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
