package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

const (
	// keyElection is where the servers of a fleet stand for election.
	keyElection = "election"
	// leaseLife is how long a leader that is not heard of any more keeps the others
	// waiting. Etcd grants no less than three halves of an election's time, in whole
	// seconds; a second more, so that a disk that is busy for one does not end it.
	leaseLife = 2
	// resignWait bounds giving up leadership on the way out.
	resignWait = 2 * time.Second
	// handOverWait bounds the hand-over to one member: etcd gives up on one that is not
	// there after an election's time.
	handOverWait = etcdElectionMs * time.Millisecond
)

// Leader is who leads the fleet.
type Leader struct {
	Name    string `json:"name"`    // the server's
	Address string `json:"address"` // host:port at which agents and people reach it

	lease clientv3.LeaseID // of its present term, where Follow tells of it
}

// Term is the time for which a server leads, from its election on.
type Term struct {
	e       *Etcd
	client  *clientv3.Client
	session *concurrency.Session
	end     context.CancelFunc // of all that the session does
}

// Campaign waits until this server is elected. Its leadership lasts until its lease
// is lost (Term.Lost) or it resigns; whatever it believes, it can Commit no longer
// than the store has it as the leader. Every error may be one of the moment.
func (e *Etcd) Campaign(ctx context.Context) (*Term, error) {
	self, several := e.self()
	if !several {
		return nil, errPeers
	}
	who, err := json.Marshal(self)
	if err != nil {
		return nil, fmt.Errorf("stand for election: %w", err)
	}
	if err := e.still(ctx); err != nil {
		return nil, fmt.Errorf("stand for election: %w", err)
	}
	if err := e.bury(ctx, self.Name); err != nil {
		return nil, fmt.Errorf("stand for election: %w", err)
	}
	bound, cancel := bounded(ctx)
	defer cancel()
	grant, err := e.client.Grant(bound, leaseLife)
	if err != nil {
		return nil, fmt.Errorf("stand for election: %w", err)
	}
	life, end := context.WithCancel(context.Background()) // until it resigns
	session, err := concurrency.NewSession(lasting(life, e.client), concurrency.WithLease(grant.ID))
	if err != nil {
		end()
		return nil, fmt.Errorf("stand for election: %w", err)
	}
	t := &Term{e: e, client: e.client, session: session, end: end}
	election := concurrency.NewElection(session, keyElection)
	waiting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	// Who gives up takes its name back, for as long as its client lives; that may be for
	// ever, where the store has no majority. A server that is to stop does not wait so long.
	unhook := context.AfterFunc(waiting, func() { time.AfterFunc(resignWait, end) })
	defer unhook()
	over := make(chan struct{})
	defer close(over)
	go func() { // ends with this call
		select {
		case <-session.Done():
			stop(errLease)
		case <-over:
		}
	}()
	if err := election.Campaign(waiting, string(who)); err != nil {
		if cause := context.Cause(waiting); cause != nil {
			err = cause
		}
		return nil, errors.Join(fmt.Errorf("stand for election: %w", err), t.Resign())
	}
	if err := e.still(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("stand for election: %w", err), t.Resign())
	}
	e.mu.Lock()
	e.leader = election.Key()
	e.mu.Unlock()
	return t, nil
}

// lasting is a client of the same store whose calls last no longer than a context, also
// those that are made for no caller in particular.
func lasting(ctx context.Context, of *clientv3.Client) *clientv3.Client {
	c := clientv3.NewCtxClient(ctx)
	c.KV, c.Lease, c.Watcher = of.KV, of.Lease, of.Watcher
	return c
}

// bury ends what an earlier process of this server left in the election when it was
// killed: that one is gone, for its folder is ours now. Nobody waits for its lease. A
// server of an existing store has no folder in it, and may be there twice for a moment.
func (e *Etcd) bury(ctx context.Context, name string) error {
	if e.o.Existing != nil {
		return nil
	}
	got, err := e.get(ctx, keyElection+"/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	for _, kv := range got.Kvs {
		l := Leader{lease: clientv3.LeaseID(kv.Lease)}
		if json.Unmarshal(kv.Value, &l) != nil || l.Name != name {
			continue
		}
		if err := e.Relieve(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// ErrRemoved says that this server is in the fleet no more: it never will lead.
var ErrRemoved = errors.New("this server was taken out of the fleet")

// still makes sure that this server is one of the fleet's. One with a store of its own
// loses its part of that when it is taken out; of an existing one it would stay a client.
func (e *Etcd) still(ctx context.Context) error {
	if e.o.Existing == nil {
		return nil
	}
	got, err := e.get(ctx, shelfKey("servers", e.o.Existing.Name))
	if err == nil && len(got.Kvs) == 0 {
		err = ErrRemoved
	}
	return err
}

var errLease = errors.New("the lease on leadership was lost: the store could not be reached in time")

// Lost is closed when the store has not confirmed the leadership in time: another
// server may lead now.
func (t *Term) Lost() <-chan struct{} { return t.session.Done() }

// HandOver has another member lead the store itself, where this server's does. One that
// is about to stop calls it before it resigns: what the next server writes first would
// be lost on its way to here. Where no other one takes it, it is left to an election.
func (t *Term) HandOver() {
	if t.e.o.Existing != nil { // its members go on
		return
	}
	own := t.e.server.etcd.Server
	if own.Leader() != own.MemberID() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), resignWait) // the caller's has ended
	defer cancel()
	resp, err := t.client.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return
	}
	for _, m := range resp.Members {
		if m.ID == uint64(own.MemberID()) || m.IsLearner {
			continue
		}
		try, stop := context.WithTimeout(ctx, handOverWait)
		_, err := t.client.MoveLeader(try, m.ID)
		stop()
		if err == nil {
			return
		}
	}
}

// Resign ends the term, and lets the next server lead at once.
func (t *Term) Resign() error {
	t.e.mu.Lock()
	t.e.leader = ""
	t.e.token.Revision = 0
	t.e.mu.Unlock()
	t.session.Orphan()                                                   // ends the renewals
	ctx, cancel := context.WithTimeout(context.Background(), resignWait) // the caller's may have ended
	defer cancel()
	defer t.end()
	if _, err := t.client.Revoke(ctx, t.session.Lease()); err != nil {
		return fmt.Errorf("resign: %w (the next server leads when the lease ends)", err)
	}
	return nil
}

// Follow tells who leads, at once and with every change, until ctx ends. The zero
// Leader says that nobody does.
func (e *Etcd) Follow(ctx context.Context, told func(Leader)) {
	last := Leader{Name: "?"} // nobody's
	for ctx.Err() == nil {
		got, err := e.get(ctx, keyElection+"/", clientv3.WithFirstCreate()...)
		if err != nil {
			pause(ctx, attendEvery) // a learner answers nobody; a member without a majority neither
			continue
		}
		var l Leader
		if len(got.Kvs) > 0 {
			_ = json.Unmarshal(got.Kvs[0].Value, &l) // what cannot be read is a leader that nobody reaches
			l.lease = clientv3.LeaseID(got.Kvs[0].Lease)
		}
		if l != last { // those who wait to lead come and go too
			last = l
			told(l)
		}
		if !e.awaitChange(ctx, got.Header.Revision+1) {
			pause(ctx, followAgain) // a member that knows no leader ends the watch at once
		}
	}
}

// followAgain is the pause before it is looked anew who leads, where that cannot be
// watched.
const followAgain = 100 * time.Millisecond

// Relieve ends the term of a leader that Follow told of and that is known to be gone, so
// that the next one leads at once. It does no harm to one that is there after all: that
// one commits nothing any more, and stands for election again. Nil where that term has
// ended already. What the store passes on to a member that is gone is lost: ctx should
// be short, and an error is tried again.
func (e *Etcd) Relieve(ctx context.Context, l Leader) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	_, err := e.client.Revoke(ctx, l.lease)
	if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("relieve server %s of leadership: %w", l.Name, err)
	}
	return nil
}

// awaitChange returns true when somebody has come to or gone from the election since a
// revision, and false when that cannot be told any more.
func (e *Etcd) awaitChange(ctx context.Context, from int64) bool {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	r, ok := <-e.client.Watch(ctx, keyElection+"/", clientv3.WithPrefix(), clientv3.WithRev(from))
	return ok && r.Err() == nil
}
