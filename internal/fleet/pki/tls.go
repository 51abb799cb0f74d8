package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// serverName is in every server's certificate and is what clients verify: the
// address by which a server is reached says nothing about who it is.
const serverName = "server.fettle.internal"

// ErrExpired is wrapped when a certificate has ended, or not begun.
var ErrExpired = errors.New("certificate is not valid now")

// ErrStranger is wrapped when a certificate is not of this fleet.
var ErrStranger = errors.New("certificate is not of this fleet")

// ServerTLS returns how a server listens. The source is asked at every
// handshake, so that a renewed identity takes effect.
//
// A peer without a certificate is let in, since it may want to join; one that
// shows a certificate must have got it from this fleet's authority. That it may
// have expired is left to Peer, which can say so in words; a TLS alert cannot.
func ServerTLS(source func() *Identity) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		ClientAuth:             tls.RequestClientCert,
		SessionTicketsDisabled: true, // a resumed session would not show the certificate anew
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return source().believedBy(hello.ServerName).tls(), nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			_, err := source().chain(cs.PeerCertificates[0])
			return err
		},
	}
}

// chain is Trust.chain, as the bearer of this identity believes it.
func (id *Identity) chain(cert *x509.Certificate) (Name, error) { return id.Trust().chain(cert) }

// Peer returns who is at the other end of a connection, at this time. The error
// wraps ErrExpired or ErrStranger and says what to do.
func (id *Identity) Peer(cs tls.ConnectionState, now time.Time) (Name, *x509.Certificate, error) {
	if len(cs.PeerCertificates) == 0 {
		return Name{}, nil, fmt.Errorf("%w: none was shown (join this machine to the fleet first)", ErrStranger)
	}
	cert := cs.PeerCertificates[0]
	name, err := id.Bearer(cert, now)
	if err != nil {
		return Name{}, nil, err
	}
	return name, cert, nil
}

// Bearer returns whose a certificate is, at this time. The error wraps ErrExpired or
// ErrStranger. It proves nothing about who shows it.
func (id *Identity) Bearer(cert *x509.Certificate, now time.Time) (Name, error) {
	return id.Trust().bearer(cert, now)
}

// ServerName is in every server's certificate, and in nobody else's.
const ServerName = serverName

// InTime says whether the identity's own certificate is valid now.
func (id *Identity) InTime(now time.Time) error {
	if err := inTime(id.cert, now); err != nil {
		return fmt.Errorf("%s: %w", id.Name, err)
	}
	return nil
}

func inTime(cert *x509.Certificate, now time.Time) error {
	const form = "2006-01-02 15:04:05 MST"
	switch {
	case now.After(cert.NotAfter):
		return fmt.Errorf("%w: it expired at %s, and it is %s here (if the clocks are right, join again with a new token)",
			ErrExpired, cert.NotAfter.UTC().Format(form), now.UTC().Format(form))
	case now.Before(cert.NotBefore):
		return fmt.Errorf("%w: it begins at %s, and it is %s here (set the clock right)",
			ErrExpired, cert.NotBefore.UTC().Format(form), now.UTC().Format(form))
	}
	return nil
}

// hintLength is how much of an authority's pin is in the name by which a server is
// called: a label of the DNS has 63 characters at most.
const hintLength = 32

// askFor is the name by which a server is called by one who believes an authority: while
// that is being changed, a server shows each caller the certificate that it believes.
func askFor(pin string) string { return pin[:hintLength] + "." + serverName }

// believedBy is this server's identity under the authority that a caller asks for, or
// this one.
func (id *Identity) believedBy(name string) *Identity {
	for _, other := range id.beside {
		if askFor(other.Pin()) == name {
			return other
		}
	}
	return id
}

// ClientTLS returns how the bearer of an identity calls a server of its fleet. The source
// is asked at every handshake. now is the wall clock.
func ClientTLS(source func() *Identity, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: askFor(source().Pin()),
		// Whom to believe may change while a connection is made anew, and the name says
		// more than whose certificate is wanted. VerifyConnection does all that is left
		// out here.
		InsecureSkipVerify: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return source().tls(), nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			err := source().trust.server(cs.PeerCertificates[0], now())
			var unknown x509.UnknownAuthorityError
			if errors.As(err, &unknown) {
				return fmt.Errorf("the server's certificate: %w (another fleet answers here; or the fleet's authority was changed while this machine was away: then move its identity aside and join anew with a token)", err)
			}
			if err != nil {
				return fmt.Errorf("the server's certificate: %w", err)
			}
			return nil
		},
	}
}

func isServer(cert *x509.Certificate, fleet string) error {
	name, err := nameOf(cert)
	switch {
	case err != nil:
		return err
	case fleet != "" && name.Fleet != fleet:
		return fmt.Errorf("%w: the server is of fleet %s, this is %s", ErrStranger, name.Fleet, fleet)
	case name.Role != RoleServer:
		return fmt.Errorf("who answers is no server but a %s", name.Role)
	}
	return nil
}

// JoinTLS returns how a machine that has nothing but a token calls the server:
// whoever answers must have a certificate from the authority whose key has the
// token's pin.
func JoinTLS(pin string, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: askFor(pin),
		// There is no authority to verify with yet. VerifyConnection does all
		// that is left out here, with the one that the token pins.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			for _, c := range cs.PeerCertificates[1:] {
				if pinOf(c) != pin {
					continue
				}
				roots := x509.NewCertPool()
				roots.AddCert(c)
				_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
					Roots: roots, DNSName: serverName, CurrentTime: now(),
					KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
				})
				if err != nil {
					return fmt.Errorf("the server's certificate: %w", err)
				}
				return isServer(cs.PeerCertificates[0], "")
			}
			return fmt.Errorf("%w: who answers does not belong to the fleet that the token was made for (check the address in the token)", ErrStranger)
		},
	}
}
