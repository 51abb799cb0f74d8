package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fettle/internal/face/show"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/wire"
)

// gossipFlag is where an agent gossips.
func gossipFlag(c *cobra.Command, to *string) {
	c.Flags().StringVar(to, "gossip-listen", agent.GossipAuto, fmt.Sprintf("address and port of this host for gossip with the others; %q: the one by which it reaches the server, port %d; empty: none", agent.GossipAuto, agent.GossipPort))
}

// hostLine is a host as a program reads it.
type hostLine struct {
	ID        string        `json:"id"`
	Label     string        `json:"label"`
	Life      string        `json:"life"`          // alive, dead, hung, agent_dead, cannot_tell; empty: not judged
	Why       []string      `json:"why,omitempty"` // first what decided
	For       time.Duration `json:"for_ns"`        // how long it is so
	Connected bool          `json:"connected"`
	Address   string        `json:"address,omitempty"`
	Version   string        `json:"version,omitempty"`
	BootID    string        `json:"boot_id,omitempty"`
	Joined    time.Time     `json:"joined"`
}

func (a *app) hostsCommand() *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use: "hosts", Short: "List the hosts, and which of them live", Args: cobra.NoArgs,
		Long: `Lists the fleet's hosts with what all witnesses together say of each: alive;
dead, when nothing of it answers to two kinds of witness at least; hung, when
its kernel answers and nothing that runs there does; agent dead, when the
machine is there and its agent is gone; or that nobody can tell, and why.

The exit status is 1 when one is dead, hung or without agent, 2 when of one it
cannot be told.`,
		Example: "  fettle hosts\n  fettle hosts -o json | jq -r '.[] | select(.life==\"dead\").label'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				got, err := api.Hosts(ctx, &wire.HostsRequest{})
				if err != nil {
					return err
				}
				return a.printHosts(got.GetHosts())
			})
		},
	}
	r.flags(c)
	return c
}

func (a *app) printHosts(hosts []*wire.Host) error {
	list := []hostLine{}
	ill, open := false, false
	for _, h := range hosts {
		list = append(list, hostLine{
			ID: h.GetId(), Label: h.GetLabel(), Life: h.GetLife(), Why: h.GetLifeWhy(), For: time.Duration(h.GetLifeAgeNs()), Connected: h.GetConnected(),
			Address: h.GetAddress(), Version: h.GetVersion(), BootID: h.GetBootId(), Joined: time.Unix(h.GetJoinedUnix(), 0).UTC(),
		})
		switch h.GetLife() {
		case "alive":
		case "dead", "hung", "agent_dead":
			ill = true
		default:
			open = true
		}
	}
	err := a.print(list, func(p *show.Printer) {
		for _, h := range list {
			p.Line("  %-20s %s  %s", h.Label, lifeWord(p, h.Life), p.Dim(h.ID))
			if h.Life != "alive" && len(h.Why) > 0 {
				p.Text("    for "+show.Took(h.For)+": ", h.Why[0])
				for _, also := range h.Why[1:] {
					p.Text("    also: ", also)
				}
			}
		}
		if len(list) == 0 {
			p.Line("no host has joined (see `fettle token`)")
		}
	})
	switch {
	case err != nil:
		return err
	case ill:
		return &Exit{Code: ExitIll}
	case open:
		return &Exit{Code: ExitUnknown}
	}
	return nil
}

// lifeWord is what people read of a host.
func lifeWord(p *show.Printer, life string) string {
	switch life {
	case "alive":
		return p.Green("alive")
	case "dead", "hung":
		return p.Red(life)
	case "agent_dead":
		return p.Yellow("agent dead")
	case "":
		return p.Dim("not judged")
	}
	return p.Yellow("cannot tell")
}

func (a *app) forgetCommand() *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use: "forget ID", Short: "Send a host away from the fleet, for good", Args: cobra.ExactArgs(1),
		Long: `Makes a host's certificate useless and forgets what it saw. To come back it
joins anew, under another identity. It still has the key of the gossip: replace
that with "fettle rotate gossip" if others may get at the machine.`,
		Example: "  fettle forget 2xk4…",
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				if _, err := api.Forget(ctx, &wire.ForgetRequest{Id: args[0]}); err != nil {
					return err
				}
				return a.print(map[string]string{"forgotten": args[0]}, func(p *show.Printer) { p.Line("%s is not of the fleet any more", args[0]) })
			})
		},
	}
	r.flags(c)
	return c
}

// gossipLine is how the machines see each other, as a program reads it.
type gossipLine struct {
	Rings    int32         `json:"rings"`
	Members  int32         `json:"members"`
	Seen     int32         `json:"seen"`          // the fewest others that one of them sees
	P50      time.Duration `json:"spread_p50_ns"` // 0: not measured yet
	P99      time.Duration `json:"spread_p99_ns"`
	Settings string        `json:"settings"`
	Key      string        `json:"key"`
	Rotation string        `json:"rotation,omitempty"`
	Waits    []string      `json:"waits,omitempty"`
	Without  []string      `json:"without,omitempty"`
}

// gossipOf is that, with the names of hosts where they are known.
func gossipOf(g *wire.GossipStatus, hosts []*wire.Host) *gossipLine {
	if g == nil {
		return nil
	}
	named := func(list []string) []string {
		var out []string
		for _, text := range list {
			id, rest, more := strings.Cut(text, ":")
			for _, h := range hosts {
				if h.GetId() == id {
					id = h.GetLabel() + " (" + id + ")"
				}
			}
			if more {
				id += ":" + rest
			}
			out = append(out, id)
		}
		return out
	}
	return &gossipLine{
		Rings: g.GetRings(), Members: g.GetMembers(), Seen: g.GetSeen(), P50: time.Duration(g.GetSpreadP50Ns()), P99: time.Duration(g.GetSpreadP99Ns()),
		Settings: g.GetSettings(), Key: g.GetKey(), Rotation: g.GetRotation(), Waits: named(g.GetWaits()), Without: named(g.GetWithout()),
	}
}

func (g *gossipLine) print(p *show.Printer) {
	if g.Members == 0 && len(g.Without) == 0 {
		return
	}
	spread := "the spread of news is not measured yet"
	if g.P99 > 0 {
		spread = "news reaches half of a ring in " + show.Took(g.P50) + ", 99 in 100 hosts in " + show.Took(g.P99)
	}
	rings := "rings"
	if g.Rings == 1 {
		rings = "ring"
	}
	p.Text("gossip: ", fmt.Sprintf("%d hosts in %d %s, each sees %d others at least; %s", g.Members, g.Rings, rings, g.Seen, spread))
	p.Text("  ", p.Dim(g.Settings))
	for _, w := range g.Without {
		p.Text("  "+p.Yellow("does not gossip")+" ", w)
	}
	if g.Rotation != "" {
		p.Text("  "+p.Yellow("key rotation")+" ", g.Rotation)
		for _, h := range g.Waits {
			p.Line("    waits for %s", h)
		}
	}
}
