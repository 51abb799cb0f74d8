package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/fettle"
	"fettle/internal/loop"
)

// Where everything is. All keys are below /fettle/.
const (
	keyFleet   = "/fettle/fleet"
	keyEpoch   = "/fettle/epoch"
	keyLeader  = "/fettle/leader" // of a server that is alone
	keyHead    = "/fettle/head"
	keyFreeze  = "/fettle/freeze"
	keyRecords = "/fettle/record/"
	keyIntents = "/fettle/intent/"
	keyLog     = "/fettle/log/"
)

// callWait bounds a call to etcd whose caller names no deadline: many times what
// a disk that works takes.
const callWait = 10 * time.Second

// page is how many keys are read at once.
const page = 256

// EtcdOptions say how a store in etcd is opened.
type EtcdOptions struct {
	Dir   string // of the embedded etcd; made, for its owner only, if it is not there
	Fleet string // a store of another fleet is refused
	// Epoch is raised to this, if it is lower, when the store is loaded: an
	// administrator sets it after restoring or moving the store, since its
	// revisions began anew. 0: as it is.
	Epoch uint64
	// Peers are the other servers of the fleet. nil: there is none, and there will be
	// none.
	Peers *Peers
}

// Etcd is a store in etcd. Its methods may be called concurrently.
type Etcd struct {
	o      EtcdOptions
	server *embedded
	kv     clientv3.KV

	mu      sync.Mutex
	leader  string // the key that says who leads; "": nobody here
	token   fettle.Token
	head    loop.Head
	headRev int64 // etcd's revision at which head was written
	unsure  bool  // a Commit got no answer: head may have moved
	tip     tip
}

// OpenEtcd starts the embedded etcd and connects to it. It blocks until that is
// ready, for about half a second.
func OpenEtcd(ctx context.Context, o EtcdOptions) (*Etcd, error) {
	server, err := startEmbedded(ctx, o.Dir, o.Peers)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	e := &Etcd{o: o, server: server, kv: server.client.KV}
	if o.Peers != nil && len(o.Peers.Existing) == 0 {
		if err := e.atHome(ctx); err != nil {
			return nil, errors.Join(err, server.close())
		}
	}
	return e, nil
}

// Close implements loop.Store. It stops the embedded etcd, waiting for a Commit
// under way. Closing again does nothing.
func (e *Etcd) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.token = fettle.Token{}
	return e.server.close()
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, callWait)
}

// Load implements loop.Store. A server that is alone takes leadership by it: whoever
// led before cannot commit any more. One of several must have been elected
// (Campaign).
func (e *Etcd) Load(ctx context.Context) (loop.State, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.token = fettle.Token{}
	state, err := e.load(ctx)
	if err != nil {
		return loop.State{}, fmt.Errorf("load from etcd: %w", explain(err))
	}
	e.token, e.head, e.unsure = state.Token, state.Head, false
	e.tip.set(state.Token.Epoch, state.Head)
	return state, nil
}

func (e *Etcd) load(ctx context.Context) (loop.State, error) {
	epoch, err := e.settle(ctx)
	if err != nil {
		return loop.State{}, err
	}
	revision, err := e.lead(ctx)
	if err != nil {
		return loop.State{}, err
	}
	token := fettle.Token{Fleet: e.o.Fleet, Epoch: epoch, Revision: uint64(revision)}
	h := newHeld()
	read := func(prefix string, into map[string][]byte) error {
		return e.each(ctx, prefix, "", func(key string, value []byte) error {
			into[strings.TrimPrefix(key, prefix)] = value
			return nil
		})
	}
	if err := errors.Join(read(keyRecords, h.records), read(keyIntents, h.intents)); err != nil {
		return loop.State{}, err
	}
	got, err := e.get(ctx, keyFreeze)
	if err != nil {
		return loop.State{}, err
	}
	if len(got.Kvs) > 0 {
		h.freeze = got.Kvs[0].Value
	}
	if h.head, e.headRev, err = e.readHead(ctx); err != nil {
		return loop.State{}, err
	}
	s, err := h.state()
	s.Token = token
	return s, err
}

// lead returns the revision of creation of the key that makes this process the
// leader: it grows with every change of leader, and is known to etcd for as long as
// the key lives. A server that is alone makes the key; of several, Campaign made it.
func (e *Etcd) lead(ctx context.Context) (int64, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if e.o.Peers != nil {
		got, err := e.kv.Get(ctx, e.leader)
		if err == nil && (e.leader == "" || len(got.Kvs) == 0) {
			err = loop.ErrNotLeader
		}
		if err != nil {
			return 0, err
		}
		return got.Kvs[0].CreateRevision, nil
	}
	// A key keeps its revision of creation until it is deleted, and one
	// transaction may not touch it twice.
	if _, err := e.kv.Delete(ctx, keyLeader); err != nil {
		return 0, err
	}
	resp, err := e.kv.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(keyLeader), "=", 0)).
		Then(clientv3.OpPut(keyLeader, e.o.Fleet)).Commit()
	if err != nil {
		return 0, err
	}
	if !resp.Succeeded {
		return 0, fmt.Errorf("%w: it took over in the same moment", loop.ErrNotLeader)
	}
	e.leader = keyLeader
	return resp.Header.Revision, nil
}

// settle checks whose store it is and returns its epoch.
func (e *Etcd) settle(ctx context.Context) (uint64, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if _, err := e.kv.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(keyFleet), "=", 0)).
		Then(clientv3.OpPut(keyFleet, e.o.Fleet), clientv3.OpPut(keyEpoch, "1")).Commit(); err != nil {
		return 0, err
	}
	resp, err := e.kv.Txn(ctx).Then(clientv3.OpGet(keyFleet), clientv3.OpGet(keyEpoch)).Commit()
	if err != nil {
		return 0, err
	}
	fleet, kept := value(resp.Responses[0].GetResponseRange()), value(resp.Responses[1].GetResponseRange())
	if string(fleet) != e.o.Fleet {
		return 0, fmt.Errorf("it is the store of fleet %q, not %q (give it another folder)", fleet, e.o.Fleet)
	}
	epoch, err := strconv.ParseUint(string(kept), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("its epoch is %q, which is no number: %w", kept, err)
	}
	if epoch < e.o.Epoch {
		epoch = e.o.Epoch
		_, err = e.kv.Put(ctx, keyEpoch, strconv.FormatUint(epoch, 10))
	}
	return epoch, err
}

// Log implements loop.Store.
func (e *Etcd) Log(ctx context.Context, from int64, each func(loop.Entry) error) error {
	return e.each(ctx, keyLog, logKey(max(from, 1)), func(_ string, kept []byte) error {
		entry, _, err := unseal(kept)
		if err != nil {
			return err
		}
		return each(entry)
	})
}

// Head returns where the log ends now.
func (e *Etcd) Head(ctx context.Context) (loop.Head, error) {
	head, _, err := e.readHead(ctx)
	if err != nil {
		return loop.Head{}, fmt.Errorf("the log's head: %w", err)
	}
	return head, nil
}

// Tip returns where the log ends now. It never waits for the disk.
func (e *Etcd) Tip(context.Context) (loop.Tip, error) { return e.tip.get() }

// HashAt returns the hash of an entry, "" where there is none of this number. An
// entry that cannot be read is a *Broken.
func (e *Etcd) HashAt(ctx context.Context, seq int64) (string, error) {
	if seq < 1 {
		return "", nil
	}
	got, err := e.get(ctx, logKey(seq))
	if err != nil {
		return "", fmt.Errorf("log entry %d: %w", seq, explain(err))
	}
	if len(got.Kvs) == 0 {
		return "", nil
	}
	return hashOf(seq, got.Kvs[0].Value)
}

// Check implements loop.Store.
func (e *Etcd) Check(ctx context.Context) (int64, error) {
	e.mu.Lock() // so that the head does not move
	defer e.mu.Unlock()
	var c checker
	err := e.each(ctx, keyLog, "", func(_ string, kept []byte) error { return c.add(kept) })
	if err != nil {
		return c.head.Entries, err
	}
	head, _, err := e.readHead(ctx)
	if err != nil {
		return c.head.Entries, fmt.Errorf("check the log: %w", err)
	}
	return c.head.Entries, c.end(head)
}

// logKey orders entries as they were made.
func logKey(seq int64) string { return fmt.Sprintf("%s%020d", keyLog, seq) }
