package store_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"fettle/internal/fleet/store"
	"fettle/internal/loop"
)

// TestRelieved: the term of a leader that is said to be gone is over at once, and the
// next one leads. One that was there after all is told so, and commits nothing more.
func TestRelieved(t *testing.T) {
	t.Parallel()
	stores, _ := three(t, store.Limits{})
	first, err := stores[0].Campaign(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	state, err := stores[0].Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	leaders := make(chan store.Leader, 8)
	group.Go(func() { stores[2].Follow(ctx, func(l store.Leader) { leaders <- l }) })
	was := <-leaders
	if was.Name != "s0" {
		t.Fatalf("%+v leads", was)
	}
	next := make(chan *store.Term, 1)
	group.Go(func() {
		term, err := stores[1].Campaign(ctx)
		if err != nil {
			t.Error(err)
		}
		next <- term
	})
	if err := stores[2].Relieve(t.Context(), was); err != nil {
		t.Fatal(err)
	}
	term := <-next
	if term == nil {
		t.Fatal("nobody leads")
	}
	<-first.Lost()
	if err := stores[0].Commit(t.Context(), loop.Txn{Token: state.Token, Log: []loop.Entry{{Kind: "note", Text: "late"}}}); !errors.Is(err, loop.ErrNotLeader) {
		t.Errorf("who was relieved commits: %v", err)
	}
	for l := range leaders {
		if l.Name == "s1" {
			break
		}
	}
	if err := stores[2].Relieve(t.Context(), was); err != nil { // as its own lease, or another server, may have done
		t.Errorf("a term that is over already: %v", err)
	}
	if err := stores[2].Relieve(t.Context(), store.Leader{Name: "s1"}); err != nil {
		t.Errorf("a leader of whom no term is known: %v", err)
	}
	if _, err := stores[1].Load(t.Context()); err != nil {
		t.Errorf("the one that leads now was relieved too: %v", err)
	}
	if err := term.Resign(); err != nil {
		t.Error(err)
	}
}

// TestHandOver: who stops has another member lead the store first; who does not lead it
// leaves it as it is.
func TestHandOver(t *testing.T) {
	t.Parallel()
	stores, _ := three(t, store.Limits{})
	for _, e := range stores[:2] { // the first one began the store, and leads it
		was := store.LeadsStore(e)
		if e == stores[0] && !was {
			t.Fatal("who began the store does not lead it: the test tests nothing")
		}
		term, err := e.Campaign(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		term.HandOver()
		if was && store.LeadsStore(e) {
			t.Error("the store is led by who stops")
		}
		if err := term.Resign(); err != nil {
			t.Error(err)
		}
	}
	// What is written at once comes through.
	if _, err := stores[2].Campaign(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := stores[2].Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stores[2].Commit(t.Context(), loop.Txn{Token: s.Token, Log: []loop.Entry{{Kind: "note", Text: "at once"}}}); err != nil {
		t.Error(err)
	}
}

// TestKilledAndBack: a server that was killed while it led leads again at once, and does
// not wait for its own lease. It ends nobody else's.
func TestKilledAndBack(t *testing.T) {
	t.Parallel()
	stores, _ := three(t, store.Limits{})
	mine, err := store.Stand(t.Context(), stores[0], "s0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // the lease lasts an hour
	defer cancel()
	term, err := stores[0].Campaign(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !store.Ended(ctx, stores[0], mine) {
		t.Error("its earlier lease is there still")
	}
	theirs, err := store.Stand(t.Context(), stores[0], "s1")
	if err != nil {
		t.Fatal(err)
	}
	if err := term.Resign(); err != nil {
		t.Fatal(err)
	}
	waits, stop := context.WithCancel(ctx)
	stood := make(chan error, 1)
	go func() {
		_, err := stores[2].Campaign(waits)
		stood <- err
	}()
	leads := make(chan string, 8)
	var group sync.WaitGroup
	group.Go(func() { stores[1].Follow(waits, func(l store.Leader) { leads <- l.Name }) })
	if first := <-leads; first != "s1" {
		t.Errorf("%q leads", first)
	}
	store.WaitStanding(t.Context(), stores[0], 2)
	stop()
	if err := <-stood; err == nil {
		t.Error("another one leads while the first one's lease lasts")
	}
	group.Wait()
	if store.Ended(ctx, stores[0], theirs) {
		t.Error("the lease of another server was ended")
	}
}

// TestGivesUpWithoutMajority: a server that waits to lead, and is told to stop when the
// store has no majority any more, stops.
func TestGivesUpWithoutMajority(t *testing.T) {
	t.Parallel()
	stores, _ := three(t, store.Limits{})
	if _, err := stores[0].Campaign(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stood := make(chan error, 1)
	go func() {
		_, err := stores[2].Campaign(ctx)
		stood <- err
	}()
	store.WaitStanding(t.Context(), stores[2], 2)
	for _, e := range stores[:2] {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	cancel()
	select {
	case err := <-stood:
		if err == nil {
			t.Error("it leads")
		}
	case <-time.After(time.Minute): // it was for ever
		t.Fatal("it waits still")
	}
}
