package demo

import (
	"context"
	"sync"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

// watch keeps what became of every incident, and wakes those who wait for it.
type watch struct {
	mu      sync.Mutex
	records map[string]fettle.Incident
	news    []news
	changed chan struct{} // closed and replaced at every change
}

// news is an event as it was told.
type news struct {
	incident fettle.Incident
	event    fettle.Event
}

func newWatch() *watch {
	return &watch{records: map[string]fettle.Incident{}, changed: make(chan struct{})}
}

// onChange is the loop's: it never blocks.
func (w *watch) onChange(r incident.Record, events []fettle.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records[r.ID] = r.Incident
	for _, e := range events {
		w.news = append(w.news, news{r.Incident, e})
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// take returns the news since the last call, and a channel that is closed when
// there are more.
func (w *watch) take() ([]news, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.news
	w.news = nil
	return n, w.changed
}

// since returns the incidents that were opened at t or later, or were open then
// and have not ended.
func (w *watch) since(t time.Time) []fettle.Incident {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []fettle.Incident
	for _, in := range w.records {
		if !in.Opened.Before(t) {
			list = append(list, in)
		}
	}
	return list
}

// until calls done at every change until it says so or ctx ends.
func (w *watch) until(ctx context.Context, done func() bool) error {
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		if done() {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(200 * time.Millisecond): // what is waited for may be outside of the incidents
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
