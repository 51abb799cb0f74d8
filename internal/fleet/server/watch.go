package server

import (
	"sync"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

// watchBuffer is how many changes may wait for a watcher that reads slowly.
const watchBuffer = 256

// happened is one change of an incident.
type happened struct {
	incident fettle.Incident // without its story
	events   []fettle.Event
	missed   int64 // changes dropped before this one
}

// watchers are those who want to be told of changes.
type watchers struct {
	mu   sync.Mutex
	list map[*watcher]bool
}

type watcher struct {
	ch     chan happened
	missed int64
}

func (w *watchers) add() (*watcher, func()) {
	one := &watcher{ch: make(chan happened, watchBuffer)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.list == nil {
		w.list = map[*watcher]bool{}
	}
	w.list[one] = true
	return one, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.list, one)
	}
}

// Changed tells those who watch of a change. It does not block: who is too slow
// misses changes, and is told how many. It is loop.Options.OnChange.
func (s *Server) Changed(r incident.Record, events []fettle.Event) {
	w := &s.watchers
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.list) == 0 {
		return
	}
	short := r.Incident
	short.Story = nil
	for one := range w.list {
		select {
		case one.ch <- happened{short, events, one.missed}:
			one.missed = 0
		default:
			one.missed++
		}
	}
}
