package pki

import (
	"context"
	"sync"
	"time"
)

// Followed is a Shelf that tells of changes.
type Followed interface {
	Shelf
	// Follow calls all with the records that there are, by kind and id, and then changed
	// with each that is made or taken away, in order. It returns when ctx ends, or when
	// it can follow no more and what it told may be out of date.
	Follow(ctx context.Context, all func(records map[Record]bool), changed func(r Record, there bool)) error
}

// Record names one record of a Shelf.
type Record struct{ Kind, ID string }

// followAgain is the pause before a shelf is followed anew.
const followAgain = time.Second

// roll is who is in the fleet, as it was told last. It only ever says yes: of whom it
// does not know, the shelf is asked. The zero value knows nobody.
type roll struct {
	mu   sync.Mutex
	in   map[Record]bool
	gone map[Record]bool // sent away by this process: what is told of them later is old
}

func (r *roll) has(one Record) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.in[one]
}

func (r *roll) all(in map[Record]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.in = in
	for one := range r.gone { // any order
		delete(r.in, one)
	}
}

func (r *roll) changed(one Record, there bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !there:
		delete(r.in, one)
	case r.in != nil && !r.gone[one]:
		r.in[one] = true
	}
}

// send forgets one who is sent away, before the shelf does.
func (r *roll) send(one Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.in, one)
	if r.gone == nil {
		r.gone = map[Record]bool{}
	}
	r.gone[one] = true
}

// Follow keeps a copy of who is in the fleet until ctx ends, where the shelf tells of
// changes, so that Admitted need not ask it. A host that this process sends away is out of
// the copy first; one that another server sent away, as soon as that is told.
func (r *Register) Follow(ctx context.Context) {
	shelf, ok := r.shelf.(Followed)
	if !ok {
		return
	}
	for ctx.Err() == nil {
		_ = shelf.Follow(ctx, r.roll.all, r.roll.changed) // Admitted says why, when it asks the shelf
		r.roll.all(nil)
		pause := time.NewTimer(followAgain)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}
