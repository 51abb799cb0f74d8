package whole_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// slack is what an observation takes to come, and the clocks' error.
const slack = 2 * time.Second

// touch is the moment in which an agent begins to touch its machine: what was promised
// of that holds now.
func (r *run) touch(l *agentLife, d fettle.Dispatch) {
	h := l.h
	r.mu.Lock()
	r.touches[d.Key]++
	times := r.touches[d.Key]
	r.effects = append(r.effects, effect{time.Since(r.began), h.name, h.id, d.Key, d.Step.Action, d.Step.Target.Name(), d.Permit != "", d.Undo})
	r.mu.Unlock()
	r.tell("%s: %s on %s under %s, alone: %v", l.p.name, d.Step.Action, d.Step.Target, d.Key, d.Permit != "")
	if times > 1 {
		r.breaks("S6", "%s touches %s for the %dth time", d.Key, h.name, times)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.holds("journal", d.Key) {
		r.breaks("S6", "%s touches %s, and its journal does not know it", d.Key, h.name)
	}
	if !h.frozen.IsZero() && time.Since(h.frozen) > slack && !d.Undo {
		r.breaks("S11", "%s touches %s, which is frozen", d.Key, h.name)
	}
	if d.Permit != "" {
		r.touchAlone(h, d)
		return
	}
	r.depot.mu.Lock()
	defer r.depot.mu.Unlock()
	b := r.depot.books
	in, durable := b.intents[d.Key]
	switch {
	case !durable:
		r.breaks("S6", "%s touches %s, and no intent of it was ever durable", d.Key, h.name)
		return
	case in.Dispatch.Token != d.Token:
		r.breaks("S7", "%s touches %s under %v, and was intended under %v", d.Key, h.name, d.Token, in.Dispatch.Token)
	case d.Token.Less(h.highest):
		r.breaks("S7", "%s touches %s under %v, which has seen %v", d.Key, h.name, d.Token, h.highest)
	case d.Token.Epoch == h.highest.Epoch && b.branch[d.Key] != h.branch && h.entry > 0:
		if hash, err := r.depot.kept.HashAt(context.Background(), h.entry); err == nil && hash != h.hash && b.branch[d.Key] == b.now {
			r.breaks("S13", "%s touches %s at the word of a log that does not have its entry %d", d.Key, h.name, h.entry)
		}
	}
	h.highest, h.branch, h.entry, h.hash = d.Token, b.branch[d.Key], b.heads[d.Key].Entries, b.heads[d.Key].Hash
}

// touchAlone is the same for what an agent does alone. h.mu is held.
func (r *run) touchAlone(h *host, d fettle.Dispatch) {
	if !h.holds("alone", d.Key) {
		r.breaks("S6", "%s touches %s alone, and its own log does not know it", d.Key, h.name)
	}
	switch {
	case r.o.Plain:
		r.breaks("S12", "%s touches %s alone, which must not be", d.Key, h.name)
	case d.Step.Action != "systemd.start" || d.Undo || d.Step.Host != fettle.HostSubject(h.id) || len(d.Step.Claims) > 0:
		r.breaks("S12", "%s does %s on %s alone", d.Key, d.Step.Action, d.Step.Target)
	}
	if u := d.Step.Target; h.personStopped(u.Name(), time.Now().Add(-d.Step.Fresh-slack)) {
		r.breaks("S11", "%s starts %s alone, which a person has stopped", d.Key, u)
	}
	r.mu.Lock()
	n := 0
	for _, e := range r.effects {
		if e.alone && e.id == h.id && e.target == d.Step.Target.Name() {
			n++
		}
	}
	r.mu.Unlock()
	if n > 3 { // within an hour, by the default permits; no run is longer
		r.breaks("S12", "%s is the %dth that %s does alone on %s", d.Key, n, h.name, d.Step.Target)
	}
}

// holds reports whether a file of the agent's has a key on the disk. h.mu is held.
func (h *host) holds(name, key string) bool {
	data, err := os.ReadFile(filepath.Join(h.state, name))
	return err == nil && bytes.Contains(data, []byte(key))
}

// personStopped reports whether a person has stopped a service before a time, and it is
// down since. h.mu is held.
func (h *host) personStopped(name string, before time.Time) bool {
	at, yes := h.stopped[name]
	if !yes || !at.Before(before) {
		return false
	}
	u, err := h.machine.Ports().Services.Unit(context.Background(), name)
	return err == nil && u.ActiveState == "inactive" && u.StoppedBy == "person"
}

// committed is told of what a server made durable, and holds its intents against what
// is true. The depot's mu is held.
func (r *run) committed(by *share, t loop.Txn) {
	r.mu.Lock()
	for _, rec := range t.Records {
		r.board[rec.ID] = rec
	}
	for _, key := range t.Settled {
		delete(r.flying, key)
	}
	r.mu.Unlock()
	for _, in := range t.Intents {
		r.intended(by, in)
	}
}

// loaded is what a new leader knows of incidents: what the store holds.
func (r *run) loaded(records []incident.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.board)
	for _, rec := range records {
		r.board[rec.ID] = rec
	}
}

func (r *run) intended(by *share, in loop.Intent) {
	d := in.Dispatch
	if r.depot.holder != by {
		r.breaks("S7", "%s is intended by %s, which does not lead", d.Key, by.p.name)
	}
	i := slices.IndexFunc(r.hosts, func(h *host) bool { return fettle.HostSubject(h.id) == d.Step.Host })
	if i < 0 {
		return // imaged anew meanwhile
	}
	h := r.hosts[i]
	since := time.Now().Add(-d.Step.Fresh - slack - r.depot.slow)
	h.mu.Lock()
	if d.Step.Action == "systemd.start" && !d.Undo && h.personStopped(d.Step.Target.Name(), since) {
		r.breaks("S11", "%s is to start %s, which a person has stopped", d.Key, d.Step.Target)
	}
	h.mu.Unlock()
	if d.Step.Action == "ballot.stop" && !d.Undo || d.Step.Action == "ballot.start" && d.Undo {
		r.votes(h, d, since)
	}
	r.mu.Lock()
	r.flying[d.Key] = d
	r.mu.Unlock()
}

// votes: the group keeps min(what it had, its majority), also with what is in flight.
func (r *run) votes(h *host, d fettle.Dispatch, since time.Time) {
	before, after, moved := 0, 0, time.Time{}
	r.mu.Lock()
	flying := map[string]bool{}
	for _, o := range r.flying {
		if o.Step.Action == "ballot.stop" {
			flying[o.Step.Host.Name()] = true
		}
	}
	r.mu.Unlock()
	voters := r.voters()
	for _, v := range voters {
		v.mu.Lock()
		if v.moved.After(moved) {
			moved = v.moved
		}
		id := v.id
		v.mu.Unlock()
		if !v.serves() {
			continue
		}
		before++
		if v != h && !flying[id] {
			after++
		}
	}
	if need := min(before, len(voters)/2+1); after < need && h.serves() && moved.Before(since) {
		r.breaks("S2", "%s takes the vote of %s: %d serve, %d would, %d must", d.Key, h.name, before, after, need)
	}
}

// changed is told of every change of an incident. What an agent has refused is in flight
// no more: its mind takes it for not done.
func (r *run) changed(l *nodeLife, rec incident.Record, events []fettle.Event) {
	if slices.ContainsFunc(events, func(e fettle.Event) bool { return e.Kind == fettle.EvRefused }) {
		r.mu.Lock()
		for key, d := range r.flying { // any order: all of it go
			if d.Incident == rec.ID {
				delete(r.flying, key)
			}
		}
		r.mu.Unlock()
	}
	if !r.o.Trace {
		return
	}
	for _, e := range events {
		text := e.Text
		for _, v := range e.Verdicts {
			if !v.Allow {
				text += " [" + v.Guard + ": " + v.Why + " " + v.Arithmetic + "]"
			}
		}
		r.note("  %s: %s on %s: %s %s", l.p.name, rec.ID, rec.Cause, e.Kind, text)
	}
}

func (r *run) called(l *nodeLife, id, text string) {
	r.mu.Lock()
	r.calls[id]++
	r.mu.Unlock()
	r.tell("  %s: %s: a person is called: %s", l.p.name, id, text)
}
