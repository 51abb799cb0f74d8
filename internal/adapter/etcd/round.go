package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"fettle/internal/fettle"
)

// combine puts together what a round saw. list is nil where no member gave one;
// from is the client URL that gave it.
func (c *cluster) combine(started time.Time, list []*pb.Member, asked map[string]*asking, from string) *round {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &round{started: started, from: listed, before: map[uint64]uint64{}}
	if c.last != nil {
		for _, v := range c.last.views {
			if v.status != nil && v.id != 0 {
				r.before[v.id] = v.status.RaftAppliedIndex
			}
		}
	}
	switch {
	case list != nil:
		r.views = c.viewsOf(list)
	case c.known != nil:
		r.from, r.views = remembered, blank(c.known.views)
		r.id = c.known.id
	default:
		r.from, r.views = configured, c.viewsOf(c.configuredList())
	}
	for _, in := range c.local {
		if !slices.ContainsFunc(r.views, func(v view) bool { return v.subject == in.member }) {
			r.views = append(r.views, view{name: in.config.Name, subject: in.member, peerURLs: []string{in.config.PeerURL}})
		}
	}
	slices.SortFunc(r.views, func(a, b view) int { return compareText(a.name, b.name) })
	for i := range r.views {
		v := &r.views[i]
		v.clientURL = c.clientOf[v.name]
		if a := asked[v.clientURL]; a != nil {
			v.status, v.err, v.health = a.status, a.err, a.health
		}
		// Another member's answer at this one's URL is none of its.
		if v.status != nil && v.id != 0 && v.status.Header.GetMemberId() != v.id {
			v.err = fmt.Errorf("at %s answers the member %s, not %s", v.clientURL, hex(v.status.Header.GetMemberId()), hex(v.id))
			v.status, v.health = nil, fettle.Unknown
		}
	}
	r.elect()
	if a := asked[from]; from != "" && a.status != nil {
		r.id = a.status.Header.GetClusterId()
	}
	r.took = c.m.Clock.Now().Sub(started)
	return r
}

// viewsOf makes views of a list, without what they answered. Two members of one
// name, which etcd permits, are told apart by their identities. c.mu is held.
func (c *cluster) viewsOf(list []*pb.Member) []view {
	times := map[string]int{}
	for _, m := range list {
		times[c.nameIn(m)]++
	}
	var views []view
	for _, m := range list {
		name := c.nameIn(m)
		if times[name] > 1 {
			name += "@" + hex(m.ID)
		}
		views = append(views, view{
			name: name, subject: c.member(name), id: m.ID, listed: m.ID != 0, learner: m.IsLearner,
			unstarted: m.ID != 0 && m.Name == "", peerURLs: m.PeerURLs,
		})
	}
	return views
}

func blank(views []view) []view {
	out := slices.Clone(views)
	for i := range out {
		out[i].status, out[i].err, out[i].health = nil, nil, fettle.Unknown
	}
	return out
}

// configuredList is the cluster as it was configured, without identities. c.mu is
// held.
func (c *cluster) configuredList() []*pb.Member {
	var list []*pb.Member
	for _, name := range sortedKeys(c.peerOf) {
		list = append(list, &pb.Member{Name: name, PeerURLs: []string{c.peerOf[name]}})
	}
	return list
}

// elect finds the leader at the newest term at which one is known. A member that
// is cut off raises its own term again and again without finding one.
func (r *round) elect() {
	for _, v := range r.views {
		if v.status != nil && v.status.Leader != 0 && v.status.RaftTerm >= r.term {
			r.term, r.leader = v.status.RaftTerm, v.status.Leader
		}
	}
}

// lag is how many entries a member may be behind and still follow: what a busy
// cluster writes in a tenth of a second.
const lag = 1000

// serving reports whether a member serves: it answers in time, knows the leader
// of the newest term, names no error that is not an alarm, and its applied index
// keeps up with the others' of the round before.
func (r *round) serving(v view) fettle.Tri {
	switch {
	case v.clientURL == "":
		return fettle.Unknown
	case v.status == nil && (v.err == nil || slices.Contains([]answer{denied, ended}, sortError(v.err))):
		return fettle.Unknown // one whose certificate has ended may still serve over connections that stand
	case v.status == nil:
		return fettle.No
	case v.status.Leader == 0 || v.status.Leader != r.leader || v.status.RaftTerm != r.term:
		return fettle.No
	}
	if _, others := alarmsIn(v.status.Errors); len(others) > 0 {
		return fettle.No
	}
	var most, mostBefore uint64
	for _, o := range r.views {
		if o.status != nil {
			most = max(most, o.status.RaftIndex)
			mostBefore = max(mostBefore, r.before[o.id])
		}
	}
	applied := v.status.RaftAppliedIndex
	if applied+lag >= most || mostBefore > 0 && applied >= mostBefore {
		return fettle.Yes
	}
	return fettle.Unknown
}

// quorum is the cluster as a quorum group. lost says of which members it is known
// whether their log is lost.
func (r *round) quorum(lost map[fettle.Subject]fettle.Tri) *fettle.QuorumGroup {
	g := &fettle.QuorumGroup{}
	for _, v := range r.views {
		if r.from == listed && !v.listed {
			continue
		}
		m := fettle.QuorumMember{Subject: v.subject, Voter: !v.learner, Serving: r.serving(v), LogLost: lost[v.subject]}
		if v.id != 0 {
			m.ID = hex(v.id)
			m.Leader = v.id == r.leader
		}
		g.Members = append(g.Members, m)
	}
	slices.SortFunc(g.Members, func(a, b fettle.QuorumMember) int { return compareText(string(a.Subject), string(b.Subject)) })
	return g
}

// of returns the view of a subject.
func (r *round) of(s fettle.Subject) (view, bool) {
	for _, v := range r.views {
		if v.subject == s {
			return v, true
		}
	}
	return view{}, false
}

// byID returns the view of a listed identity.
func (r *round) byID(id uint64) (view, bool) {
	for _, v := range r.views {
		if v.listed && v.id == id {
			return v, true
		}
	}
	return view{}, false
}

// healthOf reads a member's /health page.
func (c *cluster) healthOf(ctx context.Context, clientURL string) fettle.Tri {
	_, body, err := c.dial.get(ctx, strings.TrimSuffix(clientURL, "/")+"/health", 64<<10)
	if err != nil {
		return fettle.Unknown
	}
	return parseHealth(body)
}

// parseHealth reads {"health":"true"}; later servers may write a bool.
func parseHealth(body []byte) fettle.Tri {
	var page struct {
		Health any `json:"health"`
	}
	if json.Unmarshal(body, &page) != nil {
		return fettle.Unknown
	}
	switch page.Health {
	case "true", true:
		return fettle.Yes
	case "false", false:
		return fettle.No
	}
	return fettle.Unknown
}

// listFromPeers asks the peer ports: a member that was started without a quorum
// accepts clients and never answers them, and tells its peers whom it knows.
func (c *cluster) listFromPeers(ctx context.Context) []*pb.Member {
	c.mu.Lock()
	var urls []string
	for _, name := range sortedKeys(c.peerOf) {
		urls = append(urls, c.peerOf[name])
	}
	c.mu.Unlock()
	lists := make(chan []*pb.Member, len(urls))
	for _, u := range urls {
		go func() {
			_, body, err := c.dial.get(ctx, strings.TrimSuffix(u, "/")+"/members", 1<<20)
			if err != nil {
				lists <- nil
				return
			}
			list, err := parsePeerMembers(body)
			if err != nil {
				list = nil
			}
			lists <- list
		}()
	}
	var best []*pb.Member
	for range urls {
		if l := <-lists; len(l) > len(best) {
			best = l
		}
	}
	return best
}

// parsePeerMembers reads what a peer port answers to GET /members.
func parsePeerMembers(body []byte) ([]*pb.Member, error) {
	var raw []struct {
		ID         uint64   `json:"id"`
		PeerURLs   []string `json:"peerURLs"`
		IsLearner  bool     `json:"isLearner"`
		Name       string   `json:"name"`
		ClientURLs []string `json:"clientURLs"`
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, fmt.Errorf("list of members from a peer port: %w", err)
	}
	list := make([]*pb.Member, 0, len(raw))
	for _, m := range raw {
		if m.ID == 0 || len(m.PeerURLs) == 0 {
			return nil, fmt.Errorf("list of members from a peer port: a member without identity or peer URL")
		}
		list = append(list, &pb.Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.IsLearner})
	}
	return list, nil
}
