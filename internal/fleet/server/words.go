package server

import (
	"sync"

	"fettle/internal/fettle"
)

const (
	// wordsMost is how many texts are kept by name before the oldest are let go: some
	// times what the facts of one kind of machine have in common.
	wordsMost = 8192
	// wordLong is the longest that is kept, in bytes: longer ones are seldom the same.
	wordLong = 64
)

// words are the texts that the facts of many hosts have in common: their names, and
// values like "active". Read from the wire each would be there as often as there are
// hosts. The zero value is empty. Its methods may be called concurrently.
type words struct {
	mu          sync.Mutex
	now, before map[string]fettle.Value // each text, as a value that holds it
}

// facts returns facts that are equal and share their texts with others.
func (w *words) facts(f fettle.Facts) fettle.Facts {
	if len(f) == 0 {
		return f
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	same := make(fettle.Facts, len(f))
	for name, value := range f { // any order: each is put under its own name
		if text, ok := value.(string); ok {
			value = w.value(text)
		}
		same[w.text(name)] = value
	}
	return same
}

// name is a text that is no value.
func (w *words) name(s string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text(s)
}

// text is value as it is. mu is held.
func (w *words) text(s string) string {
	text, _ := w.value(s).(string)
	return text
}

// value returns a text as a value. mu is held.
func (w *words) value(s string) fettle.Value {
	if v, ok := w.now[s]; ok {
		return v
	}
	v, ok := w.before[s]
	if !ok {
		v = s
	}
	if len(s) > wordLong {
		return v
	}
	if w.now == nil || len(w.now) >= wordsMost { // what is not asked for any more goes
		w.now, w.before = map[string]fettle.Value{}, w.now
	}
	w.now[s] = v
	return v
}
