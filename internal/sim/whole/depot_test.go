package whole_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/charter"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/store"
	"fettle/internal/loop"
)

const (
	// leaseLife is how long a leader that the store does not hear keeps the others
	// waiting, as store.Etcd has it.
	leaseLife = 2 * time.Second
	// electEvery is how often who stands for election looks.
	electEvery = 100 * time.Millisecond
)

// depot is the store that the servers share, and their election. What it keeps is in a
// store.Memory with that one's chain. A server reaches it unless its link to the host
// called store is cut.
type depot struct {
	r   *run
	net *network

	mu      sync.Mutex
	kept    *store.Memory
	inner   fettle.Token // under which kept takes a commit
	epoch   uint64
	charter []byte
	counter uint64 // the store's revision
	holder  *share // who leads; nil: nobody
	seen    time.Time
	refuses bool
	slow    time.Duration
	changed chan struct{} // closed and renewed when the leader changes
	txns    [][]byte      // of this branch
	shelf   map[string]map[string][]byte
	killAt  int // commits until the leader is killed; 0: it is not

	books books
}

// books is what a checker knows of what was committed.
type books struct {
	intents map[string]loop.Intent // every one that was ever durable, in any branch
	branch  map[string]int         // in which it was
	heads   map[string]loop.Head   // of the log, with it
	settled map[string]bool
	now     int // the present branch
}

func newDepot(r *run) *depot {
	return &depot{
		r: r, net: r.net, kept: store.NewMemory(r.ca.Fleet()), epoch: 1, changed: make(chan struct{}), shelf: map[string]map[string][]byte{},
		books: books{intents: map[string]loop.Intent{}, branch: map[string]int{}, heads: map[string]loop.Head{}, settled: map[string]bool{}},
	}
}

var errStoreAway = errors.New("the store does not answer")

// share is a server's way to the store. It implements loop.Store, server.History and
// pki.Shelf. It may lead for one term at a time.
type share struct {
	d     *depot
	p     *process
	at    string       // where agents reach the server
	name  string       // the server's identity
	keeps bool         // it renews its lease; guarded by depot.mu
	token fettle.Token // of its present term
}

// reaches says why the server does not reach the store now. d.mu is held.
func (h *share) reaches() error {
	switch {
	case h.p.dead():
		return context.Canceled
	case h.d.refuses, !h.d.net.reach(h.p.host, "store"), !h.d.net.reach("store", h.p.host):
		return errStoreAway
	}
	return nil
}

// call reaches the store, however slow it is.
func (h *share) call(ctx context.Context) error {
	h.d.mu.Lock()
	slow := h.d.slow
	h.d.mu.Unlock()
	if slow > 0 {
		if err := sleep(ctx, slow); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return h.reaches()
}

// campaign waits until this server is elected.
func (h *share) campaign(ctx context.Context) error {
	for {
		d := h.d
		d.mu.Lock()
		now := time.Now()
		if d.holder != nil && d.holder.keeps && d.holder.reaches() == nil {
			d.seen = now
		}
		if h.reaches() == nil && (d.holder == nil || now.Sub(d.seen) >= leaseLife) {
			d.holder, d.seen, h.keeps = h, now, true
			close(d.changed)
			d.changed = make(chan struct{})
			d.mu.Unlock()
			d.r.tell("%s leads", h.p.name)
			return nil
		}
		d.mu.Unlock()
		if err := sleep(ctx, electEvery); err != nil {
			return err
		}
	}
}

// lost returns when the lease is lost, or ctx ends.
func (h *share) lost(ctx context.Context) {
	last := time.Now()
	for {
		h.d.mu.Lock()
		now := time.Now()
		if h.reaches() == nil {
			last = now
		}
		over := h.d.holder != h || now.Sub(last) >= leaseLife
		h.d.mu.Unlock()
		if over || sleep(ctx, electEvery) != nil {
			return
		}
	}
}

// resign ends the term, where the store hears it.
func (h *share) resign() {
	d := h.d
	d.mu.Lock()
	defer d.mu.Unlock()
	h.keeps = false
	if d.holder == h && h.reaches() == nil {
		d.holder = nil
		close(d.changed)
		d.changed = make(chan struct{})
	}
}

// leader is who leads, and a channel that is closed when that changes.
func (d *depot) leader() (store.Leader, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.holder == nil {
		return store.Leader{}, d.changed
	}
	return store.Leader{Name: d.holder.name, Address: d.holder.at}, d.changed
}

// Load implements loop.Store.
func (h *share) Load(ctx context.Context) (loop.State, error) {
	if err := h.call(ctx); err != nil {
		return loop.State{}, err
	}
	d := h.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.holder != h {
		return loop.State{}, loop.ErrNotLeader
	}
	st, err := d.kept.Load(ctx)
	if err != nil {
		return loop.State{}, err
	}
	d.inner = st.Token
	d.counter++
	h.token = fettle.Token{Fleet: d.r.ca.Fleet(), Epoch: d.epoch, Revision: d.counter}
	st.Token = h.token
	d.r.loaded(st.Records)
	if n, err := d.kept.Check(ctx); err != nil {
		d.r.breaks("S13", "the chain of %d entries: %v", n, err)
	}
	return st, nil
}

// Commit implements loop.Store.
func (h *share) Commit(ctx context.Context, t loop.Txn) error {
	if err := h.call(ctx); err != nil {
		return err
	}
	d := h.d
	d.mu.Lock()
	defer d.mu.Unlock()
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
	if d.killAt > 0 {
		if d.killAt--; d.killAt == 0 {
			d.strike(h)
			return context.Canceled // it does not hear any more that it was kept
		}
	}
	return nil
}

// strike kills a server, and has it started again. d.mu is held.
func (d *depot) strike(h *share) {
	for _, n := range d.r.nodes {
		if n.name == h.p.host {
			h.p.kill(false)
			d.r.after(0, func() { d.r.bounce(n, d.r.later(h.p.name, time.Second, 15*time.Second)) })
		}
	}
}

// note remembers what was committed, and has it checked. mu is held.
func (d *depot) note(h *share, t loop.Txn) {
	data, err := json.Marshal(t)
	if err != nil {
		d.r.breaks("S13", "a commit cannot be written: %v", err)
		return
	}
	if bytes.Contains(data, []byte(secret)) {
		d.r.breaks("S14", "a secret is in a commit: %.300s", data)
	}
	d.txns = append(d.txns, data)
	head, _ := d.kept.Head(context.Background())
	for _, key := range t.Settled {
		d.books.settled[key] = true
	}
	for _, in := range t.Intents {
		d.books.intents[in.Dispatch.Key] = in
		d.books.branch[in.Dispatch.Key] = d.books.now
		d.books.heads[in.Dispatch.Key] = head
	}
	d.r.committed(h, t)
}

// restore puts back the copy that was made after n commits, as a person would: under an
// epoch of its own with an administrator's word, or, careless, under the old one.
func (d *depot) restore(n int, signed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx := context.Background()
	fresh := store.NewMemory(d.r.ca.Fleet())
	st, err := fresh.Load(ctx)
	if err != nil {
		d.r.breaks("sim", "an empty store: %v", err)
		return
	}
	for _, data := range d.txns[:n] {
		var t loop.Txn
		if err := json.Unmarshal(data, &t); err != nil {
			d.r.breaks("S13", "a commit cannot be read back: %v", err)
			return
		}
		t.Token = st.Token
		if err := fresh.Commit(ctx, t); err != nil {
			d.r.breaks("S13", "a commit cannot be put back: %v", err)
			return
		}
	}
	d.kept, d.inner, d.holder, d.txns, d.counter = fresh, fettle.Token{}, nil, d.txns[:n], uint64(n)
	d.books.now++
	close(d.changed)
	d.changed = make(chan struct{})
	if !signed {
		return
	}
	d.epoch++
	head, _ := fresh.Head(ctx)
	word, err := charter.Sign(charter.Charter{Fleet: d.r.ca.Fleet(), Epoch: d.epoch, Entries: head.Entries, Hash: head.Hash, At: time.Now().Add(d.r.adminOff), Why: "restored"}, d.r.admin)
	if err == nil {
		d.charter, err = json.Marshal(word)
	}
	if err != nil {
		d.r.breaks("sim", "the charter: %v", err)
	}
}

// Log implements loop.Store.
func (h *share) Log(ctx context.Context, from int64, each func(loop.Entry) error) error {
	if err := h.call(ctx); err != nil {
		return err
	}
	return h.d.now().Log(ctx, from, each)
}

func (d *depot) now() *store.Memory {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kept
}

// Check implements loop.Store.
func (h *share) Check(ctx context.Context) (int64, error) { return h.d.now().Check(ctx) }

// Close implements loop.Store.
func (h *share) Close() error { return nil }

// Tip is the end of the log, as the server that leads knows it: from its memory.
func (h *share) Tip(ctx context.Context) (loop.Tip, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	head, err := h.d.kept.Head(ctx)
	return loop.Tip{Epoch: h.d.epoch, Head: head}, err
}

// HashAt is the hash of an entry.
func (h *share) HashAt(ctx context.Context, seq int64) (string, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if err := h.reaches(); err != nil {
		return "", err
	}
	return h.d.kept.HashAt(ctx, seq)
}

// Charter is the administrator's word on the present epoch.
func (h *share) Charter(context.Context) ([]byte, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return h.d.charter, h.reaches()
}

// Create implements pki.Shelf.
func (h *share) Create(ctx context.Context, kind, id string, data []byte) error {
	if err := h.call(ctx); err != nil {
		return err
	}
	return h.d.put(kind, id, data)
}

func (d *depot) put(kind, id string, data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shelf[kind] == nil {
		d.shelf[kind] = map[string][]byte{}
	}
	if _, had := d.shelf[kind][id]; had {
		return fs.ErrExist
	}
	d.shelf[kind][id] = bytes.Clone(data)
	return nil
}

// Read implements pki.Shelf.
func (h *share) Read(ctx context.Context, kind, id string) ([]byte, error) {
	if err := h.call(ctx); err != nil {
		return nil, err
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	data, ok := h.d.shelf[kind][id]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return data, nil
}

// Remove implements pki.Shelf.
func (h *share) Remove(ctx context.Context, kind, id string) error {
	if err := h.call(ctx); err != nil {
		return err
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if _, ok := h.d.shelf[kind][id]; !ok {
		return fs.ErrNotExist
	}
	delete(h.d.shelf[kind], id)
	return nil
}

// List implements pki.Shelf.
func (h *share) List(ctx context.Context, kind string) (map[string][]byte, error) {
	if err := h.call(ctx); err != nil {
		return nil, err
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	out := map[string][]byte{}
	for id, data := range h.d.shelf[kind] {
		out[id] = data
	}
	return out, nil
}

var _ pki.Shelf = (*share)(nil)
