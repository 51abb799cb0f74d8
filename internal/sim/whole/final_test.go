package whole_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"fettle/internal/act/journal"
	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/store"
	"fettle/internal/loop"
)

// heal puts right what nobody but a person could: the network is whole, every machine
// has power and its agent runs, every server runs, and a store that was put back has an
// administrator's word.
func (r *run) heal() {
	r.end()
	synctest.Wait() // what was about to happen does not
	r.ctx, r.end = context.WithCancel(context.Background())
	r.net.heal()
	r.depot.set(func(d *depot) { d.refuses, d.slow, d.killAt = false, 0, 0 })
	if r.forked {
		for _, n := range r.nodes {
			n.kill()
		}
		r.depot.mu.Lock()
		n := len(r.depot.txns)
		r.depot.mu.Unlock()
		r.depot.restore(n, true)
	}
	for _, n := range r.nodes {
		if n.life != nil && n.life.p.dead() {
			n.kill()
		}
		n.start()
	}
	for _, h := range r.hosts {
		h.mu.Lock()
		h.killAt, h.frozen = 0, time.Time{}
		state, off, away := h.state, h.off, h.identity == nil
		h.mu.Unlock()
		if err := agent.Thaw(state); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.breaks("sim", "%v", err)
		}
		if off {
			h.power(true)
			r.net.heal()
		}
		if away {
			r.rejoin(h)
			continue
		}
		h.start()
	}
	r.thaw()
}

// checkEnd: faults have stopped and time has passed. What can be mended is mended; of
// what is still ill a person knows; nothing is half done; the log is whole, and has what
// was done alone once.
func (r *run) checkEnd() {
	for _, h := range r.hosts {
		for _, name := range h.services() {
			u := h.unit(name)
			if u.ActiveState != "active" && !r.known(fettle.NewSubject(fettle.KindUnit, h.id, name), h) {
				r.breaks("L", "%s on %s is %s (%s, stopped by %q), and nobody was called", name, h.name, u.ActiveState, u.Result, u.StoppedBy)
			}
		}
		h.mu.Lock()
		stale, voter := h.stale, h.voter()
		h.mu.Unlock()
		if h.votes && stale && !r.known(voter, h) {
			r.breaks("L", "the voter of %s is stale, and nobody was called", h.name)
		}
	}
	r.mu.Lock()
	for id, rec := range r.board {
		if (rec.State == fettle.Acting || rec.State == fettle.Undoing) && !strings.Contains(rec.Why, "it is still not known what became of") {
			r.mu.Unlock()
			r.breaks("L", "incident %s on %s is still %s: %s", id, rec.Cause, rec.State, rec.Why)
			r.mu.Lock()
		}
	}
	r.mu.Unlock()
	r.checkLog()
}

// known reports whether a person knows of what is wrong with a subject.
func (r *run) known(s fettle.Subject, h *host) bool {
	about := []string{string(s)}
	if h.votes {
		for _, v := range r.voters() {
			about = append(about, string(v.voter()), string(fettle.NewSubject(fettle.KindUnit, v.id, voteUnit)))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, rec := range r.board {
		failed := r.calls[id] > 0 && strings.Contains(rec.Why, "what was tried for it had failed")
		if rec.State.Ended() && !failed || !slices.Contains(about, string(rec.Cause.Subject)) {
			continue
		}
		if r.calls[id] > 0 || strings.Contains(rec.Why, "on purpose") || strings.HasPrefix(rec.Why, "the condition comes and goes") || rec.State == fettle.Escalated || rec.State == fettle.Proposed {
			return true
		}
	}
	return false
}

// checkLog: one chain, in which everything that was done stands, once.
func (r *run) checkLog() {
	ctx := context.Background()
	st := r.depot.now()
	if n, err := st.Check(ctx); err != nil || n == 0 {
		r.breaks("S13", "the log of %d entries: %v", n, err)
	}
	lines, done := map[string]bool{}, map[string]bool{}
	err := st.Log(ctx, 1, func(e loop.Entry) error {
		data := e.Data
		if e.Kind == "alone" {
			var own struct {
				Chain string
				Entry json.RawMessage
			}
			if err := json.Unmarshal(e.Data, &own); err != nil {
				return err
			}
			if line := own.Chain + string(own.Entry); lines[line] {
				r.breaks("S13", "what was done alone stands twice in the log: %s", e.Text)
			} else {
				lines[line] = true
			}
			data = own.Entry
		}
		for key := range r.touches {
			if strings.Contains(string(data), key) {
				done[key] = true
			}
		}
		return nil
	})
	if err != nil {
		r.breaks("S13", "the log cannot be read: %v", err)
	}
	for key := range r.touches {
		if !done[key] && r.restores == 0 && !r.lost[key] {
			r.breaks("S13", "%s was done, and the log does not tell of it", key)
		}
	}
	for _, h := range r.hosts {
		h.checkTold()
	}
}

// checkTold: the host has nothing left to tell.
func (h *host) checkTold() {
	if h.r.o.Plain {
		return
	}
	path := filepath.Join(h.r.dir, h.id, "told")
	data, err := os.ReadFile(filepath.Join(h.state, "alone"))
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if os.IsNotExist(err) {
		return // let go, and not made anew yet
	}
	st, err := store.OpenFile(context.Background(), path, h.r.ca.Fleet(), journal.Options{Clock: h.clock})
	if err != nil {
		h.r.breaks("S13", "the own log of %s: %v", h.name, err)
		return
	}
	if n := st.Entries(); n > 0 {
		h.r.breaks("S13", "%s has told nobody of %d entries of its own log", h.name, n)
	}
	if err := st.Close(); err != nil {
		h.r.breaks("sim", "%v", err)
	}
}
