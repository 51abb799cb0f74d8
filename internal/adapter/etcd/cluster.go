package etcd

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// cluster is what the instances of one machine know together of the cluster that
// their members are in. All methods may be called concurrently.
type cluster struct {
	system  string
	subject fettle.Subject
	m       machine.Machine
	dial    *dialer

	turn chan struct{} // held by the round under way; one at a time

	mu        sync.Mutex
	local     []*instance       // sorted by name
	nameOf    map[string]string // by peer URL, as configured and as listed
	peerOf    map[string]string // peer URL by name, as configured
	clientOf  map[string]string // client URL by name, as configured and as listed
	last      *round            // the newest
	known     *round            // the newest that had a list of members
	lastHash  time.Time
	hashCost  time.Duration
	hashTurns int
	barriers  map[string]barrier // of Recover, by dispatch key
}

func newCluster(system string, m machine.Machine, d *dialer) *cluster {
	return &cluster{
		system: system, subject: fettle.NewSubject(KindCluster, system), m: m, dial: d,
		turn:   make(chan struct{}, 1),
		nameOf: map[string]string{}, peerOf: map[string]string{}, clientOf: map[string]string{}, barriers: map[string]barrier{},
	}
}

// member returns the subject of the member of this name.
func (c *cluster) member(name string) fettle.Subject {
	return fettle.NewSubject(KindMember, c.system, name)
}

// locals returns the members of this machine.
func (c *cluster) locals() []*instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.local)
}

// own returns the instance of a member of this machine.
func (c *cluster) own(s fettle.Subject) (*instance, bool) {
	for _, in := range c.locals() {
		if in.member == s {
			return in, true
		}
	}
	return nil, false
}

// source says where a list of members came from.
type source int

const (
	configured source = iota // no member was ever asked with success
	remembered               // from an earlier round
	listed                   // a member said so in this round
)

// round is one look at all members, made at one time. It is not changed after it
// was made.
type round struct {
	started time.Time
	took    time.Duration
	from    source
	views   []view // sorted by name; also members of this machine that are not listed
	leader  uint64 // at the newest term at which one is known; 0: none
	term    uint64
	id      uint64            // of the cluster
	before  map[uint64]uint64 // applied index of each member one round earlier
}

// view is one member as it was seen in a round.
type view struct {
	name      string
	subject   fettle.Subject
	id        uint64 // 0: not listed, or not known
	listed    bool
	learner   bool
	unstarted bool // added, and has never joined
	peerURLs  []string
	clientURL string // "": not known, so it could not be asked

	status *pb.StatusResponse // nil: no answer
	err    error              // why not
	health fettle.Tri
}

// shared is how long ago a round may have been begun to serve a poll: probes that
// are due together ask once.
const shared = 100 * time.Millisecond

// look asks all members, concurrently, no earlier than now, and returns within
// about two seconds or when ctx ends; a member that has not answered by then has
// an error in its view. Callers that come while a round is under way share the
// next one.
func (c *cluster) look(ctx context.Context) *round { return c.lookSince(ctx, c.m.Clock.Now()) }

// poll is look for a caller whom a round that has just been made serves as well.
func (c *cluster) poll(ctx context.Context) *round {
	return c.lookSince(ctx, c.m.Clock.Now().Add(-shared))
}

func (c *cluster) lookSince(ctx context.Context, since time.Time) *round {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return c.combine(c.m.Clock.Now(), nil, nil, "")
	}
	c.mu.Lock()
	last := c.last
	c.mu.Unlock()
	if last != nil && !last.started.Before(since) {
		return last
	}
	started := c.m.Clock.Now()
	asked := map[string]*asking{}
	c.ask(ctx, asked, c.clientURLs(nil))
	list, from := bestList(asked)
	if list == nil {
		list = c.listFromPeers(ctx)
	}
	if list != nil {
		c.learn(list)
		c.ask(ctx, asked, c.clientURLs(list))
	}
	r := c.combine(started, list, asked, from)
	c.mu.Lock()
	c.last = r
	if r.from == listed {
		c.known = r
	}
	c.mu.Unlock()
	c.dial.forget(c.inUse())
	return r
}

// asking is what one client URL answered.
type asking struct {
	status *pb.StatusResponse
	err    error
	list   []*pb.Member
	health fettle.Tri
}

// ask asks the URLs that were not asked yet.
func (c *cluster) ask(ctx context.Context, asked map[string]*asking, urls []string) {
	var group sync.WaitGroup
	for _, u := range urls {
		if asked[u] != nil {
			continue
		}
		a := &asking{}
		asked[u] = a
		group.Go(func() { c.askOne(ctx, u, a) })
	}
	group.Wait()
}

func (c *cluster) askOne(ctx context.Context, clientURL string, a *asking) {
	e, err := c.dial.to(clientURL)
	if err != nil {
		a.err = err
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	how, err := e.reach(ctx)
	if err != nil {
		a.err = err
		return
	}
	if a.status, err = e.maintenance.Status(ctx, &pb.StatusRequest{}, how...); err != nil {
		a.err = e.explain(err)
		return
	}
	e.answered.Store(true)
	var group sync.WaitGroup
	group.Go(func() { a.health = c.healthOf(ctx, clientURL) })
	// Serializable: a survivor without a quorum knows the list too. A learner
	// answers with an error, and 3.4 takes no notice of the flag.
	if l, err := e.cluster.MemberList(ctx, &pb.MemberListRequest{}); err == nil {
		a.list = l.Members
	}
	group.Wait()
}

// bestList returns the list of the member that is furthest, and its URL.
func bestList(asked map[string]*asking) (list []*pb.Member, from string) {
	var best *pb.StatusResponse
	for _, u := range sortedKeys(asked) {
		a := asked[u]
		if len(a.list) == 0 || a.status == nil {
			continue
		}
		s := a.status
		if best == nil || s.RaftTerm > best.RaftTerm || s.RaftTerm == best.RaftTerm && s.RaftAppliedIndex > best.RaftAppliedIndex {
			best, list, from = s, a.list, u
		}
	}
	return list, from
}

// learn keeps names and URLs of a list.
func (c *cluster) learn(list []*pb.Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range list {
		if m.Name == "" {
			continue
		}
		for _, u := range m.PeerURLs {
			c.nameOf[u] = m.Name
		}
		if u := usable(m.ClientURLs); u != "" && !c.isLocal(m.Name) {
			c.clientOf[m.Name] = u
		}
	}
}

// isLocal: c.mu is held.
func (c *cluster) isLocal(name string) bool {
	return slices.ContainsFunc(c.local, func(in *instance) bool { return in.config.Name == name })
}

// usable returns the first URL that leads to the member from another machine,
// or the first.
func usable(urls []string) string {
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil {
			continue
		}
		ip := net.ParseIP(u.Hostname())
		if u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback() && !ip.IsUnspecified()) {
			return text
		}
	}
	if len(urls) > 0 {
		return urls[0]
	}
	return ""
}

// clientURLs returns whom to ask, sorted: the members of a list, or everybody
// who is known of when there is none.
func (c *cluster) clientURLs(list []*pb.Member) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var urls []string
	if list == nil {
		for _, name := range sortedKeys(c.clientOf) {
			urls = append(urls, c.clientOf[name])
		}
	}
	for _, m := range list {
		if u := c.clientOf[c.nameIn(m)]; u != "" {
			urls = append(urls, u)
		}
	}
	slices.Sort(urls)
	return slices.Compact(urls)
}

// nameIn is a listed member's name: its own, or, as long as it has not started,
// the one that is known for its peer URL. c.mu is held.
func (c *cluster) nameIn(m *pb.Member) string {
	if m.Name != "" {
		return m.Name
	}
	for _, u := range m.PeerURLs {
		if name := c.nameOf[u]; name != "" {
			return name
		}
	}
	if len(m.PeerURLs) > 0 {
		if u, err := url.Parse(m.PeerURLs[0]); err == nil && u.Host != "" {
			return u.Host
		}
	}
	return hex(m.ID)
}

func (c *cluster) inUse() map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	keep := map[string]bool{}
	// any order: a set is filled
	for _, u := range c.clientOf {
		keep[u] = true
	}
	return keep
}

// hex is an identity as etcdctl writes it.
func hex(id uint64) string { return strconv.FormatUint(id, 16) }

// parseID reads what hex writes.
func parseID(text string) (uint64, error) {
	id, err := strconv.ParseUint(text, 16, 64)
	if err != nil || id == 0 {
		return 0, fmt.Errorf("identity %q: want a number in hex, as etcdctl member list shows it", text)
	}
	return id, nil
}
