package etcd

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"fettle/internal/fettle"
)

// # What became of a call that was cut off
//
// A change of the membership is an entry in the log of raft. A call that timed
// out, or whose caller was killed, may have left one behind: it sits in the
// leader's log until it is committed or a new leader overrides it, and was
// committed in every one of the trials in which followers were merely stopped.
// So "it is not in the list of members" alone says nothing.
//
// Done is easy: what was asked for is in a list that a linearizable read at the
// same member has brought up to date.
//
// Never will be needs more. A request can be waiting (1) in the leader's log, not
// committed; (2) in a member that has received it and has not yet proposed or
// forwarded it; (3) in the socket of a member that is frozen. The reasoning, from
// raft's log order and etcd's sources, for what is concluded here:
//
//   - (2): a server gives up a request after 7 s (5 s and two election timeouts).
//     The caller is gone when Recover is first asked (the executor fences the key
//     and waits for its Apply), so 8 s later no server works on it any more.
//   - (3): a frozen member could read it whenever it thaws. So every listed member
//     must answer, or refuse the connection outright, at the end of those 8 s.
//   - (1): then an entry of our own is proposed and answered: the leader's log is
//     in order, so everything that it held before is committed by then; an entry
//     of an older term that is not in the log of the present leader never comes
//     back. The entry is a look at the alarms, which goes through the log, changes
//     no key and works when the quota is used up.
//
// If the change is still not there, it never will be. In every other case the
// answer is unknown, and it is asked again.

// serverGivesUp is after how long no server works on a request any more, with a
// second to spare.
const serverGivesUp = 8 * time.Second

// barrier is when Recover was first asked about a key.
type barrier struct{ since time.Time }

// fate answers Recover for a change that goes through the log. done says from an
// up-to-date view whether it is there.
func (c *cluster) fate(ctx context.Context, d fettle.Dispatch, done func(*round) (fettle.Result, bool)) (fettle.Fate, fettle.Result, error) {
	since := c.barrierFor(d.Key)
	r, err := c.current(ctx)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, &fettle.Error{Op: d.Step.Action, Subject: d.Step.Target, Class: fettle.NoAnswer, Err: err,
			Hint: "the cluster is asked again; without a leader it cannot say"}
	}
	if result, ok := done(r); ok {
		c.lift(d.Key)
		return fettle.Done, result, nil
	}
	wait := func(format string, args ...any) (fettle.Fate, fettle.Result, error) {
		return fettle.UnknownFate, fettle.Result{Notes: []string{fmt.Sprintf(format, args...)}}, nil
	}
	if age := c.m.Clock.Now().Sub(since); age < serverGivesUp {
		return wait("it is not done; a member may still be working on it for %v", (serverGivesUp - age).Round(time.Second))
	}
	for _, v := range r.views {
		if v.listed && v.clientURL != "" && v.status == nil && !refused(v.err) {
			return wait("it is not done; %s neither answers nor refuses, and may still hold it", v.name)
		}
	}
	if err := c.propose(ctx); err != nil {
		return wait("it is not done; the cluster takes no entry that would settle it: %v", err)
	}
	if r, err = c.current(ctx); err != nil {
		return wait("it is not known: %v", err)
	}
	c.lift(d.Key)
	if result, ok := done(r); ok {
		return fettle.Done, result, nil
	}
	return fettle.NeverWillBe, fettle.Result{}, nil
}

func (c *cluster) barrierFor(key string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.barriers[key]
	if !ok {
		b = barrier{c.m.Clock.Now()}
		c.barriers[key] = b
	}
	return b.since
}

func (c *cluster) lift(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.barriers, key)
}

// leader returns the leader and the way to it, from a fresh round.
func (c *cluster) leader(ctx context.Context) (*round, view, *endpoint, error) {
	r := c.look(ctx)
	v, ok := r.byID(r.leader)
	if r.leader == 0 || !ok || v.status == nil {
		return r, view{}, nil, fmt.Errorf("%s: %w", c.system, errNoLeader)
	}
	e, err := c.dial.to(v.clientURL)
	return r, v, e, err
}

// current returns a round whose list of members is up to date: a linearizable
// read at the leader comes first. 3.4 answers every list from its own state.
func (c *cluster) current(ctx context.Context) (*round, error) {
	_, _, e, err := c.leader(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := read(ctx, e); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*callTimeout)
	defer cancel()
	l, err := e.cluster.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	if err != nil {
		return nil, fmt.Errorf("list of members: %w", err)
	}
	return c.seen(ctx, l.Members, e.url), nil
}

// seen makes a round of a list that was just read, asking everybody in it.
func (c *cluster) seen(ctx context.Context, list []*pb.Member, from string) *round {
	started := c.m.Clock.Now()
	c.learn(list)
	asked := map[string]*asking{}
	c.ask(ctx, asked, c.clientURLs(list))
	r := c.combine(started, list, asked, from)
	c.mu.Lock()
	c.last, c.known = r, r
	c.mu.Unlock()
	return r
}

// aKey is read, and never written, to make a member catch up with its leader.
const aKey = "fettle"

// read is a linearizable read; it returns the revision.
func read(ctx context.Context, e *endpoint) (revision int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*callTimeout)
	defer cancel()
	got, err := e.kv.Range(ctx, &pb.RangeRequest{Key: []byte(aKey), Limit: 1, KeysOnly: true})
	if err != nil {
		return 0, fmt.Errorf("linearizable read at %s: %w", e.url, err)
	}
	return got.Header.GetRevision(), nil
}

// propose puts an entry through the log that changes nothing: a look at the
// alarms. A member that joins an idle cluster also needs one to become ready.
func (c *cluster) propose(ctx context.Context) error {
	_, _, e, err := c.leader(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*callTimeout)
	defer cancel()
	_, err = e.maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
	return err
}

const (
	// askAgain is how soon a change that the cluster does not take yet is tried
	// again: what it waits for is milliseconds away (a learner that catches up) or
	// five seconds (its own wait after a change of the membership).
	askAgain = 50 * time.Millisecond
	// askSlowest is the longest pause that the tries slow down to.
	askSlowest = time.Second
	// reserve is what is left of a step's time when the last try begins.
	reserve = 3 * time.Second
)

// attempt calls f at the leader until it gives an answer other than "not yet",
// "not the leader" or "not sent", or the time left is a reserve for the answer; the
// last error is returned.
func (c *cluster) attempt(ctx context.Context, f func(context.Context, *endpoint) error) error {
	tries, stop := withReserve(ctx)
	defer stop()
	every := askAgain
	for {
		_, _, e, err := c.leader(ctx)
		if err == nil {
			err = f(ctx, e)
			if a := sortError(err); a != notYet && a != notLeader && a != notSent {
				return err
			}
		}
		if !c.pause(tries, every) {
			return err
		}
		every = min(every*5/4, askSlowest)
	}
}

// withReserve ends earlier than ctx, by the reserve.
func withReserve(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	left := time.Until(deadline)
	return context.WithTimeout(ctx, max(left-reserve, left/2))
}
