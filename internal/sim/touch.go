package sim

import (
	"slices"
	"strings"
	"time"

	"fettle/internal/act/execute"
	"fettle/internal/fettle"
)

// begun is the moment at which an agent starts to touch: what the executor
// promises holds now.
func (s *Sim) begun(p *process, d fettle.Dispatch) {
	s.mu.Lock()
	if s.w.effects[d.Key] == nil {
		s.w.effects[d.Key] = &effect{}
	}
	s.w.effects[d.Key].pending = true
	s.mu.Unlock()
	key, _, renamed := strings.Cut(d.Key, "#")
	s.depot.mu.Lock()
	in, durable := s.depot.intents[key]
	logged := s.depot.logged[key]
	s.depot.mu.Unlock()
	switch {
	case !durable:
		s.e.breaks("S6", "%s is begun, and no intent of it was ever durable", d.Key)
	case !logged:
		s.e.breaks("S13", "%s is begun, and the log does not tell of it", d.Key)
	}
	if in.Dispatch.Token.Less(p.highest) {
		s.e.breaks("S7", "%s is of %v, and its agent has met %v", key, in.Dispatch.Token, p.highest)
	}
	if d.Incarnation != p.name && !renamed {
		s.e.breaks("S6", "%s is for %s, and %s begins it", d.Key, d.Incarnation, p.name)
	}
	if p.a.frozen && !d.Undo && s.e.now().After(p.a.frozeAt) {
		s.e.breaks("S11", "%s is begun on %s, which is frozen", d.Key, p.h.name)
	}
}

// checkTouch holds the effect itself against the truth.
func (s *Sim) checkTouch(p *process, d fettle.Dispatch, e *effect) {
	key, _, _ := strings.Cut(d.Key, "#")
	s.mu.Lock()
	before := 0
	for k, o := range s.w.effects {
		if base, _, _ := strings.Cut(k, "#"); base == key {
			before += o.times
		}
	}
	s.mu.Unlock()
	if before > 0 {
		s.e.breaks("S6", "%s acts twice", key)
	}
	s.depot.mu.Lock()
	in, here := s.depot.intents[key], s.depot.born[key] == s.depot.branch
	s.depot.mu.Unlock()
	if !s.signed[in.Dispatch.Token.Epoch] && p.highest.Epoch != 0 && p.highest.Epoch < in.Dispatch.Token.Epoch {
		s.e.breaks("S7", "%s is of epoch %d, which nobody has signed", key, in.Dispatch.Token.Epoch)
	}
	if h := p.a.head; here && h.Entries > 0 && in.Dispatch.Token.Epoch == h.Epoch && s.depot.epoch == h.Epoch && !s.depot.holds(h) {
		s.e.breaks("S13", "%s is done at the word of a server whose log does not have entry %d, which its agent has seen", key, h.Entries)
	}
	s.mu.Lock()
	_, agreed := s.agreed[d.Plan]
	id := d.Incident + " " + d.Plan + " " + d.Step.ID
	earlier, twice := s.done[id]
	if !d.Undo {
		s.done[id] = key
	} else {
		delete(s.done, id)
	}
	again := !d.Undo && twice && earlier != key && s.w.effects[earlier] != nil && s.w.effects[earlier].err == nil
	first := !s.plans[d.Incident+d.Plan] && !d.Undo
	s.plans[d.Incident+d.Plan] = true
	s.mu.Unlock()
	if again {
		s.e.breaks("S6", "step %s of plan %.12s was done as %s, and is again as %s", d.Step.ID, d.Plan, earlier, key)
	}
	if d.Step.Action == "careless.wipe" && p.h.disk.kept > 0 && !agreed {
		s.e.breaks("S5", "%s destroys what is somebody's, and nobody approved it", key)
	}
	if first {
		s.checkS10Ladder(d)
	}
}

// checkS10Ladder: one subject is not repaired for ever.
func (s *Sim) checkS10Ladder(d fettle.Dispatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cause := s.board[d.Incident].Cause.Subject
	now := s.e.now()
	list := slices.DeleteFunc(s.begunBy[cause], func(t time.Time) bool { return now.Sub(t) > time.Hour })
	list = append(list, now)
	s.begunBy[cause] = list
	if len(list) > 3 {
		s.e.breaks("S10", "%d plans were begun on %s within an hour", len(list), cause)
	}
}

// forget is what is lost with the newest store: what was begun then nobody knows.
func (s *Sim) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.begunBy)
	clear(s.done)
	clear(s.board)
	clear(s.flying)
}

// shown notes the head of a log that an agent was shown: the last of the one log that
// it has followed. Of a fork, the head from before stays.
func (a *agent) shown(s *Sim, h execute.LogHead) {
	switch {
	case h.Entries == 0, !s.signed[h.Epoch], h.Epoch < a.head.Epoch:
	case a.head.Entries == 0, h.Epoch > a.head.Epoch, s.depot.holds(a.head) && h.Entries > a.head.Entries:
		a.head = h
	}
}
