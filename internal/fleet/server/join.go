package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"google.golang.org/grpc/status"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
)

// JoinOptions is what a further server joins a fleet with.
type JoinOptions struct {
	Token pki.Token        // made for a server
	CADir string           // where the fleet's authority is kept
	Dir   string           // where this server's own identity is kept
	Label string           // the machine's host name
	Peer  string           // host:port at which the other servers' stores reach this one's; "": the store is an existing etcd
	Wall  func() time.Time // the machine's wall clock
}

// Join makes this machine a server of the token's fleet: it gets the fleet's
// authority and an identity, and a place in the store as one of the members that are
// returned. A machine that is a server already is refused with an error that wraps
// fs.ErrExist.
func Join(ctx context.Context, o JoinOptions) (*pki.CA, []store.Member, error) {
	for _, there := range []func() error{
		func() error { _, err := pki.Open(o.CADir); return err },
		func() error { _, err := pki.LoadIdentity(o.Dir, pki.RoleServer); return err },
	} {
		switch err := there(); {
		case err == nil:
			return nil, nil, fmt.Errorf("join as a server: this is one already: %w (start it without --join, or give it another folder)", fs.ErrExist)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, nil, fmt.Errorf("join as a server: %w", err)
		}
	}
	req, err := pki.NewRequest()
	if err != nil {
		return nil, nil, fmt.Errorf("join as a server: %w", err)
	}
	conn, err := wire.Dial(o.Token.Address, pki.JoinTLS(o.Token.Pin, o.Wall))
	if err != nil {
		return nil, nil, fmt.Errorf("join as a server: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, wire.CallTimeout)
	defer cancel()
	resp, err := wire.NewEnrolServiceClient(conn).JoinServer(ctx, &wire.JoinServerRequest{
		Schema: wire.Schema, TokenId: o.Token.ID, Secret: o.Token.Secret, Csr: req.CSR, Label: o.Label, Peer: o.Peer})
	if err != nil {
		return nil, nil, fmt.Errorf("join %s as a server: %s", o.Token.Address, status.Convert(err).Message())
	}
	id, err := req.Complete(resp.GetCertificate(), resp.GetAuthority(), o.Token.Pin)
	if err != nil {
		return nil, nil, fmt.Errorf("join %s as a server: %w", o.Token.Address, err)
	}
	// The identity first: with the authority alone this would look like a fleet's
	// first server.
	if err := id.Save(o.Dir); err != nil {
		return nil, nil, fmt.Errorf("join as a server: the token is used up, and %w (mend that, take the server that was begun out with `fettle remove-server`, and join with a new token)", err)
	}
	ca, err := pki.Import(o.CADir, resp.GetAuthorityKey(), o.Token.Pin)
	if err != nil {
		return nil, nil, fmt.Errorf("join as a server: %w", err)
	}
	var words []pki.SignedWord
	for _, w := range resp.GetAuthorityWords() {
		words = append(words, pki.SignedWord{Note: w.GetNote(), Authorities: w.GetAuthorities()})
	}
	if err := ca.Adopt(resp.GetMoreAuthorityKeys(), words); err != nil {
		return nil, nil, fmt.Errorf("join as a server: %w", err)
	}
	var members []store.Member
	for _, m := range resp.GetMembers() {
		members = append(members, store.Member{Name: m.GetName(), Peer: m.GetPeer(), Learner: m.GetLearner()})
	}
	return ca, members, nil
}
