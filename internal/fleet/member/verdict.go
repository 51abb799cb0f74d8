package member

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Life is what Judge finds of a host.
type Life uint8

// The answers. The zero value is that nobody can tell.
const (
	CannotTell Life = iota
	Alive           // the host lives; its agent answers, unless the reasons say otherwise
	AgentDead       // the host lives, and its agent is gone
	Hung            // its kernel answers, and nothing that runs on it does
	Dead            // nothing of it answers to anybody. No proof that it stopped writing (S4)
)

func (l Life) String() string {
	switch l {
	case Alive:
		return "alive"
	case AgentDead:
		return "agent_dead"
	case Hung:
		return "hung"
	case Dead:
		return "dead"
	case CannotTell:
	}
	return "cannot_tell"
}

// MarshalText writes what String says.
func (l Life) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Rules are the knobs of Judge. The zero value of each takes its default.
type Rules struct {
	// Fresh is how old a sighting may be to be a witness. It must be longer than the
	// slowest observer takes to look again (Settings.AgainMax), or verdicts lapse into
	// cannot-tell between two looks. 30 s.
	Fresh time.Duration
	// Window is how long silence must last where Evidence has none of its own. 1 s.
	Window time.Duration
	// Hang is how long an agent's stream must be silent at least before its host may be
	// hung by that and an answer of its kernel. It is longer than Window: a process that
	// is kept from its processor for a moment is not hung, and nobody mends it sooner. 1 s.
	Hang time.Duration
	// MinKinds is how many kinds of witness must agree on Dead. Below 2 a cut cable at
	// one observer is a death; it is not taken below 2.
	MinKinds int
	// MinDomains is how many failure domains must agree for the peers to count as a
	// witness, where the observers stand in that many. 2.
	MinDomains int
}

func (r Rules) filled() Rules {
	r.Fresh = cmp.Or(r.Fresh, 30*time.Second)
	r.Window = cmp.Or(r.Window, time.Second)
	r.Hang = cmp.Or(r.Hang, time.Second)
	r.MinKinds = max(r.MinKinds, 2)
	r.MinDomains = cmp.Or(max(r.MinDomains, 0), 2)
	return r
}

// Verdict is what follows for one host, with reasons for people: first what decided,
// then what else was seen.
type Verdict struct {
	Host    string
	Life    Life
	Reasons []string
}

// Finding says that an observer is ill. By is its host; "" is the one who judges.
type Finding struct {
	By  string
	Why string
}

// Picture is what Judge makes of all evidence.
type Picture struct {
	Verdicts []Verdict // by host
	Ill      []Finding // by observer, the one who judges first
}

// Judge says of each host whether it lives. It is pure: the order of the evidence does
// not matter, and now is the judge's clock.
//
// An observer to which most of what it looks at seems gone is ill: one Finding says so,
// and none of its silences counts. If that is the judge itself, no verdict but Alive
// stands, except where the power is seen off. Alive stands, because an answer that was
// heard is proof, whoever heard it.
func Judge(now time.Time, all []Evidence, rules Rules) Picture {
	ill := illObservers(now, all, rules.filled())
	p := Picture{Verdicts: JudgeSome(now, all, ill, rules)}
	for _, who := range sortedKeys(ill) {
		p.Ill = append(p.Ill, Finding{By: who, Why: ill[who]})
	}
	return p
}

// JudgeSome is Judge for one who counts by himself who is ill, and has the evidence of
// some hosts only: of a large fleet those that anything bad is said of. ill has the
// reason by observer, "" is the one who judges. The verdicts are sorted by host.
func JudgeSome(now time.Time, some []Evidence, ill map[string]string, rules Rules) []Verdict {
	rules = rules.filled()
	var verdicts []Verdict
	own, judgeIll := ill[""]
	for _, e := range some {
		w := weigh(now, e, rules, ill)
		v := w.verdict()
		if judgeIll && v.Life != Alive && w.powerOff == "" {
			v = Verdict{Host: e.Host, Life: CannotTell, Reasons: append([]string{"whoever judges this is ill itself: " + own}, v.Reasons...)}
		}
		verdicts = append(verdicts, v)
	}
	slices.SortFunc(verdicts, func(a, b Verdict) int { return cmp.Compare(a.Host, b.Host) })
	return verdicts
}

// illObservers finds the observers to which most seems gone, with the reason. The
// judge, as "", looks at streams.
func illObservers(now time.Time, all []Evidence, rules Rules) map[string]string {
	type tally struct{ looks, gone int }
	tallies := map[string]*tally{}
	count := func(who string, gone bool) {
		t := tallies[who]
		if t == nil {
			t = &tally{}
			tallies[who] = t
		}
		t.looks++
		if gone {
			t.gone++
		}
	}
	ill := map[string]string{}
	for _, e := range all {
		switch e.Stream.State {
		case StreamHeard, StreamEnded, StreamSilent:
			count("", e.Stream.State == StreamSilent)
		case StreamNever, StreamLeft: // nothing is expected of these
		}
		for _, s := range e.Peers {
			count(s.By, s.Saw == SawSilence && now.Sub(s.At) <= rules.Fresh)
			if s.Ill {
				ill[s.By] = "it doubts itself"
			}
		}
	}
	for who, t := range tallies {
		if why, doubts := Doubt(t.looks, t.gone); doubts {
			ill[who] = why
		}
	}
	return ill
}

// verdict decides by the weighed evidence. The first rule that fits holds.
func (w *weighed) verdict() Verdict {
	v := Verdict{Host: w.host}
	say := func(life Life, why string) Verdict {
		v.Life = life
		v.Reasons = append([]string{why}, w.notes...)
		return v
	}
	silent := w.silentKinds()
	switch {
	case w.powerOff != "" && w.lifeAt.After(w.powerAt):
		return say(CannotTell, w.powerOff+", but "+w.lifeWhy+" after that: one of the two is of another machine; check the address of its BMC")
	case w.powerOff != "":
		return say(Dead, w.powerOff)
	case len(silent) >= w.rules.MinKinds:
		return say(Dead, "nothing of it answers: "+strings.Join(silent, "; "))
	case w.servedAfterAgent() && w.agentPort != "":
		return say(AgentDead, w.servedWhy+", but its agent does not answer: "+w.agentPort)
	case w.agentGone != "" && !w.agentAt.After(w.goneAt):
		if len(silent) > 0 {
			return say(CannotTell, w.agentGone+", and since then "+silent[0]+": a second kind of witness would make it dead, an answer of its kernel would make it an agent's death")
		}
		return say(AgentDead, w.agentGone)
	case w.hung():
		return say(Hung, w.hungWhy)
	case w.agentWhy != "" && len(silent) == 0 && !w.lapsed:
		return say(Alive, w.agentWhy)
	case w.servedAfterAgent() && len(silent) == 0:
		return say(Alive, w.servedWhy+"; its agent is not heard")
	case len(silent) == 1:
		return say(CannotTell, "only one kind of witness says that it is gone: "+silent[0]+"; ask its BMC, its services' peers, or look at its console")
	}
	return say(CannotTell, "nobody has looked at it lately, or what was seen does not suffice")
}

// ago is a time for people.
func (w *weighed) ago(t time.Time) string {
	d := w.now.Sub(t)
	if d < 0 {
		d = 0
	}
	unit := time.Millisecond
	if d >= 10*time.Second {
		unit = time.Second
	}
	return fmt.Sprintf("%s ago", d.Round(unit))
}
