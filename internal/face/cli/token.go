package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"fettle/internal/face/show"
	"fettle/internal/fleet/wire"
)

func (a *app) tokenCommand() *cobra.Command {
	var r remote
	var address string
	var life time.Duration
	var forServer bool
	c := &cobra.Command{
		Use: "token", Short: "Make a token with which one machine may join", Args: cobra.NoArgs,
		Example: "  fettle token --address 10.0.0.5:7401\n  fettle token --server-token    # for `fettle server --join`",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				t, err := api.JoinToken(ctx, &wire.JoinTokenRequest{Address: address, LifeNs: int64(life), Server: forServer})
				if err != nil {
					return err
				}
				return a.print(map[string]string{"token": t.GetToken()}, func(p *show.Printer) { p.Line("%s", t.GetToken()) })
			})
		},
	}
	c.Flags().StringVar(&address, "address", "", "at which the new machine reaches the server (default: as this command does)")
	c.Flags().DurationVar(&life, "life", 0, "how long it may be used (default fifteen minutes)")
	c.Flags().BoolVar(&forServer, "server-token", false, "for a further server of the fleet, which gets the fleet's authority; guard it accordingly")
	r.flags(c)
	return c
}
