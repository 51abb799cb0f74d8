package member

import (
	"fmt"
	"time"
)

// Saw is what an observer found when it turned to a host itself.
type Saw uint8

// What can be seen. The zero value is that nobody looked, or that it could not be
// told; it is no witness for anything.
const (
	SawNothing Saw = iota
	SawAnswer      // its agent answered
	SawRefusal     // its kernel refused the connection: it runs, the agent does not
	SawAccept      // its kernel took the connection and nobody behind it answered
	SawSilence     // nothing came back, by packet or by connection
)

func (s Saw) String() string {
	switch s {
	case SawAnswer:
		return "answer"
	case SawRefusal:
		return "refusal"
	case SawAccept:
		return "accept"
	case SawSilence:
		return "silence"
	case SawNothing:
	}
	return "nothing"
}

// MarshalText writes what String says.
func (s Saw) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads it. A word of a newer version is SawNothing: what is not
// understood is no witness.
func (s *Saw) UnmarshalText(text []byte) error {
	*s = SawNothing
	for saw := SawAnswer; saw <= SawSilence; saw++ {
		if saw.String() == string(text) {
			*s = saw
		}
	}
	return nil
}

// Sighting is what one peer found of a host, first-hand. All times in evidence are
// on the clock of the one who judges.
type Sighting struct {
	By     string // the observer's host
	Domain string // the observer's, as Place.Domain writes it
	Saw    Saw
	Since  time.Time // since when it is so without a break
	At     time.Time // when it was last found so
	Ill    bool      // the observer doubts itself (Doubt)
	// Window is how long the observer's own look demanded of a silence; 0: as long as
	// Evidence demands. It knows its way to the host, the one who judges does not.
	Window time.Duration
}

// StreamState is what the servers see of an agent's open stream.
type StreamState uint8

// The states of a stream. The zero value is one that was never seen.
const (
	StreamNever  StreamState = iota
	StreamHeard              // open, and something came through
	StreamSilent             // open, and nothing comes through; Since: last heard
	StreamEnded              // its kernel ended it, by FIN or reset: the agent is gone, the kernel was there
	StreamLeft               // the agent took its leave
)

// Stream is what the servers see of an agent's open stream.
type Stream struct {
	State StreamState
	Since time.Time // silent: last heard; ended, left: when
	At    time.Time // when it was last found so
}

// ServiceSighting is what a peer of a service that runs on the host says: an etcd
// member of another member.
type ServiceSighting struct {
	Service string // for people: "etcd-member:c1/m2"
	By      string // the host that says so
	Domain  string
	Reaches Tri
	Since   time.Time
	At      time.Time
}

// Tri is yes, no, or not known, which is the zero value.
type Tri uint8

// The three answers.
const (
	Unknown Tri = iota
	Yes
	No
)

func (t Tri) String() string {
	switch t {
	case Yes:
		return "yes"
	case No:
		return "no"
	case Unknown:
	}
	return "unknown"
}

// Kernel is whether a server's own question to the host's kernel (an ICMP echo, a
// connection) was answered.
type Kernel struct {
	Answers Tri
	// Refuses: the question was a connection to the agent's port, and the answer that
	// nobody listens there. Answers is Yes then.
	Refuses bool
	Since   time.Time
	At      time.Time
	Window  time.Duration // as Sighting.Window
}

// Power is what the host's management controller says. Its zero value is unknown.
type Power struct {
	On Tri
	At time.Time
}

// Evidence is all that is known of one host.
type Evidence struct {
	Host   string
	Domain string // its own
	// Window is how long this host's silence must last to mean something
	// (Windows.Silence, as the servers measure it); 0 is Rules.Window.
	Window time.Duration
	Stream Stream
	// Peers has every member of the host's ring that should look at it, those with
	// nothing to say too: they are what a majority is a majority of.
	Peers    []Sighting
	Services []ServiceSighting
	Kernel   Kernel
	Power    Power
}

// doubtLeast is how many things an observer must look at before "most of them" says
// anything about the observer.
const doubtLeast = 3

// Doubt is the observer's doubt in itself: if more than half of what it looks at seems
// gone, and it looks at three things or more, then the likeliest cause is what they
// share, and that is the observer. The text says so, for people; it is "" where there
// is no doubt. One that looks at fewer than three things cannot tell, and does not
// doubt.
func Doubt(looks, gone int) (why string, ill bool) {
	if looks < doubtLeast || 2*gone <= looks {
		return "", false
	}
	return fmt.Sprintf("%d of the %d that it looks at seem gone: more than half, so it doubts itself", gone, looks), true
}
