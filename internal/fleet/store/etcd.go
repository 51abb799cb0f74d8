package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/fettle"
	"fettle/internal/fleet/segment"
	"fettle/internal/loop"
)

// Where everything is, below the root: keyRoot in the embedded etcd, the prefix that
// was named in an existing one. The client puts it before every key.
const (
	keyFleet   = "fleet"
	keyEpoch   = "epoch"
	keyLeader  = "leader" // of a server that is alone
	keyHead    = "head"
	keyFreeze  = "freeze"
	keyWindows = "windows"
	keyRecords = "record/"
	keyIntents = "intent/"
	keyLog     = "log/"
	keyMerged  = "merged/" // how far agents' own chains were taken into the log
)

// callWait bounds a call to etcd whose caller names no deadline: many times what
// a disk that works takes.
const callWait = 10 * time.Second

// page is how many keys are read at once.
const page = 256

// EtcdOptions say how a store in etcd is opened.
type EtcdOptions struct {
	Dir   string // of the embedded etcd and of files; made, for its owner only, if it is not there
	Fleet string // a store of another fleet is refused
	// Peers are the other servers of the fleet, whose embedded etcd make up the store.
	// nil: there is none, and there will be none.
	Peers *Peers
	// Existing is an etcd cluster that is there already, instead of an embedded one: Peers
	// are of no use then. nil: the store is Fettle's own.
	Existing *Existing
	// Limits bound what is kept in etcd. The zero value is for a fleet of any size.
	Limits Limits
}

// Etcd is a store in etcd. Its methods may be called concurrently.
type Etcd struct {
	o       EtcdOptions
	server  *embedded // nil: the store is an existing cluster
	client  *clientv3.Client
	kv      clientv3.KV
	cluster atomic.Uint64 // etcd's own name of the cluster that answered last

	files   *segment.Folder
	index   index
	hashes  hashes
	fetcher atomic.Pointer[Fetch]
	readers atomic.Int32 // that read at a revision of a moment ago
	doubts  doubts
	room    room
	tally   tally // of an existing cluster
	usage   atomic.Pointer[Usage]

	mu      sync.Mutex
	leader  string // the key that says who leads; "": nobody here
	token   fettle.Token
	head    loop.Head
	headRev int64 // etcd's revision at which head was written
	unsure  bool  // a Commit got no answer: head may have moved
	tip     tip
}

// OpenEtcd starts the embedded etcd and connects to it. It blocks until that is
// ready, for about half a second. An existing one it connects to and looks over: see
// Existing.
func OpenEtcd(ctx context.Context, o EtcdOptions) (*Etcd, error) {
	o.Limits = o.Limits.orDefault(o.Existing != nil)
	if o.Existing != nil {
		return openExisting(ctx, o)
	}
	server, err := startEmbedded(ctx, o.Dir, o.Peers, o.Limits.Quota)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	e, err := onEtcd(o, server)
	if err != nil {
		return nil, errors.Join(err, server.close())
	}
	if o.Peers == nil { // nobody else would: it could not even lead
		if err := NewKeeper(e, KeeperOptions{}).space(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("store: %w", explain(err)), server.close())
		}
	}
	if o.Peers != nil && len(o.Peers.Existing) == 0 {
		if err := e.atHome(ctx); err != nil {
			return nil, errors.Join(err, server.close())
		}
	}
	return e, nil
}

// onEtcd is the store on an etcd that runs.
func onEtcd(o EtcdOptions, server *embedded) (*Etcd, error) {
	e := &Etcd{o: o, server: server, client: server.client, kv: server.client.KV}
	e.room.limits, e.room.own = o.Limits, server.etcd.Server.Backend()
	return e, e.openFiles()
}

// openFiles opens the folder of what the store let go.
func (e *Etcd) openFiles() (err error) {
	if e.o.Dir == "" {
		return errors.New("store: no folder is named for what it lets go")
	}
	e.index.refs = map[segment.Kind][]segment.Ref{}
	if e.files, err = segment.Open(filepath.Join(e.o.Dir, "segments")); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// Close implements loop.Store. It stops the embedded etcd, waiting for a Commit
// under way. Closing again does nothing.
func (e *Etcd) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.token = fettle.Token{}
	if e.server == nil {
		return e.closeClient()
	}
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
	if err := errors.Join(e.finishStaged(ctx, revision), e.dropStage(ctx, revision)); err != nil {
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
	if err := errors.Join(read(keyRecords, h.records), read(keyIntents, h.intents), read(keyMerged, h.merged)); err != nil {
		return loop.State{}, err
	}
	for key, into := range map[string]*[]byte{keyFreeze: &h.freeze, keyWindows: &h.windows} {
		got, err := e.get(ctx, key)
		if err != nil {
			return loop.State{}, err
		}
		if len(got.Kvs) > 0 {
			*into = got.Kvs[0].Value
		}
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
	if _, several := e.self(); several {
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

// settle checks whose store it is and returns its epoch. Where that is there already it
// writes nothing: etcd loses what it passes on to a leader of its own that has just died.
func (e *Etcd) settle(ctx context.Context) (uint64, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	read := func() (*clientv3.TxnResponse, error) {
		return e.kv.Txn(ctx).Then(clientv3.OpGet(keyFleet), clientv3.OpGet(keyEpoch), clientv3.OpGet(keyCluster)).Commit()
	}
	resp, err := read()
	if e.o.Existing == nil && err == nil && value(resp.Responses[0].GetResponseRange()) == nil { // an existing one was settled when it was opened
		if _, err = e.kv.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(keyFleet), "=", 0)).
			Then(clientv3.OpPut(keyFleet, e.o.Fleet), clientv3.OpPut(keyEpoch, "1")).Commit(); err == nil {
			resp, err = read()
		}
	}
	if err != nil {
		return 0, err
	}
	fleet, kept := value(resp.Responses[0].GetResponseRange()), value(resp.Responses[1].GetResponseRange())
	e.answered(resp.Header)
	if len(fleet) == 0 {
		return 0, errEmptied
	}
	if in := value(resp.Responses[2].GetResponseRange()); e.o.Existing != nil && string(in) != strconv.FormatUint(e.cluster.Load(), 16) {
		return 0, moved(string(in), strconv.FormatUint(e.cluster.Load(), 16))
	}
	if string(fleet) != e.o.Fleet {
		return 0, fmt.Errorf("it is the store of fleet %q, not %q (give it another folder)", fleet, e.o.Fleet)
	}
	epoch, err := strconv.ParseUint(string(kept), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("its epoch is %q, which is no number: %w", kept, err)
	}
	return epoch, nil
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

// logKey orders entries as they were made.
func logKey(seq int64) string { return fmt.Sprintf("%s%020d", keyLog, seq) }
