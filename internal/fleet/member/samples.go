package member

import (
	"slices"
	"sync"
	"time"
)

// samples keeps the last measurements and tells their quantiles. A quantile and not
// the mean or the worst: one stall must not stretch the windows for long, a machine
// that is busy all the time must. Safe for concurrent use.
type samples struct {
	mu   sync.Mutex
	ring []time.Duration
	next int
	full bool
}

func newSamples(size int) *samples { return &samples{ring: make([]time.Duration, size)} }

func (s *samples) add(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ring[s.next] = max(d, 0)
	s.next++
	if s.next == len(s.ring) {
		s.next, s.full = 0, true
	}
}

// quantile is the value that perMille of the samples do not exceed; 0 without any.
func (s *samples) quantile(perMille int) time.Duration {
	s.mu.Lock()
	have := s.ring[:s.next]
	if s.full {
		have = s.ring
	}
	sorted := slices.Clone(have)
	s.mu.Unlock()
	slices.Sort(sorted)
	return quantile(sorted, perMille)
}

// quantile of sorted values; 0 of none.
func quantile(sorted []time.Duration, perMille int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*perMille/1000]
}

// losses keeps whether the last questions were answered.
type losses struct {
	mu    sync.Mutex
	lost  []bool
	next  int
	count int
}

func newLosses(size int) *losses { return &losses{lost: make([]bool, size)} }

func (l *losses) add(lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost[l.next] = lost
	l.next = (l.next + 1) % len(l.lost)
	l.count = min(l.count+1, len(l.lost))
}

// perMille is how many of them were not. It says 0 until there are enough to tell one
// lost packet from a lossy network.
func (l *losses) perMille() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count < len(l.lost)/4 {
		return 0
	}
	n := 0
	for _, lost := range l.lost[:l.count] {
		if lost {
			n++
		}
	}
	return 1000 * n / l.count
}
