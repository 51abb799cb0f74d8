package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/store"
	"fettle/internal/loop"
	"fettle/internal/machine/loopback"
)

// asked is what a server asks of the store: to lead, to append one entry under its
// token, or where the log ends.
type asked struct {
	what  string // "lead", "append", "read"
	token uint64
}

// told is what it is told.
type told struct {
	unknown bool // no answer came: it may have been done, or may be later
	refused bool
	entries int64
}

// history is what was asked and told, by all.
type history struct {
	began time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
	done  int           // appends that were acknowledged
	vain  int           // answers that did not come
	more  chan struct{} // closed and renewed with each
}

func (h *history) now() int64 { return int64(time.Since(h.began)) }

func (h *history) add(who int, in asked, call int64, out told) {
	h.mu.Lock()
	defer h.mu.Unlock()
	end := h.now()
	if out.unknown {
		end = int64(time.Hour) // whenever it is
		h.vain++
	}
	if in.what == "append" && !out.unknown && !out.refused {
		h.done++
	}
	h.ops = append(h.ops, porcupine.Operation{ClientId: who, Input: in, Call: call, Output: out, Return: end})
	close(h.more)
	h.more = make(chan struct{})
}

// until waits until ok says true of the numbers of acknowledged appends and of
// answers that did not come.
func (h *history) until(t *testing.T, what string, ok func(done, vain int) bool) {
	t.Helper()
	end := time.NewTimer(time.Minute)
	defer end.Stop()
	for {
		h.mu.Lock()
		good, more := ok(h.done, h.vain), h.more
		h.mu.Unlock()
		if good {
			return
		}
		select {
		case <-more:
		case <-end.C:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// log is the state of the model: how many entries there are, and the highest token
// that anybody was elected under.
type log struct {
	entries int64
	token   uint64
}

// model is what a log under leadership does: whoever is elected has a higher token
// than all before; from then on nobody appends under a lower one.
func model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{log{}} },
		Step: func(state, input, output any) []any {
			s, in, out := state.(log), input.(asked), output.(told)
			var next []any
			if out.unknown || out.refused {
				next = append(next, s)
			}
			switch {
			case out.refused:
			case in.what == "read":
				if !out.unknown && out.entries == s.entries { // one without an answer says nothing
					next = append(next, s)
				}
			case in.what == "lead":
				if in.token > s.token {
					next = append(next, log{s.entries, in.token})
				}
			case in.token >= s.token:
				next = append(next, log{s.entries + 1, in.token})
			}
			return next
		},
		Equal:             func(a, b any) bool { return a == b },
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v: %+v", in, out) },
	}
	return m.ToModel()
}

// TestModelFindsAnOldLeader: a history in which a deposed leader appends is refused by
// the checker; the test below could fail.
func TestModelFindsAnOldLeader(t *testing.T) {
	op := func(at int64, what string, token uint64, out told) porcupine.Operation {
		return porcupine.Operation{Input: asked{what, token}, Call: at, Output: out, Return: at + 1}
	}
	good := []porcupine.Operation{op(0, "lead", 5, told{}), op(2, "append", 5, told{}), op(4, "lead", 9, told{}), op(6, "append", 5, told{refused: true}), op(8, "read", 0, told{entries: 1})}
	if !porcupine.CheckOperations(model(), good) {
		t.Error("a good history is refused")
	}
	for name, bad := range map[string]porcupine.Operation{
		"an old leader appends": op(10, "append", 5, told{}), "an entry is lost": op(10, "read", 0, told{entries: 0}), "an old one is elected": op(10, "lead", 7, told{}),
	} {
		if porcupine.CheckOperations(model(), append(good[:len(good):len(good)], bad)) {
			t.Errorf("%s: not found", name)
		}
	}
}

// link is the way to a member's etcd, which can be cut.
type link struct {
	l      net.Listener
	target string
	mu     sync.Mutex
	cut    bool
	conns  map[net.Conn]bool
	group  sync.WaitGroup
}

func newLink(t *testing.T, target string) *link {
	t.Helper()
	return newLinkAt(t, "", target)
}

func newLinkAt(t *testing.T, address, target string) *link {
	t.Helper()
	l := loopback.Listen(t, address)
	k := &link{l: l, target: target, conns: map[net.Conn]bool{}}
	k.group.Go(k.serve)
	return k
}

func (k *link) serve() {
	for {
		c, err := k.l.Accept()
		if err != nil {
			return
		}
		k.group.Go(func() { k.pass(c) })
	}
}

func (k *link) pass(c net.Conn) {
	defer c.Close()
	up, err := net.Dial("tcp", k.target)
	if err != nil {
		return
	}
	defer up.Close()
	if !k.hold(c, up) {
		return
	}
	defer k.release(c, up)
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, up}, {up, c}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // it ends when either side does
			_, _ = way[0].Close(), way[1].Close()
		})
	}
	both.Wait()
}

func (k *link) hold(conns ...net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range conns {
		k.conns[c] = true
	}
	return !k.cut
}

func (k *link) release(conns ...net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range conns {
		delete(k.conns, c)
	}
}

// set cuts the link, or mends it.
func (k *link) set(cut bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut = cut
	if cut {
		for c := range k.conns {
			_ = c.Close() // that is what is wanted
		}
	}
}

func (k *link) close() {
	_ = k.l.Close() // ends serve
	k.set(true)
	k.group.Wait()
}

// three opens the stores of three servers, whose ways to each other can be cut.
func three(t *testing.T, limits store.Limits) ([]*store.Etcd, []*link) {
	t.Helper()
	dir := t.TempDir()
	ca, err := pki.Init(filepath.Join(dir, "ca"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var stores []*store.Etcd
	var links []*link
	for i := range 3 {
		own := filepath.Join(dir, fmt.Sprint(i))
		id, err := ca.Issue(own, pki.RoleServer, fmt.Sprint("s", i), time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		authority := filepath.Join(own, "authority.pem")
		if err := os.WriteFile(authority, pki.PEM(id.Authority()), 0o600); err != nil {
			t.Fatal(err)
		}
		listen := loopback.Address(t)
		k := newLink(t, listen)
		t.Cleanup(k.close)
		p := &store.Peers{Name: id.Name.ID, Listen: listen, Advertise: k.l.Addr().String(), Address: fmt.Sprint("nowhere:", i),
			CertFile: pki.IdentityFile(own, pki.RoleServer), AuthorityFile: authority, ServerName: pki.ServerName}
		if i > 0 {
			if p.Existing, err = stores[0].Add(t.Context(), p.Name, p.Advertise); err != nil {
				t.Fatal(err)
			}
		}
		attending, stop := context.WithCancel(t.Context())
		var group sync.WaitGroup
		if i > 0 {
			group.Go(func() { stores[0].Attend(attending) })
		}
		e, err := store.OpenEtcd(t.Context(), store.EtcdOptions{Dir: filepath.Join(own, "store"), Fleet: ca.Fleet(), Peers: p, Limits: limits})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Close(); err != nil && !errors.Is(err, context.Canceled) {
				t.Logf("close: %v", err)
			}
		})
		stores, links = append(stores, e), append(links, k)
		for voters := 0; voters != i+1; {
			list, err := stores[0].Members(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			voters = 0
			for _, m := range list {
				if !m.Learner {
					voters++
				}
			}
		}
		stop()
		group.Wait()
	}
	return stores, links
}

const (
	short     = time.Second // how long an answer is waited for
	commits   = 25          // in one term
	linearRun = 2           // rounds of faults
)

// TestLinearizable: three servers lead by turns, while the ways between their stores
// are cut and mended, each and all; none of them listens to being told that it leads
// no more: it tries to commit until the store refuses. What they were told must be
// what one log with one leader would have told them.
func TestLinearizable(t *testing.T) {
	stores, links := three(t, store.Limits{})
	var cuts []func(bool)
	for _, k := range links {
		cuts = append(cuts, k.set)
	}
	linearizable(t, stores, cuts, linearRun)
}

// linearizable has stores lead by turns while each of the cuts is made and mended, and all
// of them together.
func linearizable(t *testing.T, stores []*store.Etcd, cuts []func(bool), rounds int) {
	h := &history{began: time.Now(), more: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	for i, e := range stores {
		group.Go(func() {
			for ctx.Err() == nil {
				leads(ctx, h, i, e)
			}
		})
		group.Go(func() {
			for ctx.Err() == nil {
				reads(ctx, h, 3+i, e)
			}
		})
	}
	for round := range rounds {
		for which := range len(cuts) + 1 {
			h.mu.Lock()
			done, vain := h.done, h.vain
			h.mu.Unlock()
			if which < len(cuts) {
				cuts[which](true)
				h.until(t, fmt.Sprintf("round %d: commits while cut %d lasts", round, which), func(d, _ int) bool { return d >= done+commits })
				cuts[which](false)
				continue
			}
			for _, cut := range cuts {
				cut(true)
			}
			h.until(t, fmt.Sprintf("round %d: nobody to answer", round), func(_, v int) bool { return v > vain })
			for _, cut := range cuts {
				cut(false)
			}
		}
	}
	h.mu.Lock()
	done := h.done
	h.mu.Unlock()
	h.until(t, "commits in the end", func(d, _ int) bool { return d > done })
	cancel()
	group.Wait()
	t.Logf("%d operations, %d commits acknowledged, %d answers did not come", len(h.ops), h.done, h.vain)
	if r := porcupine.CheckOperationsTimeout(model(), h.ops, time.Minute); r != porcupine.Ok {
		t.Errorf("what the servers were told is not linearizable: %s", r)
	}
	for _, e := range stores {
		if n, err := e.Check(t.Context()); err != nil || n < int64(h.done) {
			t.Errorf("the log has %d entries, %d were acknowledged: %v", n, h.done, err)
		}
	}
}

// leads stands for election and commits until it has had its turn or is refused.
func leads(ctx context.Context, h *history, who int, e *store.Etcd) {
	call := h.now()
	campaign, stop := context.WithTimeout(ctx, 5*short)
	defer stop()
	term, err := e.Campaign(campaign)
	if err != nil {
		return
	}
	defer func() { _ = term.Resign() }() // where it cannot be said, the lease says it
	state, err := e.Load(campaign)
	if err != nil {
		return
	}
	h.add(who, asked{"lead", state.Token.Revision}, call, told{})
	for range commits {
		call := h.now()
		bound, stop := context.WithTimeout(ctx, short)
		err := e.Commit(bound, loop.Txn{Token: state.Token, Log: []loop.Entry{{At: time.Unix(0, call), Kind: "note", Text: fmt.Sprint(who)}}})
		stop()
		refused := errors.Is(err, loop.ErrNotLeader)
		h.add(who, asked{"append", state.Token.Revision}, call, told{refused: refused, unknown: err != nil && !refused})
		if refused || ctx.Err() != nil {
			return
		}
	}
}

// reads asks where the log ends.
func reads(ctx context.Context, h *history, who int, e *store.Etcd) {
	call := h.now()
	bound, stop := context.WithTimeout(ctx, short)
	defer stop()
	head, err := e.Head(bound)
	h.add(who, asked{what: "read"}, call, told{entries: head.Entries, unknown: err != nil})
	select { // not more reads than the checker can bear
	case <-time.After(short / 20):
	case <-ctx.Done():
	}
}
