package member

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// Spread is how fast the ring's news travels. A member counts up its beat, which is a
// part of what it says of itself, and so travels as all news of members does: joins,
// suspicions, deaths. Everybody who hears of it says so to that member at once. All
// times are taken by its one clock, so they have the way back in them: news is faster.
//
// A message of users would measure less: memberlist sends those only when there is room
// beside its own (hashicorp/memberlist#299), and here there are none. One measurement
// costs one piece of news and a packet from each member; Settings.Spread bounds how many
// there are in a ring, whatever its size.
type Spread struct {
	At      time.Time // when it began; zero: none yet
	Members int       // that were here then
	Heard   int       // of them, within spreadPatience; answers may be lost, so it is a lower bound
	P50     time.Duration
	P99     time.Duration
	Worst   time.Duration
}

// spreadPatience is how long answers are waited for.
const spreadPatience = 3 * time.Second

// updatePatience is how long memberlist may take to be rid of news; it goes on after
// that.
const updatePatience = 500 * time.Millisecond

// spread gathers the answers to this node's beat.
type spread struct {
	mu    sync.Mutex
	last  Spread
	beat  uint64 // that is under way; 0: none
	began time.Time
	open  map[string]bool
	took  []time.Duration
	done  chan struct{}
}

func newSpread() *spread { return &spread{} }

func (s *spread) latest() Spread {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// begin opens a measurement; done is closed when all have answered.
func (s *spread) begin(beat uint64, to []entry, now time.Time) (done <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beat, s.began, s.took = beat, now, nil
	s.open = make(map[string]bool, len(to))
	for _, e := range to {
		s.open[e.Label.Host] = true
	}
	s.done = make(chan struct{})
	return s.done
}

func (s *spread) heard(beat uint64, by string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if beat != s.beat || !s.open[by] {
		return
	}
	delete(s.open, by)
	s.took = append(s.took, now.Sub(s.began))
	if len(s.open) == 0 {
		close(s.done)
	}
}

func (s *spread) end() Spread {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.took)
	s.last = Spread{At: s.began, Members: len(s.took) + len(s.open), Heard: len(s.took),
		P50: quantile(s.took, 500), P99: quantile(s.took, 990), Worst: quantile(s.took, 1000)}
	s.beat, s.open = 0, nil
	return s.last
}

// missing is who has not answered yet.
func (s *spread) missing() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.open))
}

// measureSpread measures now and then.
func (n *Node) measureSpread(ctx context.Context) {
	for {
		members := len(n.table.here()) + 1
		if !wait(ctx, jittered(n.o.Settings.Spread*time.Duration(members))) {
			return
		}
		n.Beat(ctx)
	}
}

// Beat measures how fast news travels in the ring now, and returns what Health then
// shows; the zero value if this node is alone or ctx ends. It blocks for spreadPatience
// at most, and a little longer to be rid of its news. Two at once spoil each other.
func (n *Node) Beat(ctx context.Context) Spread {
	here := n.table.here()
	if len(here) == 0 {
		return Spread{}
	}
	done := n.spread.begin(n.beat.Add(1), here, time.Now())
	if err := n.list.UpdateNode(updatePatience); err != nil {
		n.o.Log.Debug("measure the spread of news", "err", err)
	}
	timer := time.NewTimer(spreadPatience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		n.o.Log.Debug("news did not reach all", "missing", n.spread.missing())
	case <-ctx.Done():
		return Spread{}
	}
	return n.spread.end()
}
