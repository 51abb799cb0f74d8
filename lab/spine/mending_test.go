//go:build lab

package spine_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/act/execute"
	"fettle/internal/act/journal"
	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// orders is where the binary that is built with labkill looks for which moment it is
// to stop at (package moment).
const orders = "/var/tmp/fettle-moment/"

// mending is one repair.
type mending struct {
	c     *etcdCluster
	h     *lab.Host
	cause fettle.ConditionKey
	steps []string        // that must be done, each once
	hurt  func()          // makes the trouble
	check func()          // holds the machine against what it should be like afterwards
	known map[string]bool // incidents that were there before
}

func (c *etcdCluster) newMending(h *lab.Host, cause fettle.ConditionKey, steps ...string) *mending {
	x := &mending{c: c, h: h, cause: cause, steps: steps, known: map[string]bool{}}
	for _, in := range c.Incidents() {
		x.known[in.ID] = true
	}
	return x
}

// breakService is about a service that was not there before.
func (c *etcdCluster) breakService(h *lab.Host, name string) *mending {
	c.t.Helper()
	c.Service(h, name, "ExecStart=/bin/sleep infinity")
	x := c.newMending(h, key(failed, c.Unit(h, name)), "start")
	x.hurt = func() { c.Shell(h, "systemctl kill -s KILL "+name) }
	x.check = func() { c.CheckStarts(h, name, 2) } // mine and the repair's
	return x
}

// breakMember is about a follower that loses its log and is killed.
func (c *etcdCluster) breakMember(h *lab.Host, n int) *mending {
	c.t.Helper()
	c.yield(h)
	x := c.newMending(h, key(dataLost, c.member(h)), replaced...)
	ids := c.identities()
	count := func(script string) int {
		n, err := strconv.Atoi(c.Shell(h, script))
		if err != nil {
			c.t.Fatalf("%s: %v", script, err)
		}
		return n
	}
	const asides = "ls -d /var/lib/etcd/fettle-aside/*/member 2>/dev/null | wc -l"
	const starts = "journalctl -b -o cat --output-fields=INVOCATION_ID _PID=1 UNIT=" + etcdUnit + " JOB_TYPE=start JOB_RESULT=done | wc -l"
	aside, started := count(asides), count(starts)
	x.hurt = func() {
		c.Shell(h, fmt.Sprintf("mv %s/member/wal /srv/lost-%d; systemctl kill -s KILL %s", c.data, n, etcdUnit))
	}
	x.check = func() {
		c.checkIdentities(ids, h)
		if n := count(asides) - aside; n != 1 {
			c.t.Errorf("%s: data was set aside %d times", h.Name(), n)
		}
		if n := count(starts) - started; n != 1 {
			c.t.Errorf("%s: %s was started %d times", h.Name(), etcdUnit, n)
		}
		c.waitHealthy()
		c.load.waitMore(20)
	}
	return x
}

// yield has another member lead than this host's.
func (c *etcdCluster) yield(h *lab.Host) {
	c.t.Helper()
	if c.leader() != h {
		return
	}
	to := c.Hosts()[(slices.Index(c.Hosts(), h)+1)%3]
	_, err := ask(c, h, func(ctx context.Context, cl *clientv3.Client) (*clientv3.MoveLeaderResponse, error) {
		return cl.MoveLeader(ctx, c.identities()[to.Name()])
	})
	if err != nil {
		c.t.Fatalf("have %s lead: %v", to.Name(), err)
	}
}

// mine says whether an incident is this one's, as the servers have it. Who was without
// one for a while has another, as Alone says.
func (x *mending) mine(in fettle.Incident) bool {
	return in.Cause == x.cause && !x.known[in.ID] && in.Alone == nil
}

// over says whether the repair has ended, and its last record is durable: that waits
// for company for a twentieth of a second at most.
func (x *mending) over() bool {
	list, _ := x.c.TryIncidents()
	return slices.ContainsFunc(list, func(in fettle.Incident) bool {
		return x.mine(in) && in.State.Ended() && time.Since(in.Ended) > time.Second
	})
}

// stop is the order for a part of Fettle on a host to stop at a moment of the repair, and
// whether it did.
type stop struct {
	x    *mending
	at   *lab.Host
	part string
}

// order has the server of a host killed, or its agent held, at a moment.
func (x *mending) order(at *lab.Host, m momentOf) stop {
	x.c.t.Helper()
	text := fmt.Sprintf("kill %d %s,%s", m.n, x.cause.Code, m.record)
	if m.part == "agent" {
		text = fmt.Sprintf("hold %d after-journal", m.n)
	}
	x.c.Write(at, orders+m.part, text)
	return stop{x, at, m.part}
}

// hit says at what it stopped, and when; false where it did not yet.
func (s stop) hit() (about string, when time.Time, ok bool) {
	data, err := s.at.ReadFile(orders + s.part + ".hit")
	if err != nil {
		return "", time.Time{}, false
	}
	unix, about, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	ns, err := strconv.ParseInt(unix, 10, 64)
	if err != nil {
		s.x.c.t.Fatalf("the %s stopped at %q", s.part, data)
	}
	return strings.ReplaceAll(about, string(s.x.cause.Code)+" ", ""), time.Unix(0, ns), true
}

// callOff takes the order back; false where it was carried out.
func (s stop) callOff() bool { return s.x.c.Try(s.at, "rm "+orders+s.part) }

// done forgets that it stopped: an agent goes on.
func (s stop) done() { s.x.c.Shell(s.at, "rm "+orders+s.part+".hit") }

// killedAt makes the trouble, kills the server that leads at a moment of its repair,
// and says when and at what; false where the repair had no such moment.
func (x *mending) killedAt(m momentOf, leader *lab.Host) (about string, killed time.Time, ok bool) {
	c, t := x.c, x.c.t
	t.Helper()
	at := leader
	if m.part == "agent" {
		at = x.h
	}
	s := x.order(at, m)
	x.hurt()
	spine.Until(t, m.String()+", or the end", func() bool {
		_, _, hit := s.hit()
		return hit || x.over()
	})
	if s.callOff() {
		return "", time.Time{}, false
	}
	spine.Until(t, "what the "+m.part+" stopped at", func() (hit bool) { about, killed, hit = s.hit(); return hit })
	if m.part == "agent" { // which waits
		about += x.lastRecord()
		killed = time.Now()
		killService(c.Fleet, leader, spine.ServerUnit)
	}
	s.done()
	return about, killed, true
}

// withoutLeader is a repair in which the server that leads is killed at a moment; false
// where there was no such moment.
func (x *mending) withoutLeader(m momentOf) (takeover, fettle.Incident, bool) {
	c, t := x.c, x.c.t
	t.Helper()
	leader := c.Leader()
	if leader == nil {
		t.Fatal("no server leads")
	}
	ran := c.Property(leader, spine.ServerUnit, "InvocationID")
	about, killed, hit := x.killedAt(m, leader)
	if !hit {
		t.Logf("%s: there is no such moment", m)
		return takeover{}, x.checkEnd(), false
	}
	now, took := awaitLeader(t, c.Fleet, leader, killed)
	awaitBack(t, c.Fleet, leader, ran, killed.Add(took), true) // Fettle gives up on one that is killed too often
	in := x.checkEnd()
	o := takeover{what: m, at: about, leads: took}
	o.parts(c.Fleet, now, killed, in)
	t.Logf("%s was killed, %s leads after %v, mended after %v; %s: %s", leader.Name(), now.Name(), took.Round(time.Millisecond), o.mended.Round(time.Millisecond), m, about)
	return o, in, true
}

// end waits until the repair has ended, whichever way; meanwhile nobody may lead.
func (x *mending) end() (in fettle.Incident) {
	x.c.t.Helper()
	spine.Until(x.c.t, "the repair to end", func() bool {
		list, _ := x.c.TryIncidents()
		i := slices.IndexFunc(list, func(in fettle.Incident) bool { return x.mine(in) && in.State.Ended() })
		if i >= 0 {
			in = list[i]
		}
		return i >= 0
	})
	return in
}

// checkEnd waits for the end, and fails the test unless the trouble was mended, each
// step was done once, and nothing is left to do.
func (x *mending) checkEnd() fettle.Incident {
	c, t := x.c, x.c.t
	t.Helper()
	in := x.end()
	var done, ids []string
	resolved, alone := in.State == fettle.Resolved, false
	for _, one := range c.Incidents() {
		if one.Cause != x.cause || x.known[one.ID] {
			continue
		}
		ids, alone = append(ids, one.ID), alone || one.Alone != nil
		for _, e := range one.Story {
			switch e.Kind {
			case fettle.EvDone:
				done = append(done, e.Step)
				resolved = resolved || one.Alone != nil && one.State == fettle.Resolved // without a server
			case fettle.EvEscalated, fettle.EvUndone, fettle.EvFailed:
				t.Errorf("%s: %s", e.Kind, e.Text)
			}
		}
	}
	if !resolved {
		t.Errorf("incident %s is %s (%s)", in.ID, in.State, in.Why)
	}
	if alone { // the servers find that what they had begun is done, too
		done = slices.Compact(done)
	}
	if !slices.Equal(done, x.steps) {
		t.Errorf("the steps that were done are %v, want %v", done, x.steps)
	}
	did := map[string]int{}
	x.eachRecord(func(kind, step string, fate fettle.Fate) {
		if kind == execute.KindOutcome && fate == fettle.Done {
			did[step]++
		}
	}, ids...)
	for _, step := range x.steps {
		if did[step] != 1 {
			t.Errorf("%s: its agent did %s %d times", x.h.Name(), step, did[step])
		}
	}
	x.check()
	c.WaitReady()
	spine.Until(t, "nothing to be left to do", func() bool {
		return !slices.ContainsFunc(c.Incidents(), func(in fettle.Incident) bool {
			// That a server is killed again and again is seen, and is nobody's to mend.
			return !in.State.Ended() && in.Cause.Code != loop
		})
	})
	return in
}

// eachRecord reads what the host's agent made durable for these incidents; none: for any.
func (x *mending) eachRecord(each func(kind, step string, fate fettle.Fate), incidents ...string) {
	of := map[string]fettle.Dispatch{}
	readJournal(x.c.t, x.h, func(r journal.Record) {
		var rec struct {
			Dispatch  fettle.Dispatch
			Outcome   fettle.Outcome
			Recovered bool // it was found out, not done
		}
		if err := r.Decode(&rec); err != nil || rec.Recovered || r.Kind != execute.KindIntent && r.Kind != execute.KindOutcome {
			return
		}
		if r.Kind == execute.KindIntent {
			of[rec.Dispatch.Key], rec.Outcome.Key = rec.Dispatch, rec.Dispatch.Key
		}
		if d := of[rec.Outcome.Key]; len(incidents) == 0 || slices.Contains(incidents, d.Incident) {
			each(r.Kind, d.Step.ID, rec.Outcome.Fate)
		}
	})
}

// lastRecord is what the agent made durable last.
func (x *mending) lastRecord() string {
	text := ""
	x.eachRecord(func(kind, step string, fate fettle.Fate) {
		text = fmt.Sprintf(" (%s %s %s)", strings.TrimPrefix(kind, "execute."), step, fate)
	})
	return text
}
