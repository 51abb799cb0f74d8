package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/fleet/segment"
)

// roundEvery is between two rounds of a Keeper.
const roundEvery = 2 * time.Second

// alone is under what name a server without others says what it holds.
const alone = "alone"

// KeeperOptions is what a Keeper runs with.
type KeeperOptions struct {
	// Fetch gets segments from other servers. nil: there are none.
	Fetch Fetch
	// Forgettable returns the incidents that the mind could do without, the oldest first:
	// ended before a time, and not among so many newest. nil: none.
	Forgettable func(ctx context.Context, newest int, before time.Time) ([]string, error)
	// Forget is told which of them are in files.
	Forget func(ids []string)
	Wall   func() time.Time // nil: time.Now
	Log    *slog.Logger     // nil: nothing is logged
}

// Keeper keeps the store small: what is old goes to files, which every server holds. One
// runs on every server; what changes the store is done by the one that leads.
//
// A stretch goes in steps, each of which may be the last one before a crash and is found
// again after it: the leader makes the file and offers it; every server makes or fetches
// its own copy, and says so once it is durable; when a majority holds it, one transaction
// under the leader's key enters it into the index, and into the chain; only then its
// lines leave etcd. Until then the file is a copy that nobody needs.
type Keeper struct {
	e *Etcd
	o KeeperOptions

	// Owned by Round.
	settled   map[string]bool // offers that are held, durably
	bad       map[string]bool // files that were found altered
	published string
	beat      int             // of what it says
	said      time.Time       // when it was raised last
	heard     map[string]word // from whom
	compacted int64
	moved     string // the last segment of incidents whose records were taken out
	seen      turn
	waits     turn      // for a member that is to shrink its file before this one
	patient   time.Time // since when the leader waits for the others with its own file
	complaint string
	asked     time.Time // when an existing etcd said last whether it takes writes
	alarmText string    // what it said
	scrubbed  int

	hook func(step string) // set by a test, to stop there
}

// at is reached when a step is done.
func (k *Keeper) at(step string) {
	if k.hook != nil {
		k.hook(step)
	}
}

// NewKeeper returns a keeper of e that does nothing until Run or Round.
func NewKeeper(e *Etcd, o KeeperOptions) *Keeper {
	if o.Wall == nil {
		o.Wall = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Fetch != nil {
		e.fetcher.Store(&o.Fetch)
	}
	return &Keeper{e: e, o: o, settled: map[string]bool{}, bad: map[string]bool{}, heard: map[string]word{}}
}

// Run makes a round now and then, and at once when something is offered or held, until
// ctx ends. What fails in one is tried again in the next, and said once.
func (k *Keeper) Run(ctx context.Context) {
	defer k.e.tally.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ticker := time.NewTicker(roundEvery)
	defer ticker.Stop()
	var offered, held clientv3.WatchChan
	for {
		if offered == nil {
			offered = k.e.client.Watch(ctx, keyOffer, clientv3.WithPrefix())
		}
		if held == nil {
			held = k.e.client.Watch(ctx, keyHeld, clientv3.WithPrefix())
		}
		err := k.Round(ctx)
		switch {
		case err == nil:
			k.complaint = ""
		case ctx.Err() == nil && err.Error() != k.complaint && !learns(err):
			k.complaint = err.Error()
			k.o.Log.Warn("the store's old entries are not moved to files at present; it is tried again", "error", err)
		}
		if err != nil { // not at once
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
			continue
		}
		var more bool
		select {
		case <-ticker.C:
		case _, more = <-offered:
			if !more { // it broke off: with the next round there is another
				offered = nil
			}
		case _, more = <-held:
			if !more {
				held = nil
			}
		case <-ctx.Done():
			return
		}
	}
}

// learns reports whether an error is that this server's part of the store is still
// catching up, and answers nobody meanwhile: that is no trouble.
func learns(err error) bool {
	var e rpctypes.EtcdError
	return errors.As(err, &e) && e.Error() == rpctypes.ErrorDesc(rpctypes.ErrGRPCNotSupportedForLearner)
}

// Round does what is to be done now. It may be called again at any time, also after a
// crash at any point of an earlier one; not by two at once.
func (k *Keeper) Round(ctx context.Context) error {
	var failed []error
	step := func(what string, err error) {
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", what, err))
		}
	}
	step("the store's space", k.space(ctx))
	offers, err := k.hold(ctx)
	step("hold segments", err)
	if _, leads := k.e.leads(); leads && err == nil {
		step("move entries of the log to files", k.entries(ctx, offers[segment.Log]))
		step("move incidents to files", k.incidents(ctx, offers[segment.Incidents]))
		step("compact the store", k.compact(ctx))
	}
	step("how large the store is", k.measure(ctx))
	return errors.Join(failed...)
}

// leads returns the revision of the token under which this server leads.
func (e *Etcd) leads() (int64, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return int64(e.token.Revision), e.token.Revision != 0 && e.leader != ""
}

// name is under which this server says what it holds.
func (e *Etcd) name() string {
	if self, several := e.self(); several {
		return self.Name
	}
	return alone
}

// holders are the servers of which a majority must hold a file before it counts: those
// that have a vote in the store. In an existing etcd none has one; there it is those that
// the register knows.
func (e *Etcd) holders(ctx context.Context) ([]string, error) {
	if e.o.Existing != nil {
		in, err := e.Shelf().List(ctx, "servers")
		return slices.Sorted(maps.Keys(in)), err
	}
	if e.o.Peers == nil {
		return []string{alone}, nil
	}
	members, err := e.Members(ctx)
	var names []string
	for _, m := range members {
		if !m.Learner {
			names = append(names, m.Name)
		}
	}
	return names, err
}

// told returns what all holders said, this server among them, and how many there are. Who
// was taken out does not count.
func (k *Keeper) told(ctx context.Context) (by map[string]holding, voters int, err error) {
	names, err := k.e.holders(ctx)
	if err != nil {
		return nil, 0, err
	}
	by = map[string]holding{}
	err = k.e.each(ctx, keyHeld, "", func(key string, value []byte) error {
		name := strings.TrimPrefix(key, keyHeld)
		var h holding
		if slices.Contains(names, name) && json.Unmarshal(value, &h) == nil { // what cannot be read holds nothing
			by[name] = h
			k.hear(name, string(value))
		}
		return nil
	})
	return by, len(names), err
}

// led makes a transaction that is carried out only while this server leads.
func (e *Etcd) led(ctx context.Context, cmps []clientv3.Cmp, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	e.mu.Lock()
	leader, revision := e.leader, int64(e.token.Revision)
	e.mu.Unlock()
	ctx, cancel := bounded(ctx)
	defer cancel()
	return e.kv.Txn(ctx).If(append(cmps, clientv3.Compare(clientv3.CreateRevision(leader), "=", revision))...).Then(ops...).Commit()
}
