package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/store"
)

// majorityWait is after what time it is said that a majority is waited for.
const majorityWait = 5 * time.Second

// began is how this server's part of the store began. It is there from before its
// first start on, so that a part that is lost is told from one that never was.
type began struct {
	Schema   int            `json:"schema"`
	Existing []store.Member `json:"existing,omitempty"` // of the store that was joined; none: it was this server's own
	Started  bool           `json:"started"`            // it was there once
	Prefix   string         `json:"prefix,omitempty"`   // in the existing etcd that is the store; "": the store is embedded
}

func (c *Server) beganFile() string { return filepath.Join(c.o.Dir, beganName) }

// Hold keeps every other process out of a folder until the function that it returns
// is called. ErrRunning: one runs there.
func Hold(dir string) (func() error, error) {
	f, err := lock(dir)
	if err != nil {
		return nil, err
	}
	return f.Close, nil
}

// Fresh says of a folder whose store is restored that it is one that was never there:
// what was of another store is forgotten.
func Fresh(dir string) error {
	if err := os.Remove(filepath.Join(dir, beganName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget how the store before began: %w", err)
	}
	return nil
}

// FreshExisting says of a folder that its store is restored in an existing etcd, below a
// prefix.
func FreshExisting(dir, prefix string) error {
	return keepBegan(filepath.Join(dir, beganName), began{Schema: 1, Started: true, Prefix: prefix})
}

// beganName is the file that says how a server's part of the store began.
const beganName = "members.json"

// openStore opens the authority and the store; one of several joins the others first,
// where it is to.
func (c *Server) openStore(ctx context.Context) (err error) {
	caDir := AuthorityDir(c.o.Dir)
	if c.o.Peers == nil {
		if c.ca, err = authority(caDir, c.o.Clock.Wall()); err != nil {
			return err
		}
		c.st, err = store.OpenEtcd(ctx, store.EtcdOptions{Dir: StoreDir(c.o.Dir), Fleet: c.ca.Fleet(), Limits: c.o.Limits})
		return err
	}
	if c.o.Store != nil {
		return c.openExisting(ctx, caDir)
	}
	if token := c.o.Peers.Join; token != nil {
		err = c.join(ctx, *token, caDir)
	} else {
		c.ca, err = authority(caDir, c.o.Clock.Wall())
	}
	if err != nil {
		return err
	}
	how, err := c.howItBegan()
	if err != nil {
		return err
	}
	id, err := c.ca.Issue(c.identityDir(), pki.RoleServer, pki.MintID(), c.o.Clock.Wall(), pki.ServerLife)
	if err != nil {
		return err
	}
	c.storeBelieves = bundle(c.ca.Trust().Authorities())
	if err := renameio.WriteFile(c.trustedFile(), c.storeBelieves, 0o600); err != nil {
		return fmt.Errorf("keep the authority's certificate for the store: %w", err)
	}
	p := c.o.Peers
	address := p.Address
	if address == "" {
		address = c.o.Listen
	}
	waiting := time.AfterFunc(majorityWait, func() {
		c.o.Log.Warn("waiting for a majority of the servers: until they are there, nothing is decided (start them; `fettle servers` on one that runs lists them)")
	})
	defer waiting.Stop()
	c.st, err = store.OpenEtcd(ctx, store.EtcdOptions{Dir: StoreDir(c.o.Dir), Fleet: c.ca.Fleet(), Limits: c.o.Limits, Peers: &store.Peers{
		Name: id.Name.ID, Listen: p.Listen, Advertise: p.Advertise, Address: address, Existing: how.Existing,
		CertFile: pki.IdentityFile(c.identityDir(), pki.RoleServer), AuthorityFile: c.trustedFile(), ServerName: pki.ServerName,
	}})
	if err != nil {
		return err
	}
	if len(how.Existing) == 0 {
		if err := pki.NewRegister(c.ca, c.st.Shelf()).Found(ctx, id.Name.ID, c.o.Label, c.o.Clock.Wall()); err != nil {
			return err
		}
	}
	how.Started = true
	return c.keepBegan(how)
}

// join makes this machine a server of a fleet that is there, unless it is one
// already.
func (c *Server) join(ctx context.Context, token pki.Token, caDir string) error {
	peer := c.o.Peers.Advertise
	if peer == "" {
		peer = c.o.Peers.Listen
	}
	ca, members, err := server.Join(ctx, server.JoinOptions{
		Token: token, CADir: caDir, Dir: c.identityDir(), Label: c.o.Label, Peer: peer, Wall: c.o.Clock.Wall})
	if err != nil {
		return err
	}
	c.ca = ca
	return c.keepBegan(began{Schema: 1, Existing: members})
}

// howItBegan says how the store is started. A part of the store that was there and is
// gone is an error: begun anew, it would forget what it has voted for.
func (c *Server) howItBegan() (began, error) {
	data, err := os.ReadFile(c.beganFile())
	if errors.Is(err, fs.ErrNotExist) {
		how := began{Schema: 1}
		return how, c.keepBegan(how)
	}
	var how began
	if err == nil {
		err = json.Unmarshal(data, &how)
	}
	if err != nil {
		return began{}, fmt.Errorf("how this server's part of the store began: %s: %w (restore it from a backup)", c.beganFile(), err)
	}
	if how.Prefix != "" && how.Started {
		return began{}, fmt.Errorf("this server's store is an existing etcd, below %s (name it with --store; to move to a store of the servers' own: `fettle backup` while it runs, then `fettle restore` into another folder)", how.Prefix)
	}
	how.Prefix = "" // it was named, and never reached
	if how.Started && !store.Holds(StoreDir(c.o.Dir)) {
		return began{}, fmt.Errorf("this server's part of the store is gone from %s: begun anew it would forget what it has voted for. Where other servers run: move %s aside, take this one out with `fettle remove-server` there, and join it again with a new token. Where none does: restore a backup", StoreDir(c.o.Dir), c.o.Dir)
	}
	return how, nil
}

func (c *Server) keepBegan(how began) error { return keepBegan(c.beganFile(), how) }

func keepBegan(file string, how began) error {
	data, err := json.Marshal(how)
	if err == nil {
		err = renameio.WriteFile(file, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep how this server's part of the store began: %w", err)
	}
	return nil
}
