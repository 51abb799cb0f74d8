package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

const (
	// keyElection is where the servers of a fleet stand for election.
	keyElection = "/fettle/election"
	// leaseLife is how long a leader that is not heard of any more keeps the others
	// waiting. Etcd grants no less than three halves of an election's time, in whole
	// seconds; a second more, so that a disk that is busy for one does not end it.
	leaseLife = 2
	// resignWait bounds giving up leadership on the way out.
	resignWait = 2 * time.Second
)

// Leader is who leads the fleet.
type Leader struct {
	Name    string `json:"name"`    // the server's
	Address string `json:"address"` // host:port at which agents and people reach it
}

// Term is the time for which a server leads, from its election on.
type Term struct {
	e       *Etcd
	client  *clientv3.Client
	session *concurrency.Session
}

// Campaign waits until this server is elected. Its leadership lasts until its lease
// is lost (Term.Lost) or it resigns; whatever it believes, it can Commit no longer
// than the store has it as the leader. Every error may be one of the moment.
func (e *Etcd) Campaign(ctx context.Context) (*Term, error) {
	if e.o.Peers == nil {
		return nil, errPeers
	}
	who, err := json.Marshal(Leader{e.o.Peers.Name, e.o.Peers.Address})
	if err != nil {
		return nil, fmt.Errorf("stand for election: %w", err)
	}
	bound, cancel := bounded(ctx)
	defer cancel()
	grant, err := e.server.client.Grant(bound, leaseLife)
	if err != nil {
		return nil, fmt.Errorf("stand for election: %w", err)
	}
	session, err := concurrency.NewSession(e.server.client, concurrency.WithLease(grant.ID))
	if err != nil {
		return nil, fmt.Errorf("stand for election: %w", err)
	}
	t := &Term{e: e, client: e.server.client, session: session}
	election := concurrency.NewElection(session, keyElection)
	waiting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
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
	e.mu.Lock()
	e.leader = election.Key()
	e.mu.Unlock()
	return t, nil
}

var errLease = errors.New("the lease on leadership was lost: the store could not be reached in time")

// Lost is closed when the store has not confirmed the leadership in time: another
// server may lead now.
func (t *Term) Lost() <-chan struct{} { return t.session.Done() }

// Resign ends the term, and lets the next server lead at once.
func (t *Term) Resign() error {
	t.e.mu.Lock()
	t.e.leader = ""
	t.e.token.Revision = 0
	t.e.mu.Unlock()
	t.session.Orphan()                                                   // ends the renewals
	ctx, cancel := context.WithTimeout(context.Background(), resignWait) // the caller's may have ended
	defer cancel()
	if _, err := t.client.Revoke(ctx, t.session.Lease()); err != nil {
		return fmt.Errorf("resign: %w (the next server leads when the lease ends)", err)
	}
	return nil
}

// Follow tells who leads, at once and with every change, until ctx ends. The zero
// Leader says that nobody does.
func (e *Etcd) Follow(ctx context.Context, told func(Leader)) {
	for ctx.Err() == nil {
		got, err := e.get(ctx, keyElection+"/", clientv3.WithFirstCreate()...)
		if err != nil {
			select { // a learner answers nobody; a member without a majority neither
			case <-time.After(attendEvery):
			case <-ctx.Done():
			}
			continue
		}
		var l Leader
		if len(got.Kvs) > 0 {
			_ = json.Unmarshal(got.Kvs[0].Value, &l) // what cannot be read is a leader that nobody reaches
		}
		told(l)
		e.awaitChange(ctx, got.Header.Revision+1)
	}
}

// awaitChange returns when somebody has come to or gone from the election since a
// revision, or when that cannot be told any more.
func (e *Etcd) awaitChange(ctx context.Context, from int64) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	<-e.server.client.Watch(ctx, keyElection+"/", clientv3.WithPrefix(), clientv3.WithRev(from))
}
