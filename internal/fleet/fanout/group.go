package fanout

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
)

// DefaultKept is how many bytes of output a Collector keeps, unless told
// otherwise.
const DefaultKept = 64 << 20

// Collector keeps the output of each host until it has ended, and equal outputs
// once. It is not safe for several goroutines: Run's emit is not called so.
type Collector struct {
	Kept int // bytes at most, in all; 0: DefaultKept

	held    int
	running map[string]*said
	texts   map[[sha256.Size]byte]*said
	groups  map[key]*Group
}

// said is what a command wrote.
type said struct {
	out, err []byte
	cut      bool
}

type key struct {
	text    [sha256.Size]byte
	outcome Outcome
	exit    int
	signal  string
	why     string
}

// Group is hosts on which it went the same way, with the same output.
type Group struct {
	Hosts   []string // sorted as people count
	Outcome Outcome
	Exit    int
	Signal  string
	Why     string
	Hint    string
	Stdout  []byte
	Stderr  []byte
	Clipped bool // the output is not whole
}

// Add takes one event, and says whether it ended a host.
func (c *Collector) Add(e Event) {
	if c.running == nil {
		c.running, c.texts, c.groups = map[string]*said{}, map[[sha256.Size]byte]*said{}, map[key]*Group{}
		if c.Kept <= 0 {
			c.Kept = DefaultKept
		}
	}
	s := c.running[e.Host]
	if s == nil {
		s = &said{}
		c.running[e.Host] = s
	}
	switch e.Kind {
	case Output:
		data := e.Data
		if room := c.Kept - c.held; len(data) > room {
			data, s.cut = data[:room], true
		}
		c.held += len(data)
		if e.Stream == Stderr {
			s.err = append(s.err, data...)
		} else {
			s.out = append(s.out, data...)
		}
	case Clipped:
		s.cut = true
	case Ended:
		delete(c.running, e.Host)
		c.end(s, e.Result)
	case Quiet, Answers: // of the moment
	}
}

func (c *Collector) end(s *said, r Result) {
	s.cut = s.cut || r.Clipped
	sum := sha256.Sum256(slices.Concat(fmt.Appendf(nil, "%d %t ", len(s.out), s.cut), s.out, s.err))
	if same := c.texts[sum]; same != nil {
		c.held -= len(s.out) + len(s.err)
		s = same
	} else {
		s.out, s.err = bytes.Clone(s.out), bytes.Clone(s.err) // without the room of append
		c.texts[sum] = s
	}
	k := key{text: sum, outcome: r.Outcome, exit: r.Exit, signal: r.Signal, why: r.Why}
	g := c.groups[k]
	if g == nil {
		g = &Group{Outcome: r.Outcome, Exit: r.Exit, Signal: r.Signal, Why: r.Why, Hint: r.Hint, Stdout: s.out, Stderr: s.err, Clipped: s.cut}
		c.groups[k] = g
	}
	g.Hosts = append(g.Hosts, r.Host)
}

// Groups gives the groups of the hosts that have ended: successes before the
// others, the larger ones first.
func (c *Collector) Groups() []Group {
	var out []Group
	for _, g := range c.groups { // any order: they are sorted below
		g := *g
		g.Hosts = slices.SortedFunc(slices.Values(g.Hosts), CompareNames)
		out = append(out, g)
	}
	bad := func(g Group) int {
		if g.Outcome == Succeeded {
			return 0
		}
		return 1
	}
	slices.SortFunc(out, func(a, b Group) int {
		return cmp.Or(cmp.Compare(bad(a), bad(b)), cmp.Compare(len(b.Hosts), len(a.Hosts)), CompareNames(a.Hosts[0], b.Hosts[0]))
	})
	return out
}
