package pki_test

import (
	"context"
	"errors"
	"testing"

	"fettle/internal/fleet/pki"
)

// told is a shelf that tells what the test says, and counts who asks.
type told struct {
	pki.Shelf
	reads int
	say   chan func(all func(map[pki.Record]bool), changed func(pki.Record, bool)) error
}

func (s *told) Read(ctx context.Context, kind, id string) ([]byte, error) {
	s.reads++
	return s.Shelf.Read(ctx, kind, id)
}

func (s *told) Follow(ctx context.Context, all func(map[pki.Record]bool), changed func(pki.Record, bool)) error {
	for {
		select {
		case f := <-s.say:
			if err := f(all, changed); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TestRoll: who is known to be in the fleet is let in without a question, and who was
// sent away is not, whatever is told late.
func TestRoll(t *testing.T) {
	shelf := &told{Shelf: pki.Folder(t.TempDir()), say: make(chan func(func(map[pki.Record]bool), func(pki.Record, bool)) error)}
	r := pki.NewRegister(nil, shelf)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { defer close(over); r.Follow(ctx) }()
	defer func() { cancel(); <-over }()
	is := func(id string, want bool, asks int) {
		t.Helper()
		shelf.reads = 0
		in, err := r.Admitted(ctx, pki.Name{Role: pki.RoleAgent, ID: id})
		if err != nil || in != want || shelf.reads != asks {
			t.Errorf("%s: in the fleet %v (%v), after %d questions; want %v after %d", id, in, err, shelf.reads, want, asks)
		}
	}
	one, two := pki.Record{Kind: "hosts", ID: "one"}, pki.Record{Kind: "hosts", ID: "two"}
	for _, record := range []pki.Record{one, two} {
		if err := shelf.Create(ctx, record.Kind, record.ID, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	is("one", true, 1) // nothing was told yet
	said := make(chan struct{})
	tell := func(f func(all func(map[pki.Record]bool), changed func(pki.Record, bool)) error) {
		t.Helper()
		shelf.say <- func(all func(map[pki.Record]bool), changed func(pki.Record, bool)) error {
			defer func() { said <- struct{}{} }()
			return f(all, changed)
		}
		<-said
	}
	tell(func(all func(map[pki.Record]bool), _ func(pki.Record, bool)) error {
		all(map[pki.Record]bool{one: true})
		return nil
	})
	is("one", true, 0)
	is("two", true, 1)
	tell(func(_ func(map[pki.Record]bool), changed func(pki.Record, bool)) error {
		changed(two, true)
		return nil
	})
	is("two", true, 0)

	if err := r.Forget(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	is("one", false, 1)
	tell(func(_ func(map[pki.Record]bool), changed func(pki.Record, bool)) error {
		changed(one, true)
		return nil
	})
	is("one", false, 1) // that was old

	if err := shelf.Remove(ctx, two.Kind, two.ID); err != nil { // by another server
		t.Fatal(err)
	}
	tell(func(_ func(map[pki.Record]bool), changed func(pki.Record, bool)) error {
		changed(two, false)
		return nil
	})
	is("two", false, 1)
	tell(func(all func(map[pki.Record]bool), _ func(pki.Record, bool)) error {
		all(map[pki.Record]bool{one: true})
		return nil
	})
	is("one", false, 1)
}

// TestRollLost: who cannot be told of changes any more is asked.
func TestRollLost(t *testing.T) {
	shelf := &told{Shelf: pki.Folder(t.TempDir()), say: make(chan func(func(map[pki.Record]bool), func(pki.Record, bool)) error)}
	r := pki.NewRegister(nil, shelf)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { defer close(over); r.Follow(ctx) }()
	one := pki.Record{Kind: "hosts", ID: "one"}
	shelf.say <- func(all func(map[pki.Record]bool), _ func(pki.Record, bool)) error {
		all(map[pki.Record]bool{one: true})
		cancel()
		return errors.New("the connection broke")
	}
	<-over
	if in, err := r.Admitted(t.Context(), pki.Name{Role: pki.RoleAgent, ID: "one"}); in || err != nil || shelf.reads != 1 {
		t.Errorf("in the fleet %v (%v) after %d questions, though the shelf does not have it", in, err, shelf.reads)
	}
}
