package store

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// Limits of what is kept, in bytes.
const (
	MaxItem = 2 << 20  // one record, intent or log entry
	MaxTxn  = 24 << 20 // one Txn; a thousand incidents that change at once
)

// change is a Txn as it is written: the same for every store, so that all refuse
// and keep the same.
type change struct {
	records map[string][]byte // by ID
	intents map[string][]byte // by key
	settled []string
	freeze  []byte // nil: as it is
	thaw    bool
	windows []byte            // nil: as they are
	merged  map[string][]byte // by host
	log     [][]byte
	head    loop.Head
	size    int // bytes
}

// prepare checks t and puts it into the form that is kept. A freeze and a thaw in
// one Txn are a freeze. Nothing of t is changed or kept.
func prepare(t loop.Txn, head loop.Head) (*change, error) {
	c := &change{records: map[string][]byte{}, intents: map[string][]byte{}, merged: map[string][]byte{}, thaw: t.Thaw && t.Freeze == nil}
	size := 0
	for _, r := range t.Records {
		data, err := pack(r)
		if err != nil {
			return nil, err
		}
		if r.ID == "" {
			return nil, fmt.Errorf("a record has no ID")
		}
		c.records[r.ID] = data
		size += len(data)
	}
	for _, in := range t.Intents {
		data, err := json.Marshal(in)
		if err == nil && (in.Dispatch.Key == "" || len(data) > MaxItem) {
			err = fmt.Errorf("%d bytes, at most %d are kept, and it must have a key", len(data), MaxItem)
		}
		if err != nil {
			return nil, fmt.Errorf("intent %s: %w", in.Dispatch.Key, err)
		}
		c.intents[in.Dispatch.Key] = data
		size += len(data)
	}
	gone := map[string]bool{}
	for _, key := range t.Settled {
		delete(c.intents, key) // settled in the same breath
		if !gone[key] {
			gone[key] = true
			c.settled = append(c.settled, key)
		}
	}
	var err error
	if t.Freeze != nil {
		if c.freeze, err = json.Marshal(t.Freeze); err != nil {
			return nil, fmt.Errorf("freeze: %w", err)
		}
	}
	if t.Windows != nil {
		if c.windows, err = json.Marshal(*t.Windows); err == nil && len(c.windows) > MaxItem {
			err = fmt.Errorf("%d bytes; at most %d are kept (end some)", len(c.windows), MaxItem)
		}
		if err != nil {
			return nil, fmt.Errorf("windows of maintenance: %w", err)
		}
	}
	for _, m := range t.Merged {
		data, err := json.Marshal(m)
		if err == nil && (m.Host == "" || len(data) > MaxItem) {
			err = fmt.Errorf("%d bytes, at most %d are kept, and it must have a host", len(data), MaxItem)
		}
		if err != nil {
			return nil, fmt.Errorf("what was taken from %s: %w", m.Host, err)
		}
		c.merged[string(m.Host)] = data
		size += len(data)
	}
	if c.log, c.head, err = seal(head, t.Log); err != nil {
		return nil, err
	}
	for _, e := range c.log {
		size += len(e)
	}
	if size > MaxTxn {
		return nil, fmt.Errorf("%w: %d bytes; at most %d are kept at once", loop.ErrTooLarge, size, MaxTxn)
	}
	c.size = size
	return c, nil
}

// held is what a store holds, in memory.
type held struct {
	records map[string][]byte
	intents map[string][]byte
	freeze  []byte
	windows []byte // nil: none
	merged  map[string][]byte
	head    loop.Head
}

func newHeld() held {
	return held{records: map[string][]byte{}, intents: map[string][]byte{}, merged: map[string][]byte{}}
}

// apply puts a change in effect.
func (h *held) apply(c *change) {
	for id, data := range c.records {
		h.records[id] = data
	}
	for key, data := range c.intents {
		h.intents[key] = data
	}
	for _, key := range c.settled {
		delete(h.intents, key)
	}
	maps.Copy(h.merged, c.merged)
	if c.freeze != nil {
		h.freeze = c.freeze
	}
	if c.thaw {
		h.freeze = nil
	}
	if c.windows != nil {
		h.windows = c.windows
	}
	h.head = c.head
}

// state reads everything back.
func (h *held) state() (loop.State, error) {
	s := loop.State{Head: h.head}
	for _, id := range sorted(h.records) {
		var r incident.Record
		if err := json.Unmarshal(h.records[id], &r); err != nil {
			return loop.State{}, fmt.Errorf("incident %s as it is kept: %w", id, err)
		}
		s.Records = append(s.Records, r)
	}
	for _, key := range sorted(h.intents) {
		var in loop.Intent
		if err := json.Unmarshal(h.intents[key], &in); err != nil {
			return loop.State{}, fmt.Errorf("intent %s as it is kept: %w", key, err)
		}
		s.Intents = append(s.Intents, in)
	}
	for _, host := range sorted(h.merged) {
		var m loop.Merged
		if err := json.Unmarshal(h.merged[host], &m); err != nil {
			return loop.State{}, fmt.Errorf("what was taken from %s as it is kept: %w", host, err)
		}
		s.Merged = append(s.Merged, m)
	}
	if h.freeze != nil {
		s.Freeze = &guard.Freeze{}
		if err := json.Unmarshal(h.freeze, s.Freeze); err != nil {
			return loop.State{}, fmt.Errorf("the freeze as it is kept: %w (what cannot be read is taken for a freeze: put it right by hand)", err)
		}
	}
	if h.windows != nil {
		if err := json.Unmarshal(h.windows, &s.Windows); err != nil {
			return loop.State{}, fmt.Errorf("the windows of maintenance as they are kept: %w (nothing is done without them: put them right by hand)", err)
		}
	}
	return s, nil
}

func sorted(m map[string][]byte) []string { return slices.Sorted(maps.Keys(m)) }
