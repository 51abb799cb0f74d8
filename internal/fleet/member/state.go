package member

import (
	"net/netip"
	"time"
)

// State is what a node thinks of a member. The zero value is that it does not know.
type State uint8

// The states.
const (
	StateUnknown State = iota
	Here               // in the ring
	Suspect            // the ring says that it is gone; this node is looking for itself
	Gone               // this node looked, and the agent did not answer; Member.Saw says how
	Left               // it took its leave
)

func (s State) String() string {
	switch s {
	case Here:
		return "here"
	case Suspect:
		return "suspect"
	case Gone:
		return "gone"
	case Left:
		return "left"
	case StateUnknown:
	}
	return "unknown"
}

// MarshalText writes what String says.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Member is one other member of the ring, as this node sees it. Times are on this
// process's clock (time.Now): send ages to others, not times.
type Member struct {
	Label Label
	Addr  netip.AddrPort
	State State
	Since time.Time // in this state

	// Saw is what this node found when it last looked for itself, Looked when that was,
	// and SawSince since when it has found the same. SawNothing of one that is here: the
	// ring looks after it.
	Saw      Saw
	SawSince time.Time
	Looked   time.Time

	// Heard is when it last answered this node itself; zero if never.
	Heard time.Time
	// RoundTrip is estimated; 0 if not known yet.
	RoundTrip time.Duration
}

// Sighting is what this node witnesses of the member; ill is its doubt in itself. Its
// times are on this process's clock.
func (m Member) Sighting(by Label, ill bool) Sighting {
	s := Sighting{By: by.Host, Domain: by.Domain(), Saw: m.Saw, Since: m.SawSince, At: m.Looked, Ill: ill}
	if m.Heard.After(m.Looked) {
		s.Saw, s.Since, s.At = SawAnswer, m.Heard, m.Heard
	}
	return s
}

// EventKind says what happened to a member.
type EventKind uint8

// The kinds of event.
const (
	Joined    EventKind = iota + 1 // it was not known
	Returned                       // it is in the ring again, after suspicion, death or leave
	Suspected                      // the ring says that it is gone; an own look has begun
	Lost                           // this node looked: it is Gone
	Changed                        // it is Gone still, and something else was seen; or it says something else of itself
	Departed                       // it took its leave
	Forgotten                      // it was gone for longer than Settings.Forget
)

func (k EventKind) String() string {
	switch k {
	case Joined:
		return "joined"
	case Returned:
		return "returned"
	case Suspected:
		return "suspected"
	case Lost:
		return "lost"
	case Changed:
		return "changed"
	case Departed:
		return "departed"
	case Forgotten:
		return "forgotten"
	}
	return "unknown"
}

// Event is news of a member, as it was then. Missed is how many events before it found
// no room: whoever reads one with Missed > 0 looks at Members.
type Event struct {
	Kind   EventKind
	Member Member
	At     time.Time
	Missed int
}
