package sim

import (
	"fmt"
	"slices"
	"time"

	"fettle/internal/fettle"
)

const (
	kindCluster fettle.Kind = "etcd"
	kindMember  fettle.Kind = "etcd-member"
)

// cluster is a group that decides by majority: who votes in truth, and what was
// acknowledged.
type cluster struct {
	w       *world
	name    string
	members []*member
	config  []seat // what the cluster has agreed on
	leader  *member
	minted  int
	acked   int64 // the last write that was acknowledged to a client
	nospace bool
	touched time.Time // the membership or the alarm changed
	moved   time.Time // a vote came or went
	votes   string    // who votes and serves
}

// seat is one of the cluster's list of members.
type seat struct {
	id     string
	member *member
	voter  bool
	joined bool
}

// member is a server of a cluster.
type member struct {
	c       *cluster
	name    string
	unit    *unit
	data    *data
	aside   []*data
	state   string // INITIAL_CLUSTER_STATE
	flipped bool
	touched time.Time
}

// data is what a member has on its disk.
type data struct {
	id      string
	index   int64 // the last write that it has
	damaged bool
}

func (c *cluster) subject() fettle.Subject { return fettle.NewSubject(kindCluster, c.name) }
func (m *member) subject() fettle.Subject {
	return fettle.NewSubject(kindMember, m.c.name, m.name)
}

func (c *cluster) mint(of *member) string {
	c.minted++
	return fmt.Sprintf("%s%x", of.name, 0x100+c.minted)
}

// seat returns the place that a member has in the list, nil when it has none.
func (c *cluster) seat(m *member) *seat {
	for i := range c.config {
		if c.config[i].member == m {
			return &c.config[i]
		}
	}
	return nil
}

func (c *cluster) voters() int {
	n := 0
	for _, s := range c.config {
		if s.voter {
			n++
		}
	}
	return n
}

func (c *cluster) majority() int { return c.voters()/2 + 1 }

// runs reports whether the member's server works on data of its present identity.
func (m *member) runs() bool {
	s := m.c.seat(m)
	return m.unit.host.on && m.unit.state == "active" && !m.unit.hung && s != nil && m.data != nil && !m.data.damaged && m.data.id == s.id
}

// unfit reports whether its server ends by itself when it is started.
func (m *member) unfit() bool {
	s := m.c.seat(m)
	switch {
	case m.data == nil:
		return s == nil || s.joined || m.state != "existing"
	case m.data.damaged:
		return true
	}
	return s == nil || s.id != m.data.id
}

// lostLog reports whether under its seat it must never vote again.
func (m *member) lostLog() bool {
	s := m.c.seat(m)
	if s == nil || !s.joined {
		return false
	}
	return m.data == nil || m.data.damaged || m.data.id != s.id
}

// join makes the log of a member that was added anew and is started.
func (m *member) join() {
	if s := m.c.seat(m); s != nil && !s.joined && m.data == nil && m.state == "existing" {
		s.joined = true
		m.data = &data{id: s.id}
	}
}

// answers reports whether a host gets an answer from it.
func (m *member) answers(from *host) bool {
	return m.runs() && m.c.w.linked(from.name, m.unit.host.name)
}

// serves reports whether it follows a leader.
func (m *member) serves() bool {
	l := m.c.leader
	return l != nil && m.runs() && (m == l || m.c.w.linked(m.unit.host.name, l.unit.host.name))
}

// serving counts the votes that serve.
func (c *cluster) serving() int {
	n := 0
	for _, s := range c.config {
		if s.voter && s.member.serves() {
			n++
		}
	}
	return n
}

// settle elects a leader where one can be.
func (c *cluster) settle() {
	can := func(m *member) bool {
		s := c.seat(m)
		if s == nil || !s.voter || !m.runs() {
			return false
		}
		votes := 0
		for _, o := range c.config {
			if o.voter && o.member.runs() && (o.member == m || c.w.linked(m.unit.host.name, o.member.unit.host.name)) && o.member.data.index <= m.data.index {
				votes++
			}
		}
		return votes >= c.majority()
	}
	defer c.count()
	before := c.leader
	if c.leader == nil || !can(c.leader) {
		c.leader = nil
		for _, m := range c.members {
			if can(m) {
				c.leader = m
				break
			}
		}
	}
	if c.leader != before {
		c.touched = c.w.e.now()
		c.elected()
		for _, m := range c.members {
			c.w.changed(m.unit.host)
		}
	}
}

// count notes when a vote came or went.
func (c *cluster) count() {
	votes := ""
	for _, s := range c.config {
		votes += fmt.Sprint(s.id, s.voter, s.member.serves(), " ")
	}
	if votes != c.votes {
		c.votes, c.moved = votes, c.w.e.now()
	}
}

// elected checks that whoever leads has everything that was acknowledged (S2).
func (c *cluster) elected() {
	if c.leader != nil && c.leader.data.index < c.acked {
		c.w.e.breaks("S2", "%s leads %s with writes up to %d, and %d were acknowledged", c.leader.name, c.name, c.leader.data.index, c.acked)
		c.acked = c.leader.data.index // said once
	}
}

// write is a client's write: acknowledged when a majority has it.
func (c *cluster) write() {
	c.settle()
	if c.leader == nil {
		return
	}
	if !c.nospace && c.serving() >= c.majority() {
		c.acked = max(c.acked, c.leader.data.index) + 1
		c.leader.data.index = c.acked
	}
	for _, s := range c.config {
		if s.member.serves() {
			s.member.data.index = c.leader.data.index
		}
	}
}

// without is how many votes would serve if a member stopped; the second is the
// majority of who votes then.
func (c *cluster) without(m *member, removed bool) (serving, majority int) {
	s := c.seat(m)
	serving, voters := c.serving(), c.voters()
	if s != nil && s.voter {
		if m.serves() {
			serving--
		}
		if removed {
			voters--
		}
	}
	if serving < voters/2+1 && c.leader == nil {
		serving = 0
	}
	return serving, voters/2 + 1
}

// changedSince is when anything of which the votes are made changed last.
func (c *cluster) lastChange() time.Time {
	t := c.touched
	for _, m := range c.members {
		for _, at := range []time.Time{m.touched, m.unit.touched, m.unit.host.touched} {
			if at.After(t) {
				t = at
			}
		}
	}
	return t
}

func (c *cluster) remove(m *member) {
	c.config = slices.DeleteFunc(c.config, func(s seat) bool { return s.member == m })
	c.touched, m.touched = c.w.e.now(), c.w.e.now()
	if c.leader == m {
		c.leader = nil
	}
	c.settle()
}
