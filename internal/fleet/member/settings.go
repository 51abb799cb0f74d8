package member

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// Settings are the knobs of a Node. The zero value of each takes its default, which
// is for one data centre or several with a few milliseconds between them.
//
// How long it takes until a member that is gone is Gone to all others, with n members:
//
//	the first probe of it     Probe × about 1; in rings of 5, at worst 3 in 300 cases
//	that fails after          Probe (longer while this node itself is ill, Lifeguard)
//	suspicion                 SuspicionMult × Probe × max(1, log10 n), if others confirm
//	the news travels          a few × Gossip
//	everybody asks for itself Windows.Silence: 175 ms, more with loss or delay
//
// That is about 0.9 s in a ring of 5, 1.2 s in a ring of 200.
type Settings struct {
	// Probe is the time between two probes that this node makes, each of another member
	// in turn, and the time that an answer over a third may take. Halve it and deaths are
	// seen in half the time, for twice the packets (a probe is two of about 150 bytes).
	// It must be at least 4 × the worst round trip of the ring, or everybody is suspected
	// always. 100 ms.
	Probe time.Duration
	// Direct is how long a probe waits for the direct answer before it asks others to try.
	// Too short costs packets, nothing else. 40 ms.
	Direct time.Duration
	// SuspicionMult: see above. Lower, and more members that are only slow must refute a
	// suspicion; nobody is harmed, since Gone takes an own look. 3.
	SuspicionMult int
	// Gossip is the time between two rounds of news, each to GossipTo others. It is most of
	// what an idle node wakes up for. 50 ms, 3.
	Gossip   time.Duration
	GossipTo int
	// Sync is the time between two exchanges of everything with one other member: what
	// gossip lost is found again, after a storm of joins above all. Rings above 32 stretch
	// it, at 200 to four times; there it costs 50 KB each way. 5 s.
	Sync time.Duration
	// Stream is how long a connection may take, all of it. 2 s.
	Stream time.Duration
	// Ask is the time between two questions to a random member, by which round trip and
	// loss are measured. 400 ms.
	Ask time.Duration
	// Tick is the time between two measurements of the scheduling delay. 100 ms.
	Tick time.Duration
	// Again and AgainMax: how soon a member that is gone is looked at anew, at first and
	// in the end. 1 s, 15 s.
	Again, AgainMax time.Duration
	// Rejoin is the time between two looks for seeds that are not in the ring, halved or
	// doubled by chance so that a thousand agents do not come at once: it mends rings that
	// were cut in two. 15 s; a node that is alone begins at a hundredth of it.
	Rejoin time.Duration
	// Forget is how long a member that is gone stays in Members. 24 h.
	Forget time.Duration
	// Spread is the time between two measurements of how fast news travels, of all
	// members together: each waits this long times the members that there are. 10 s.
	Spread time.Duration
	// Windows is how long silence must last.
	Windows Windows
	// Events is how many events may wait for their reader. 256.
	Events int
}

// Filled is the settings with every default in its place.
func (s Settings) Filled() Settings {
	s.Probe = cmp.Or(s.Probe, 100*time.Millisecond)
	s.Direct = cmp.Or(s.Direct, s.Probe*2/5)
	s.SuspicionMult = cmp.Or(s.SuspicionMult, 3)
	s.Gossip = cmp.Or(s.Gossip, 50*time.Millisecond)
	s.GossipTo = cmp.Or(s.GossipTo, 3)
	s.Sync = cmp.Or(s.Sync, 5*time.Second)
	s.Stream = cmp.Or(s.Stream, 2*time.Second)
	s.Ask = cmp.Or(s.Ask, 400*time.Millisecond)
	s.Tick = cmp.Or(s.Tick, 100*time.Millisecond)
	s.Again = cmp.Or(s.Again, time.Second)
	s.AgainMax = cmp.Or(s.AgainMax, 15*time.Second)
	s.Rejoin = cmp.Or(s.Rejoin, 15*time.Second)
	s.Forget = cmp.Or(s.Forget, 24*time.Hour)
	s.Spread = cmp.Or(s.Spread, 10*time.Second)
	s.Windows = cmp.Or(s.Windows, DefaultWindows())
	s.Events = cmp.Or(s.Events, 256)
	return s
}

// check looks at filled settings.
func (s Settings) check() error {
	for name, d := range map[string]time.Duration{ // any order: each says enough by itself
		"probe": s.Probe, "direct": s.Direct, "gossip": s.Gossip, "sync": s.Sync, "stream": s.Stream, "ask": s.Ask, "tick": s.Tick,
		"again": s.Again, "again max": s.AgainMax, "rejoin": s.Rejoin, "forget": s.Forget, "spread": s.Spread,
		"floor": s.Windows.Floor, "ceiling": s.Windows.Ceiling,
	} {
		if d < time.Millisecond {
			return fmt.Errorf("gossip settings: %s is %s, less than a millisecond", name, d)
		}
	}
	w := s.Windows
	switch {
	case s.Direct >= s.Probe:
		return fmt.Errorf("gossip settings: direct (%s) must be less than probe (%s), which has room for the detour", s.Direct, s.Probe)
	case s.SuspicionMult < 1 || s.GossipTo < 1 || s.Events < 1:
		return errors.New("gossip settings: suspicion multiplier, gossip fan-out and event buffer are 1 at least")
	case w.FactorMin < 1 || w.FactorMax < w.FactorMin || w.Floor > w.Ceiling || w.AsksMin < 1 || w.AsksMax < w.AsksMin || w.LossFull < 0 || w.ChanceOfError < 1:
		return errors.New("gossip settings: in windows a least is more than its most, or not positive; begin with DefaultWindows")
	}
	return nil
}
