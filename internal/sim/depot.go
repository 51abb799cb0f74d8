package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"fettle/internal/act/execute"
	"fettle/internal/fettle"
	"fettle/internal/fleet/store"
	"fettle/internal/judge/guard"
	"fettle/internal/loop"
)

const fleet = "sim"

// depot is the store that the servers contend for. What it keeps is in a
// store.Memory, with that one's chain; here are its disk, its leaders' tokens, and
// the copies that somebody may put back.
type depot struct {
	s *Sim

	mu      sync.Mutex
	kept    *store.Memory
	inner   fettle.Token // under which kept takes a commit
	epoch   uint64
	counter uint64 // the store's own revision: leaderships and commits count
	holder  *share
	keeps   bool     // copies may be put back
	txns    [][]byte // all that was committed, where copies are kept
	at      []uint64 // the counter after each
	heads   []loop.Head
	refuses bool
	slow    time.Duration
	frozen  bool                   // by what was committed
	windows []guard.Window         // of maintenance, likewise
	intents map[string]loop.Intent // every intent that was ever durable, in any branch
	born    map[string]int         // of an intent: the branch that it was committed in
	branch  int                    // how often a copy was put back
	wasSlow bool
	logged  map[string]bool // keys that the log tells of
}

func newDepot(s *Sim, keeps bool) *depot {
	return &depot{s: s, kept: store.NewMemory(fleet), epoch: 1, keeps: keeps, intents: map[string]loop.Intent{}, logged: map[string]bool{}, born: map[string]int{}}
}

// share is a server's hold on the store. It implements loop.Store.
type share struct {
	d     *depot
	sp    *serverProcess
	token fettle.Token
	dead  bool
	gone  chan struct{} // closed when its process dies
}

var errAway = errors.New("the store does not answer")

func (d *depot) open(sp *serverProcess) *share {
	return &share{d: d, sp: sp, gone: make(chan struct{})}
}

// die is the end of the process: nothing more is kept. What it runs is ended by end,
// before a commit that waits is told: one that heard of the store first would go on for
// as long as it takes to be ended, and how long that is nobody could say.
func (h *share) die(end func()) {
	h.d.mu.Lock()
	h.dead = true
	h.d.mu.Unlock()
	end()
	close(h.gone)
}

// reaches reports whether the server reaches the store now. mu is held.
func (h *share) reaches() error {
	switch {
	case h.dead:
		return context.Canceled
	case h.d.refuses, !h.d.s.w.linked(h.sp.srv.name, "store"):
		return errAway
	}
	return nil
}

// Load implements loop.Store.
func (h *share) Load(ctx context.Context) (loop.State, error) {
	d := h.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := h.reaches(); err != nil {
		return loop.State{}, err
	}
	st, err := d.kept.Load(ctx)
	if err != nil {
		return loop.State{}, err
	}
	d.inner = st.Token
	d.counter++
	h.token = fettle.Token{Fleet: fleet, Epoch: d.epoch, Revision: d.counter}
	st.Token = h.token
	d.holder = h
	d.s.loaded(st.Records)
	if n, err := d.kept.Check(ctx); err != nil {
		d.s.e.breaks("S13", "the chain of %d entries: %v", n, err)
	}
	return st, nil
}

// Commit implements loop.Store.
func (h *share) Commit(ctx context.Context, t loop.Txn) error {
	d := h.d
	d.mu.Lock()
	slow := d.slow
	d.mu.Unlock()
	if slow > 0 {
		if err := h.wait(ctx, slow); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := h.reaches(); err != nil {
		return err
	}
	if d.holder != h || t.Token != h.token {
		return fmt.Errorf("commit: %w", loop.ErrNotLeader)
	}
	inner := t
	inner.Token = d.inner
	if err := d.kept.Commit(ctx, inner); err != nil {
		return err
	}
	d.counter++
	d.note(h, t)
	return nil
}

// wait lets time pass under a commit.
func (h *share) wait(ctx context.Context, slow time.Duration) error {
	over := make(chan struct{})
	h.d.s.e.post("disk under "+h.sp.name, exactly(slow), func() { close(over) })
	select {
	case <-over:
		return nil
	case <-h.gone:
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	}
}

// note remembers what was committed, and has it checked. mu is held.
func (d *depot) note(h *share, t loop.Txn) {
	if d.keeps {
		data, err := json.Marshal(t)
		if err != nil {
			d.s.e.breaks("S13", "a commit cannot be written: %v", err)
		}
		head, _ := d.kept.Head(context.Background())
		d.txns, d.at, d.heads = append(d.txns, data), append(d.at, d.counter), append(d.heads, head)
	}
	for _, e := range t.Log {
		if e.Kind == string(fettle.EvIntent) {
			var ev fettle.Event
			if json.Unmarshal(e.Data, &ev) == nil {
				d.logged[ev.Key] = true
			}
		}
	}
	d.persons(t) // what was decided with it in mind comes with it
	d.s.committed(t.Records)
	d.s.landed(t.Settled)
	for _, in := range t.Intents {
		d.intents[in.Dispatch.Key], d.born[in.Dispatch.Key] = in, d.branch
		d.s.checkIntent(h.sp, t, in)
	}
}

// persons notes what people said. mu is held.
func (d *depot) persons(t loop.Txn) {
	if t.Freeze != nil {
		d.frozen = true
	} else if t.Thaw {
		d.frozen = false
	}
	if t.Windows != nil {
		d.windows = *t.Windows
	}
}

// restore puts back the copy after n commits. Without an epoch of its own nobody
// can tell it from the store that it is a copy of, but by the log.
func (d *depot) restore(n int, epoch uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx := context.Background()
	fresh := store.NewMemory(fleet)
	st, err := fresh.Load(ctx)
	if err != nil {
		panic(err) // memory alone
	}
	d.frozen, d.windows = false, nil
	d.branch++
	for _, data := range d.txns[:n] {
		var t loop.Txn
		if err := json.Unmarshal(data, &t); err != nil {
			d.s.e.breaks("S13", "a commit cannot be read back: %v", err)
			return
		}
		t.Token = st.Token
		if err := fresh.Commit(ctx, t); err != nil {
			d.s.e.breaks("S13", "a commit cannot be put back: %v", err)
			return
		}
		d.persons(t)
	}
	if head, _ := fresh.Head(ctx); n > 0 && head != d.heads[n-1] {
		d.s.e.breaks("S13", "the copy of %d commits ends with another head: %v, was %v", n, head, d.heads[n-1])
	}
	d.kept, d.inner, d.epoch, d.holder = fresh, fettle.Token{}, epoch, nil
	d.txns, d.at, d.heads = d.txns[:n], d.at[:n], d.heads[:n]
	d.counter = 1
	if n > 0 {
		d.counter = d.at[n-1]
	}
}

// Log implements loop.Store.
func (h *share) Log(ctx context.Context, from int64, each func(loop.Entry) error) error {
	return h.d.kept.Log(ctx, from, each)
}

// Check implements loop.Store.
func (h *share) Check(ctx context.Context) (int64, error) { return h.d.kept.Check(ctx) }

// Close implements loop.Store.
func (h *share) Close() error { return nil }

// tip is the end of the log as this server shows it; false where it reaches no
// store, or does not lead by it.
func (h *share) tip() (execute.LogHead, bool) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if h.reaches() != nil || h.d.holder != h {
		return execute.LogHead{}, false
	}
	head, err := h.d.kept.Head(context.Background())
	if err != nil || head.Entries == 0 {
		return execute.LogHead{}, false
	}
	return execute.LogHead{Epoch: h.token.Epoch, Entries: head.Entries, Hash: head.Hash}, true
}

// away reports whether this server cannot say where its log ends: one that cannot
// begins no session.
func (h *share) away() bool {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return h.reaches() != nil || h.d.holder != h
}

func (h *share) hashAt(seq int64) string {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	hash, err := h.d.kept.HashAt(context.Background(), seq)
	if err != nil {
		return ""
	}
	return hash
}

// master is the share that may commit, nil where none may.
func (d *depot) master() *share {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.holder
}

// holds reports whether the log that the store has now has an entry.
func (d *depot) holds(head execute.LogHead) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	hash, err := d.kept.HashAt(context.Background(), head.Entries)
	return err == nil && hash == head.Hash
}
