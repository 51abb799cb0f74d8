package control

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/google/renameio/v2"

	"fettle/internal/fleet/pki"
)

// ErrAgain is returned by Run when the server is to be opened and run anew, which changes
// nothing but whom its part of the store believes: etcd reads that when it starts.
var ErrAgain = errors.New("the server starts anew")

// trustedFile holds the certificates of the authorities that the store's peers believe.
func (c *Server) trustedFile() string { return filepath.Join(c.identityDir(), "authority.pem") }

func bundle(authorities [][]byte) []byte {
	var out []byte
	for _, der := range authorities {
		out = append(out, pki.PEM(der)...)
	}
	return out
}

// believed is server.Options.Believed. The command line of this machine gets a
// certificate of the authority that issues now.
func (c *Server) believed(authorities [][]byte) (again bool, err error) {
	if err := c.adminIdentity(); err != nil {
		return false, err
	}
	text := bundle(authorities)
	if c.o.Peers == nil || c.o.Store != nil || bytes.Equal(text, c.storeBelieves) {
		return false, nil
	}
	if err := renameio.WriteFile(c.trustedFile(), text, 0o600); err != nil {
		return false, fmt.Errorf("keep the authority's certificate for the store: %w", err)
	}
	return true, nil
}

// runAgain is server.Options.Again.
func (c *Server) runAgain() {
	select {
	case c.again <- struct{}{}:
	default: // it was said
	}
}
