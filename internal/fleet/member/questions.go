package member

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

// questions are those that this node asked and that are not answered yet. Numbers are
// random: only who got the question, or reads along with the ring's key, can answer.
type questions struct {
	mu   sync.Mutex
	open map[uint64]question
}

type question struct {
	to     string
	at     time.Time
	answer chan<- struct{} // nil: only round trip and loss are of interest; has room
}

func newQuestions() *questions { return &questions{open: map[uint64]question{}} }

// ask opens a question and returns its number.
func (q *questions) ask(to string, at time.Time, answer chan<- struct{}) (uint64, error) {
	var raw [8]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return 0, fmt.Errorf("ask %s: %w", to, err)
	}
	number := binary.BigEndian.Uint64(raw[:])
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open[number] = question{to: to, at: at, answer: answer}
	return number, nil
}

// answered closes a question. False: it was never asked of this one, or is closed.
func (q *questions) answered(number uint64, by string) (question, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	one, ok := q.open[number]
	if !ok || one.to != by {
		return question{}, false
	}
	delete(q.open, number)
	return one, true
}

// expire closes what was asked before a time, and returns to whom the questions went
// that were asked for the sake of the measurement.
func (q *questions) expire(before time.Time) []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	var lost []string
	for number, one := range q.open { // any order: they are counted
		if one.at.Before(before) {
			delete(q.open, number)
			if one.answer == nil {
				lost = append(lost, one.to)
			}
		}
	}
	return lost
}
