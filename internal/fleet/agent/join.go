package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

// JoinOptions is what a machine joins with.
type JoinOptions struct {
	Token pki.Token
	Dir   string           // where the identity is kept
	Label string           // the machine's host name
	Wall  func() time.Time // the machine's wall clock
	Dial  wire.Dialer      // how the server is reached; nil: over TCP
}

// Join makes this machine part of the token's fleet, and keeps its identity. A
// machine that has one already is refused with an error that wraps fs.ErrExist:
// a second identity would make it another machine.
func Join(ctx context.Context, o JoinOptions) (*pki.Identity, error) {
	switch have, err := pki.LoadIdentity(o.Dir, pki.RoleAgent); {
	case err == nil:
		return nil, fmt.Errorf("join: this machine is %s already, in %s: %w (move it aside to join anew as another machine)", have.Name.Host(), pki.IdentityFile(o.Dir, pki.RoleAgent), fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("join: %w", err)
	}
	req, err := pki.NewRequest()
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	conn, err := o.Dial.Client(o.Token.Address, pki.JoinTLS(o.Token.Pin, o.Wall))
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, wire.CallTimeout)
	defer cancel()
	resp, err := wire.NewEnrolServiceClient(conn).Join(ctx, &wire.JoinRequest{
		Schema: wire.Schema, TokenId: o.Token.ID, Secret: o.Token.Secret, Csr: req.CSR, Label: o.Label})
	if err != nil {
		return nil, fmt.Errorf("join %s: %w", o.Token.Address, said(err))
	}
	id, err := req.CompleteBelieving(resp.GetCertificate(), resp.GetAuthority(), o.Token.Pin, resp.GetAuthoritiesSerial(), resp.GetAuthorities())
	if err != nil {
		return nil, fmt.Errorf("join %s: %w", o.Token.Address, err)
	}
	if err := id.Save(o.Dir); err != nil {
		return nil, fmt.Errorf("join: the token is used up, and %w (mend that, and join with a new token)", err)
	}
	return id, nil
}

// renew gets a new certificate when two thirds of this one's life are over, or when the
// fleet has another authority issue them now. After the latter the error is errRenewed:
// the session is to begin anew, under that certificate.
func (a *Agent) renew(ctx context.Context, conn *grpc.ClientConn) error {
	a.renewing.Lock()
	defer a.renewing.Unlock()
	id := a.identity.Load()
	if !id.Due(a.o.Machine.Clock.Wall()) && !id.Outdated() {
		return nil
	}
	req, err := id.Renewal()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, wire.CallTimeout)
	defer cancel()
	resp, err := wire.NewEnrolServiceClient(conn).Renew(ctx, &wire.RenewRequest{Schema: wire.Schema, Csr: req.CSR})
	if err != nil {
		return fmt.Errorf("renew the certificate: %w", said(err))
	}
	fresh, err := req.Renewed(resp.GetCertificate(), id)
	if err != nil {
		return fmt.Errorf("renew the certificate: %w", err)
	}
	if a.o.IdentityDir != "" {
		if err := fresh.Save(a.o.IdentityDir); err != nil {
			return fmt.Errorf("renew the certificate: %w", err)
		}
	}
	a.identity.Store(fresh)
	a.o.Log.Info("the certificate was renewed", "expires", fresh.Expires(), "authority", fresh.Pin())
	if fresh.Pin() != id.Pin() {
		return errRenewed
	}
	return nil
}

// said is what the other side said, without the wrapping of the transport.
// status.Code of it tells "no contact" from "no".
func said(err error) error {
	if s, ok := status.FromError(err); ok {
		return answer{s}
	}
	return err
}

type answer struct{ s *status.Status }

func (a answer) Error() string              { return a.s.Message() }
func (a answer) GRPCStatus() *status.Status { return a.s }
