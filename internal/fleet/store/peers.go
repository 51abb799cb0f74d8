package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// Peers say how a server's etcd is one of several.
type Peers struct {
	Name      string   // of this server, as its certificate has it; etcd's member has it too
	Listen    string   // host:port for the etcd of the other servers
	Advertise string   // host:port at which they reach it; "": Listen
	Address   string   // host:port at which agents and people reach this server
	Existing  []Member // of the store that this server joins, itself included; nil: its own first start, or a later one
	// PEM files with which peers prove that they are servers of this fleet: key and
	// certificate, and the authority's certificate. They are read at every handshake.
	CertFile, AuthorityFile string
	ServerName              string // in every server's certificate, and in nobody else's
}

// Member is a server's part of the store.
type Member struct {
	Name    string `json:"name"`    // the server's; "": it has not started yet
	Peer    string `json:"peer"`    // host:port for other servers' etcd
	Learner bool   `json:"learner"` // it catches up and has no vote yet
}

func (p *Peers) advertised() string {
	if p.Advertise != "" {
		return p.Advertise
	}
	return p.Listen
}

func peerURL(hostPort string) string { return (&url.URL{Scheme: "https", Host: hostPort}).String() }

// configure makes an etcd one of several. Peers are mutual TLS: who has no
// certificate of a server of this fleet is not spoken to.
func (p *Peers) configure(conf *embed.Config) {
	conf.Name = p.Name
	conf.ListenPeerUrls = []url.URL{{Scheme: "https", Host: p.Listen}}
	conf.AdvertisePeerUrls = []url.URL{{Scheme: "https", Host: p.advertised()}}
	conf.PeerTLSInfo = transport.TLSInfo{
		CertFile: p.CertFile, KeyFile: p.CertFile, ClientCertFile: p.CertFile, ClientKeyFile: p.CertFile, TrustedCAFile: p.AuthorityFile,
		ClientCertAuth: true, ServerName: p.ServerName, AllowedHostnames: []string{p.ServerName},
		SkipClientSANVerify: true, // names say who a server is, addresses do not
	}
	conf.InitialCluster = p.Name + "=" + peerURL(p.advertised())
	if len(p.Existing) > 0 {
		conf.ClusterState = embed.ClusterStateFlagExisting
		var all []string
		for _, m := range p.Existing {
			all = append(all, m.Name+"="+peerURL(m.Peer))
		}
		conf.InitialCluster = strings.Join(all, ",")
	}
}

// errPeers is returned by what only one of several servers can do.
var errPeers = errors.New("this server is alone: its store has no other members (run `fettle server` instead of `fettle up`)")

// ErrExisting is returned by what only a store of Fettle's own can do.
var ErrExisting = errors.New("not supported: the store is an etcd cluster that is not Fettle's own (grow, shrink and mend it with its own tools)")

// grows says why members cannot come and go; nil where they can.
func (e *Etcd) grows() error {
	switch {
	case e.o.Existing != nil:
		return ErrExisting
	case e.o.Peers == nil:
		return errPeers
	}
	return nil
}

// self is this server as the others know it; false: there are no others, and never
// will be.
func (e *Etcd) self() (Leader, bool) {
	switch {
	case e.o.Existing != nil:
		return Leader{Name: e.o.Existing.Name, Address: e.o.Existing.Address}, true
	case e.o.Peers != nil:
		return Leader{Name: e.o.Peers.Name, Address: e.o.Peers.Address}, true
	}
	return Leader{}, false
}

// Members returns the members of the store, by name: none, where it is not Fettle's own.
func (e *Etcd) Members(ctx context.Context) ([]Member, error) {
	if e.o.Existing != nil {
		return nil, nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	resp, err := e.client.MemberList(ctx)
	if err != nil {
		return nil, fmt.Errorf("members of the store: %w", err)
	}
	return members(resp.Members), nil
}

func members(list []*etcdserverpb.Member) []Member {
	var out []Member
	for _, m := range list {
		one := Member{Name: m.Name, Learner: m.IsLearner}
		if len(m.PeerURLs) > 0 {
			if u, err := url.Parse(m.PeerURLs[0]); err == nil {
				one.Peer = u.Host
			}
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.Name+" "+a.Peer, b.Name+" "+b.Peer) })
	return out
}

// Add lets a further server's etcd in, as a learner: it has no vote, and takes none
// away, until it has caught up and Attend gave it one. It returns all members, the
// new one with its name. Called again for a server that never started, it gives the
// same answer.
func (e *Etcd) Add(ctx context.Context, name, peer string) ([]Member, error) {
	if err := e.grows(); err != nil {
		return nil, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	var resp *clientv3.MemberAddResponse
	err := settled(ctx, func() (err error) {
		resp, err = e.client.MemberAddAsLearner(ctx, []string{peerURL(peer)})
		return err
	})
	var list []Member
	switch {
	case err == nil:
		list = members(resp.Members)
	case errors.Is(err, rpctypes.ErrTooManyLearners):
		return nil, fmt.Errorf("add server at %s: another one is joining, or never started (look with `fettle servers`): %w", peer, err)
	default:
		return nil, fmt.Errorf("add server at %s: %w", peer, err)
	}
	for i := range list {
		if list[i].Peer == peer && list[i].Name == "" {
			list[i].Name = name
		}
	}
	if i := slices.IndexFunc(list, func(m Member) bool { return m.Name == "" }); i >= 0 {
		return nil, fmt.Errorf("add server at %s: the one at %s was added and never started (take it out with `fettle remove-server %s`)", peer, list[i].Peer, list[i].Peer)
	}
	return list, nil
}

// Remove takes a server's etcd out, by its name, or by its peer's address where it
// never started. The error wraps fs.ErrNotExist where there is none. Etcd refuses
// where those that stay would have no majority.
func (e *Etcd) Remove(ctx context.Context, name string) error {
	if err := e.grows(); err != nil {
		return err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	resp, err := e.client.MemberList(ctx)
	if err != nil {
		return fmt.Errorf("remove server %s: %w", name, err)
	}
	for _, m := range resp.Members {
		if one := members([]*etcdserverpb.Member{m})[0]; one.Name == name || one.Name == "" && one.Peer == name {
			err := settled(ctx, func() error {
				_, err := e.client.MemberRemove(ctx, m.ID)
				return err
			})
			if err != nil {
				return fmt.Errorf("remove server %s from the store: %w", name, err)
			}
			return nil
		}
	}
	return fmt.Errorf("remove server %s from the store: %w", name, fs.ErrNotExist)
}

// atHome tells the members where this one is reached, when that has changed: its
// machine has another address, or it was alone until now (`fettle up`).
func (e *Etcd) atHome(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	own := uint64(e.server.etcd.Server.MemberID())
	resp, err := e.client.MemberList(ctx)
	if err != nil {
		return fmt.Errorf("where the store's members are: %w", explain(err))
	}
	want := []string{peerURL(e.o.Peers.advertised())}
	for _, m := range resp.Members {
		if m.ID == own && !slices.Equal(m.PeerURLs, want) {
			if _, err := e.client.MemberUpdate(ctx, own, want); err != nil {
				return fmt.Errorf("tell the store's members that this one is at %s: %w", want[0], err)
			}
		}
	}
	return nil
}

// settled tries a change of the members again while etcd refuses it because one of
// them was not connected to all others for the last five seconds, until ctx ends. In
// a store that has just grown that is so for a moment.
func settled(ctx context.Context, change func() error) error {
	for {
		err := change()
		if !errors.Is(err, rpctypes.ErrUnhealthy) {
			return err
		}
		select {
		case <-time.After(attendEvery):
		case <-ctx.Done():
			return err
		}
	}
}

// attendEvery is how often Attend looks.
const attendEvery = 500 * time.Millisecond

// keyClock is written while a server joins: etcd's learner of a store that nobody
// writes to would wait for the next change to be ready.
const keyClock = "clock"

// Attend gives servers that have caught up their vote, until ctx ends. The server
// that leads calls it.
func (e *Etcd) Attend(ctx context.Context) {
	if e.o.Peers == nil {
		<-ctx.Done()
		return
	}
	ticker := time.NewTicker(attendEvery)
	defer ticker.Stop()
	for {
		e.promote(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// promote tries for every learner; one that is not ready is asked again.
func (e *Etcd) promote(ctx context.Context) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	resp, err := e.client.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return // asked again
	}
	for _, m := range resp.Members {
		if !m.IsLearner {
			continue
		}
		if _, err := e.kv.Put(ctx, keyClock, ""); err == nil {
			_, _ = e.client.MemberPromote(ctx, m.ID) // refused until it has caught up
		}
	}
}

// Holds reports whether a folder holds a store that was started there.
func Holds(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "data", "member", "wal"))
	return err == nil
}
