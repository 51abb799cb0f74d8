package store

import (
	"context"
	"fmt"
	"sync"

	"fettle/internal/fettle"
	"fettle/internal/loop"
)

// Memory is a store that lives as long as the process. Its methods may be called
// concurrently. A restart is another Load.
type Memory struct {
	fleet string

	mu       sync.Mutex
	held     held
	log      [][]byte
	revision uint64
	closed   bool
}

// NewMemory returns an empty store.
func NewMemory(fleet string) *Memory { return &Memory{fleet: fleet, held: newHeld()} }

func (m *Memory) token() fettle.Token {
	return fettle.Token{Fleet: m.fleet, Epoch: 1, Revision: m.revision}
}

// Load implements loop.Store.
func (m *Memory) Load(ctx context.Context) (loop.State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return loop.State{}, fmt.Errorf("load: %w", err)
	}
	m.closed = false
	s, err := m.held.state()
	if err != nil {
		return loop.State{}, err
	}
	m.revision++
	s.Token = m.token()
	return s, nil
}

// Commit implements loop.Store.
func (m *Memory) Commit(ctx context.Context, t loop.Txn) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if m.closed || m.revision == 0 || t.Token != m.token() {
		return fmt.Errorf("commit: %w", loop.ErrNotLeader)
	}
	c, err := prepare(t, m.held.head)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	m.held.apply(c)
	m.log = append(m.log, c.log...)
	return nil
}

// Log implements loop.Store.
func (m *Memory) Log(ctx context.Context, from int64, each func(loop.Entry) error) error {
	m.mu.Lock()
	log := m.log
	m.mu.Unlock()
	for i := max(0, from-1); i < int64(len(log)); i++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("log: %w", err)
		}
		e, _, err := unseal(log[i])
		if err != nil {
			return err
		}
		if err := each(e); err != nil {
			return err
		}
	}
	return nil
}

// Head returns where the log ends now.
func (m *Memory) Head(context.Context) (loop.Head, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held.head, nil
}

// Tip returns where the log ends now.
func (m *Memory) Tip(context.Context) (loop.Tip, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return loop.Tip{Epoch: m.token().Epoch, Head: m.held.head}, nil
}

// HashAt returns the hash of an entry, "" where there is none of this number.
func (m *Memory) HashAt(_ context.Context, seq int64) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if seq < 1 || seq > int64(len(m.log)) {
		return "", nil
	}
	return hashOf(seq, m.log[seq-1])
}

// Check implements loop.Store.
func (m *Memory) Check(context.Context) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var c checker
	for _, kept := range m.log {
		if err := c.add(kept); err != nil {
			return c.head.Entries, err
		}
	}
	return c.head.Entries, c.end(m.held.head)
}

// Close implements loop.Store. Nothing is lost: Load opens it again.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}
