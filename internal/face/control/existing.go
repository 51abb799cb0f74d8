package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/store"
)

// openExisting opens the authority and the store in an etcd cluster that is there; one
// of several joins the others first, where it is to.
func (c *Server) openExisting(ctx context.Context, caDir string) error {
	how, err := c.beganExisting()
	if err != nil {
		return err
	}
	if token := c.o.Peers.Join; token != nil {
		err = c.joinExisting(ctx, *token, caDir)
		how.Started = true
	} else {
		c.ca, err = authority(caDir, c.o.Clock.Wall())
	}
	if err == nil {
		err = c.keepBegan(how)
	}
	if err != nil {
		return err
	}
	id, err := c.ca.Issue(c.identityDir(), pki.RoleServer, pki.MintID(), c.o.Clock.Wall(), pki.ServerLife)
	if err != nil {
		return err
	}
	c.st, err = store.OpenEtcd(ctx, store.EtcdOptions{Dir: StoreDir(c.o.Dir), Fleet: c.ca.Fleet(), Limits: c.o.Limits, Existing: &store.Existing{
		Where: *c.o.Store, Name: id.Name.ID, Address: cmp.Or(c.o.Peers.Address, c.o.Listen), Found: !how.Started, Waiting: c.waiting(),
	}})
	if err != nil {
		return err
	}
	for _, text := range c.st.Warnings(ctx) {
		c.o.Log.Warn(text)
	}
	register := pki.NewRegister(c.ca, c.st.Shelf())
	if err := register.Found(ctx, id.Name.ID, c.o.Label, c.o.Clock.Wall()); err != nil {
		return err
	}
	switch in, err := register.Admitted(ctx, id.Name); {
	case err != nil:
		return err
	case !in:
		return fmt.Errorf("server %s is none of the servers that the store %s knows (it was taken out: to come back it joins anew, with another folder and a token)", id.Name.ID, c.o.Store)
	}
	how.Started = true
	return c.keepBegan(how)
}

// beganExisting says whether the store was this server's already. A folder that has
// another one is refused.
func (c *Server) beganExisting() (began, error) {
	prefix := cmp.Or(c.o.Store.Prefix, store.DefaultPrefix)
	var how began
	data, err := os.ReadFile(c.beganFile())
	switch {
	case err == nil:
		err = json.Unmarshal(data, &how)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	switch own := store.Holds(StoreDir(c.o.Dir)); {
	case err != nil:
		return began{}, fmt.Errorf("in which store this server is: %s: %w (restore it from a backup)", c.beganFile(), err)
	case !how.Started && !own:
		return began{Schema: 1, Prefix: prefix}, nil
	case how.Prefix == "":
		return began{}, fmt.Errorf("this server has a store of its own in %s (to move it to an existing etcd: `fettle backup` while it runs, then `fettle restore --store …` into another folder)", StoreDir(c.o.Dir))
	case how.Prefix != prefix:
		return began{}, fmt.Errorf("this server's store is below %s, and not below %s (name it with --store-prefix)", how.Prefix, prefix)
	}
	return how, nil
}

// joinExisting makes this machine a server of a fleet that is there. That it names the
// store of that fleet is made sure of before the token is used up: the token is known
// there, and nowhere else.
func (c *Server) joinExisting(ctx context.Context, token pki.Token, caDir string) error {
	look, err := store.OpenEtcd(ctx, store.EtcdOptions{Existing: &store.Existing{Where: *c.o.Store, Look: true, Waiting: c.waiting()}})
	if err != nil {
		return err
	}
	invited, err := pki.NewRegister(nil, look.Shelf()).Invited(ctx, token.ID)
	if err = errors.Join(err, look.Close()); err != nil {
		return fmt.Errorf("join as a server: %w", err)
	}
	if !invited {
		return fmt.Errorf("join as a server: the store %s does not know this token: either it is not the store of the servers at %s, or the token was used or has ended (name the same --store and --store-prefix as they, and make a new token)", c.o.Store, token.Address)
	}
	c.ca, _, err = server.Join(ctx, server.JoinOptions{Token: token, CADir: caDir, Dir: c.identityDir(), Label: c.o.Label, Wall: c.o.Clock.Wall})
	return err
}

// waiting says, once it takes long, why the store cannot be used yet.
func (c *Server) waiting() func(error) {
	var said atomic.Bool
	var began = c.o.Clock.Now()
	return func(err error) {
		if c.o.Clock.Now().Sub(began) >= majorityWait && said.CompareAndSwap(false, true) {
			c.o.Log.Warn("waiting for the store: until it answers, nothing is decided", "error", err)
		}
	}
}
