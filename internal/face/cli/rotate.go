package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/face/show"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

// secrets is what can be rotated.
var secrets = []string{"gossip", "authority", "tokens"}

func (a *app) rotateCommand() *cobra.Command {
	var r remote
	req := &wire.RotateRequest{}
	var overlap time.Duration
	c := &cobra.Command{
		Use: "rotate gossip|authority|tokens", Short: "Replace a secret of the fleet by a new one", Args: cobra.ExactArgs(1), ValidArgs: secrets,
		Long: `Replaces a secret of the fleet by a new one, with overlap. That it was asked
for, and by whom, is in the log.

gossip: the key of the gossip among the agents. Every host is given the new key
beside the old one; when all have it, it is used; when all use it, the old one
is removed.

authority: the key with which the certificates of servers, agents and people are
issued. A new one goes to every server. Then every server, agent and executor
believes it beside the old one, by the old one's own word. When all do, it
issues, and all get certificates of it. When all have one, and what the old one
has signed has ended (a day and an hour, where standing permits hold for a day;
--overlap), the old one is believed no more, and its keys are destroyed. A
person's certificate is renewed when "fettle" is used. Make a backup then: one
from before holds an authority that nobody believes.

tokens: the join tokens that are out end within fifteen minutes, or --now.

A host that does not confirm holds a rotation up, and "fettle status" names it.
--without goes on without it: one that does not come back before the old
authority is believed no more must join anew. --abort takes a change of the
authority back, until the old one is believed no more.`,
		Example: "  fettle rotate gossip && fettle status\n  fettle rotate authority\n  fettle rotate authority --without 2xk4…\n  fettle rotate authority --abort\n  fettle rotate tokens --now",
		RunE: func(cmd *cobra.Command, args []string) error {
			req.What, req.By, req.OverlapNs = args[0], person(), int64(overlap)
			if !slices.Contains(secrets, req.GetWhat()) {
				return exit(ExitUsage, "%.40q cannot be rotated (what can be: gossip, authority, tokens)", req.GetWhat())
			}
			for _, f := range [][2]string{{"abort", "authority"}, {"without", "authority"}, {"overlap", "authority"}, {"now", "tokens"}} {
				if cmd.Flags().Changed(f[0]) && f[1] != req.GetWhat() {
					return exit(ExitUsage, "--%s is for `fettle rotate %s`", f[0], f[1])
				}
			}
			if overlap < 0 || req.GetAbort() && (overlap > 0 || len(req.GetWithout()) > 0) {
				return exit(ExitUsage, "--abort, --without and --overlap are one at a time, and a time is not negative")
			}
			return r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				got, err := api.Rotate(ctx, req)
				if err != nil {
					return err
				}
				return a.print(map[string]string{"rotates": req.GetWhat(), "said": got.GetSaid()}, func(p *show.Printer) { p.Text("", got.GetSaid()) })
			})
		},
	}
	c.Flags().BoolVar(&req.Abort, "abort", false, "authority: take the change back")
	c.Flags().StringSliceVar(&req.Without, "without", nil, "authority: identities of hosts to go on without")
	c.Flags().DurationVar(&overlap, "overlap", 0, "authority: how long the old one is believed beside the new, at least as long as a\nstanding permit holds (default: that and an hour)")
	c.Flags().BoolVar(&req.Now, "now", false, "tokens: end them at once")
	r.flags(c)
	return c
}

// authorityLine is how far a change of the authority is, as a program reads it.
type authorityLine struct {
	Believed []string   `json:"believed"`        // pins, the one that issues first
	Phase    string     `json:"phase,omitempty"` // empty: nothing is under way
	Since    *time.Time `json:"since,omitempty"`
	Back     bool       `json:"back,omitempty"` // it is being taken back
	Waits    []waitLine `json:"waits,omitempty"`
	Hold     string     `json:"hold,omitempty"`    // what else it waits for
	Without  []string   `json:"without,omitempty"` // hosts that it goes on without
}

// waitLine is one that a change waits for.
type waitLine struct {
	Host   string `json:"host,omitempty"`
	Server string `json:"server,omitempty"`
	Label  string `json:"label,omitempty"`
	Why    string `json:"why"`
}

func authorityLineOf(s *wire.AuthorityStatus, hosts []*wire.Host) *authorityLine {
	if s == nil {
		return nil
	}
	l := &authorityLine{Believed: s.GetBelieved(), Phase: s.GetPhase(), Back: s.GetBack(), Hold: s.GetHold(), Without: s.GetWithout()}
	if s.GetSinceUnix() != 0 {
		at := time.Unix(s.GetSinceUnix(), 0).UTC()
		l.Since = &at
	}
	for _, w := range s.GetWaits() {
		line := waitLine{Host: w.GetHost(), Server: w.GetServer(), Why: w.GetWhy()}
		for _, h := range hosts {
			if h.GetId() == line.Host {
				line.Label = h.GetLabel()
			}
		}
		l.Waits = append(l.Waits, line)
	}
	return l
}

func (l *authorityLine) print(p *show.Printer) {
	if l.Phase == "" {
		return
	}
	p.Text(p.Yellow("the authority is being changed")+" ", l.Phase)
	since := ""
	if l.Since != nil {
		since = ", for " + show.Took(time.Since(*l.Since))
	}
	for _, w := range l.Waits {
		switch {
		case w.Host == "":
			p.Line("    waits for server %s%s: %s", w.Server, since, w.Why)
		default:
			p.Line("    waits for %s (%s)%s: %s", w.Label, w.Host, since, w.Why)
		}
	}
	if l.Hold != "" {
		p.Text("    ", l.Hold)
	}
	for _, h := range l.Without {
		p.Line("    goes on without %s", h)
	}
}

// believedWait bounds what is done before what was asked for.
const believedWait = 3 * time.Second

// stayBelieved has a person believe what the fleet's authority says, over a connection
// that the one it believes already vouches for, and renews a certificate that is due. A
// server of an older version says nothing of it.
func stayBelieved(ctx context.Context, api wire.AdminServiceClient, id *pki.Identity, dir string) (*pki.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, believedWait)
	defer cancel()
	got, err := api.Authorities(ctx, &wire.AuthoritiesRequest{})
	switch status.Code(err) {
	case codes.OK:
	case codes.Unimplemented, codes.Unavailable, codes.DeadlineExceeded:
		return id, nil // what was asked for says so as well
	default:
		return id, err
	}
	var words []pki.SignedWord
	for _, w := range got.GetWords() {
		words = append(words, pki.SignedWord{Note: w.GetNote(), Authorities: w.GetAuthorities()})
	}
	next, err := id.Believing(words)
	if err != nil {
		return id, err
	}
	if next.Outdated() || next.Due(time.Now()) {
		req, err := next.Renewal()
		if err != nil {
			return id, err
		}
		resp, err := api.Renew(ctx, &wire.RenewRequest{Schema: wire.Schema, Csr: req.CSR})
		if err != nil {
			return id, fmt.Errorf("%s", status.Convert(err).Message())
		}
		if next, err = req.Renewed(resp.GetCertificate(), next); err != nil {
			return id, err
		}
	}
	if next == id {
		return id, nil
	}
	return next, next.Save(dir)
}
