package sim

import (
	"slices"
	"strings"
	"time"

	"fettle/internal/fettle"
)

// sights is what the probes of one host see now. Asked is left out: it is on the
// clock of who looks.
func (h *host) sights(now time.Time) []fettle.Observation {
	var out []fettle.Observation
	rack := fettle.NewSubject(kindRack, h.rack)
	out = append(out, fettle.Observation{
		Subject: h.subject(), Probe: hostProbe, Facts: fettle.Facts{"warm": h.warm, "drained": h.drained, "shy": h.shy},
		Edges: []fettle.Edge{{From: h.subject(), Rel: fettle.In, To: rack}},
	})
	for _, u := range h.units {
		out = append(out, u.sights(now)...)
	}
	out = append(out, h.disk.sights()...)
	for _, c := range h.w.clusters {
		out = append(out, c.sights(h)...)
	}
	if c := h.w.copies; c != nil {
		out = append(out, c.sights(h)...)
	}
	return out
}

// placeOf is where a host stands, as the server's topology file says.
func (sp *serverProcess) placeOf(h *host) fettle.Observation {
	return fettle.Observation{
		Subject: h.subject(), Host: fettle.NewSubject("fettle-server", sp.srv.name), Probe: placeProbe, Asked: sp.now(), Facts: fettle.Facts{},
		Edges: []fettle.Edge{{From: h.subject(), Rel: fettle.In, To: fettle.NewSubject(kindRack, h.rack)}},
	}
}

func (u *unit) sights(now time.Time) []fettle.Observation {
	sub, load, file := "dead", "loaded", "enabled"
	switch {
	case u.state == "active":
		sub = "running"
	case u.state == "failed":
		sub = "failed"
	}
	if u.masked {
		load, file = "masked", "masked"
	}
	pid := int64(0)
	if u.state == "active" {
		pid = int64(1000 + u.runs)
	}
	edges := []fettle.Edge{{From: u.subject(), Rel: fettle.RunsOn, To: u.host.subject()}, {From: u.subject(), Rel: fettle.Uses, To: u.host.disk.subject()}}
	list := []fettle.Observation{
		{Subject: u.subject(), Probe: "systemd.unit", Edges: edges, Facts: fettle.Facts{
			"load_state": load, "active_state": u.state, "sub_state": sub, "unit_file_state": file, "result": u.result, "main_pid": pid,
			"exec_status": int64(0), "n_restarts": int64(0), "restart": "on-abnormal", "invocation_id": u.invocation(), "needs_daemon_reload": false,
			"enabled": !u.masked, "was_active": u.wasActive, "stopped_by": u.stoppedBy, "starts_10m": u.starts10m(now),
		}},
		{Subject: u.subject(), Probe: unitProbe, Facts: fettle.Facts{"idle": u.state != "active", "slow": u.slow && u.state == "active"}, Edges: edges[:1]},
	}
	if u.health {
		list = append(list, fettle.Observation{Subject: u.subject(), Probe: "systemd.health", Facts: fettle.Facts{"answers": u.state == "active" && !u.hung, "latency_ms": int64(1)}})
	}
	return list
}

func (u *unit) invocation() string { return u.name + "-" + string(rune('a'+u.runs%26)) + itoa(u.runs) }

func (d *disk) sights() []fettle.Observation {
	used, trouble := d.used(), ""
	if d.full() {
		trouble = "ENOSPC"
	}
	edges := []fettle.Edge{{From: d.subject(), Rel: fettle.RunsOn, To: d.host.subject()}}
	list := []fettle.Observation{
		{Subject: d.subject(), Probe: "filesystem.usage", Edges: edges, Facts: fettle.Facts{
			"type": "ext4", "source": "/dev/vda1", "size_bytes": int64(1000), "avail_bytes": 1000 - used, "free_bytes": 1000 - used, "used_permille": used,
			"inodes": int64(1000), "inodes_free": int64(900), "inodes_used_permille": int64(100), "read_only": false, "write_error": trouble, "errors_count": int64(0),
		}},
		{Subject: d.subject(), Probe: diskProbe, Edges: edges, Facts: fettle.Facts{"messy": d.messy}},
	}
	if used >= 900 {
		list = append(list, fettle.Observation{Subject: d.subject(), Probe: "filesystem.fill", Edges: edges, Facts: fettle.Facts{
			"journal_bytes": int64(10), "journal_limit_bytes": int64(100), "package_cache_bytes": d.cache, "rotated_log_bytes": int64(0), "deleted_open_bytes": int64(0),
			"deleted_holder": "", "deleted_holder_pid": int64(0), "deleted_path": "", "biggest": []string{},
		}})
	}
	return list
}

// asked returns the members that answer a host, and whether any of them can speak
// for the cluster.
func (c *cluster) asked(h *host) (answering []*member, speaks bool) {
	for _, m := range c.members {
		if m.answers(h) {
			answering = append(answering, m)
		}
	}
	return answering, len(answering) > 0
}

func (c *cluster) sights(h *host) []fettle.Observation {
	own := slices.IndexFunc(c.members, func(m *member) bool { return m.unit.host == h })
	if own < 0 {
		return nil
	}
	var list []fettle.Observation
	answering, speaks := c.asked(h)
	list = append(list, c.members[own].local(speaks), c.members[own].care())
	for _, m := range c.members {
		list = append(list, m.seen(slices.Contains(answering, m), speaks))
	}
	list = append(list, c.whole(h, answering, c.members[own]))
	if c.leader == c.members[own] {
		list = append(list, c.hashes()...)
	}
	return list
}

// local is the member of this machine, from its own machine.
func (m *member) local(speaks bool) fettle.Observation {
	s := m.c.seat(m)
	standing := "none"
	switch {
	case s == nil:
	case !s.joined:
		standing = "unstarted"
	case s.voter:
		standing = "voter"
	default:
		standing = "learner"
	}
	state, damage := "whole", ""
	switch {
	case m.runs():
		state = "running"
	case m.data == nil:
		state = "missing"
	case m.data.damaged:
		state, damage = "damaged", "checksum 1, want 2"
	case s == nil || s.id != m.data.id:
		state = "foreign"
	}
	f := fettle.Facts{
		"unit_active": m.unit.state == "active", "unit_state": m.unit.state, "log_state": state, "damage": damage, "data_present": m.data != nil,
		"data_dir": "/var/lib/etcd", "data_bytes": int64(64), "data_filesystem": "/", "configured_state": m.state, "tls": false,
	}
	if speaks || state == "running" || state == "damaged" {
		f["log_lost"] = m.lostLog()
	} else if state == "whole" {
		f["log_lost"] = false
	}
	if speaks {
		f["standing"] = standing
	}
	return fettle.Observation{Subject: m.subject(), Probe: "etcd.local", Facts: f, Edges: []fettle.Edge{
		{From: m.subject(), Rel: fettle.PartOf, To: m.c.subject()}, {From: m.subject(), Rel: fettle.RunsOn, To: m.unit.host.subject()},
		{From: m.subject(), Rel: fettle.Uses, To: m.unit.subject()}, {From: m.subject(), Rel: fettle.Uses, To: m.unit.host.disk.subject()},
	}}
}

// care is what the careless adapter sees of a member.
func (m *member) care() fettle.Observation {
	return fettle.Observation{Subject: m.subject(), Probe: memberProbe, Facts: fettle.Facts{"silent": !m.runs(), "shaky": m.unit.slow && m.runs()},
		Edges: []fettle.Edge{{From: m.subject(), Rel: fettle.RunsOn, To: m.unit.host.subject()}, {From: m.subject(), Rel: fettle.PartOf, To: m.c.subject()}}}
}

// seen is a member as it answers a host, or does not.
func (m *member) seen(answers, speaks bool) fettle.Observation {
	o := fettle.Observation{Subject: m.subject(), Probe: "etcd.member", Edges: []fettle.Edge{{From: m.subject(), Rel: fettle.PartOf, To: m.c.subject()}}}
	f := fettle.Facts{"answers": answers}
	s := m.c.seat(m)
	if speaks {
		f["listed"] = s != nil
		if s != nil {
			f["member_id"], f["learner"] = s.id, !s.voter
		}
		f["leader"] = m.c.leader == m
	}
	if answers {
		f["health"], f["version"] = m.serves(), "3.7.3"
		f["db_bytes"], f["db_in_use_bytes"], f["quota_bytes"] = int64(10), int64(5), int64(100)
		f["raft_index"], f["applied_index"] = m.data.index, m.data.index
		f["alarms"] = []string{}
	}
	o.Facts = f
	return o
}

// whole is the cluster as a host sees it.
func (c *cluster) whole(h *host, answering []*member, own *member) fettle.Observation {
	o := fettle.Observation{Subject: c.subject(), Probe: "etcd.cluster"}
	g := &fettle.QuorumGroup{ID: groupID} // where nobody answers: those that were last listed
	leads := false
	var newest int64
	for _, m := range c.members {
		s := c.seat(m)
		if s == nil {
			continue
		}
		q := fettle.QuorumMember{Subject: m.subject(), ID: s.id, Voter: s.voter, Serving: fettle.No}
		if slices.Contains(answering, m) && m.serves() {
			q.Serving = fettle.Yes
			leads = true
			q.Leader = c.leader == m
			newest = max(newest, m.data.index)
		}
		if m == own {
			q.LogLost = fettle.No
			if m.lostLog() {
				q.LogLost = fettle.Yes
			}
		}
		g.Members = append(g.Members, q)
	}
	slices.SortFunc(g.Members, func(a, b fettle.QuorumMember) int { return strings.Compare(string(a.Subject), string(b.Subject)) })
	name, alarms := "", []string{}
	if leads {
		name = c.leader.name
	}
	if c.nospace {
		alarms = []string{"NOSPACE " + c.members[0].name}
	}
	db, used := int64(10), int64(5)
	if c.nospace {
		db = 100
	}
	o.Facts = fettle.Facts{
		"has_leader": leads, "leader": name, "cluster_id": groupID, "voters": int64(g.Voters()), "serving": int64(g.ServingVotes()),
		"learners": int64(len(g.Members) - g.Voters()), "alarms": alarms, "nospace": c.nospace, "corrupt": false, "versions": []string{"3.7.3"},
		"revision": newest, "db_bytes": db, "db_in_use_bytes": used, "quota_bytes": int64(100),
	}
	o.Quorum = g
	if len(answering) == 0 {
		// Nobody spoke for the cluster. That there is no leader is known only when
		// every member refused: one that is merely not reached may have one.
		o.Facts = fettle.Facts{"voters": o.Facts["voters"], "serving": o.Facts["serving"], "learners": o.Facts["learners"]}
		refused := !slices.ContainsFunc(c.members, func(m *member) bool { return !m.unit.host.on || !c.w.linked(h.name, m.unit.host.name) })
		if refused {
			o.Facts["has_leader"], o.Facts["leader"] = false, ""
		}
	}
	return o
}

// hashes are what the leader's machine finds when it compares.
func (c *cluster) hashes() []fettle.Observation {
	var compared, good int64
	for _, s := range c.config {
		if s.voter && s.member.serves() {
			compared++
			if !s.member.flipped {
				good++
			}
		}
	}
	var list []fettle.Observation
	for _, s := range c.config {
		if !s.voter || !s.member.serves() {
			continue
		}
		same, value := good, int64(5)
		if s.member.flipped {
			same, value = compared-good, 6
		}
		list = append(list, fettle.Observation{Subject: s.member.subject(), Probe: "etcd.hash", Facts: fettle.Facts{
			"hash": value, "hash_revision": int64(1), "compact_revision": int64(-1), "compared": compared, "same": same, "largest": max(good, compared-good),
		}})
	}
	return list
}

// sights is a host's own copy, and the set as it sees it.
func (c *copies) sights(h *host) []fettle.Observation {
	i := slices.Index(c.hosts, h)
	if i < 0 {
		return nil
	}
	copySubject := c.subject(i)
	return []fettle.Observation{
		{Subject: copySubject, Probe: copyProbe, Facts: fettle.Facts{"stale": c.stale == i, "held": c.insync[i]}, Edges: []fettle.Edge{
			{From: copySubject, Rel: fettle.PartOf, To: c.set()}, {From: copySubject, Rel: fettle.RunsOn, To: h.subject()},
		}},
		{Subject: c.set(), Probe: setProbe, Facts: fettle.Facts{"copies": int64(len(c.hosts))}, Replicas: &fettle.ReplicaSet{Copies: len(c.hosts), InSync: c.count(), Minimum: c.minimum}},
	}
}

func (c *copies) subject(i int) fettle.Subject {
	return fettle.NewSubject(kindCopy, "shop", itoa(i))
}
