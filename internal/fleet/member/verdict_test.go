package member

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// noon is the judge's clock in these tests.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

// peers makes sightings of one sort, each by another host, in the domains given.
func peers(saw Saw, since, at time.Duration, domains ...string) []Sighting {
	var all []Sighting
	for i, d := range domains {
		all = append(all, Sighting{By: fmt.Sprintf("p%s%d", saw, i), Domain: d, Saw: saw, Since: ago(since), At: ago(at)})
	}
	return all
}

const (
	second = time.Second
	minute = time.Minute
)

func heard(at time.Duration) Stream { return Stream{State: StreamHeard, At: ago(at)} }
func silent(since time.Duration) Stream {
	return Stream{State: StreamSilent, Since: ago(since), At: noon}
}
func ended(at time.Duration) Stream { return Stream{State: StreamEnded, Since: ago(at), At: noon} }

func TestVerdict(t *testing.T) {
	gone3 := peers(SawSilence, 5*second, second, "z/a", "z/b", "z/c")
	none3 := peers(SawNothing, 0, 0, "z/a", "z/b", "z/c")
	for _, c := range []struct {
		name string
		e    Evidence
		want Life
		why  string // a part of the reasons
	}{
		{"nothing known", Evidence{}, CannotTell, "nobody has looked"},
		{"stream heard", Evidence{Stream: heard(second)}, Alive, "stream was heard 1s ago"},
		{"stream heard long ago", Evidence{Stream: heard(minute)}, CannotTell, ""},
		{"a peer was answered", Evidence{Peers: peers(SawAnswer, 9*second, second, "z/a")}, Alive, "answered"},

		{"peers alone", Evidence{Peers: gone3}, CannotTell, "only one kind"},
		{"stream alone", Evidence{Stream: silent(9 * second)}, CannotTell, "only one kind"},
		{"services alone", Evidence{Services: []ServiceSighting{{Service: "etcd-member:c/m", By: "x", Domain: "z/a", Reaches: No, Since: ago(9 * second), At: noon}}}, CannotTell, "only one kind"},
		{"two hundred heads of one rack", Evidence{Peers: peers(SawSilence, 5*second, 0, slices.Repeat([]string{"z/a"}, 200)...)}, CannotTell, "only one kind"},
		{"peers and stream", Evidence{Peers: gone3, Stream: silent(9 * second)}, Dead, "3 of 3 failure domains"},
		{"peers and services", Evidence{Peers: gone3, Services: []ServiceSighting{{Service: "s", By: "x", Domain: "z/a", Reaches: No, Since: ago(9 * second), At: noon}}}, Dead, "services' peers"},
		{"stream and kernel are one kind", Evidence{Stream: silent(9 * second), Kernel: Kernel{Answers: No, Since: ago(9 * second), At: noon}}, CannotTell, "only one kind"},
		{"peers whose domains nobody told, and stream", Evidence{Peers: peers(SawSilence, 5*second, 0, "", "", ""), Stream: silent(9 * second)}, Dead, "unknown"},
		{"one rack of three, and stream", Evidence{Peers: append(peers(SawSilence, 5*second, 0, "z/a", "z/a", "z/a"), peers(SawNothing, 0, 0, "z/b", "z/c")...), Stream: silent(9 * second)}, CannotTell, "only one kind"},
		{"heads of one rack do not outvote two others", Evidence{Peers: append(peers(SawNothing, 0, 0, "z/a", "z/a", "z/a", "z/a", "z/a"), peers(SawSilence, 5*second, 0, "z/b", "z/c")...), Stream: silent(9 * second)}, Dead, "2 of 3 failure domains"},
		{"silence not long enough", Evidence{Window: 3 * second, Peers: peers(SawSilence, 4*second, 2*second, "z/a", "z/b"), Stream: silent(9 * second)}, CannotTell, "only one kind"},
		{"stale peers", Evidence{Peers: peers(SawSilence, 10*minute, minute, "z/a", "z/b"), Stream: silent(9 * second)}, CannotTell, "only one kind"},
		{"never seen, and peers", Evidence{Peers: gone3, Stream: Stream{}}, CannotTell, "only one kind"},

		{"an answer beats silence before it", Evidence{Peers: append(slices.Clone(gone3), peers(SawAnswer, second/2, second/2, "z/d")...), Stream: silent(9 * second)}, Alive, "answered"},
		{"silence after an answer", Evidence{Peers: append(peers(SawSilence, 5*second, 0, "z/a", "z/b", "z/c"), peers(SawAnswer, 4*second, 4*second, "z/d")...), Stream: silent(9 * second)}, Dead, "nothing of it answers"},
		{"a partition: some peers reach it", Evidence{Peers: append(peers(SawSilence, 9*second, 0, "z/a", "z/b"), peers(SawAnswer, 0, 0, "z/c", "z/d")...), Stream: heard(0)}, Alive, "2 of its 4 peers hear nothing"},

		{"power off", Evidence{Power: Power{On: No, At: ago(second)}}, Dead, "power is off"},
		{"power off, long ago", Evidence{Power: Power{On: No, At: ago(minute)}}, CannotTell, ""},
		{"power off, yet heard after that", Evidence{Power: Power{On: No, At: ago(3 * second)}, Stream: heard(second)}, CannotTell, "of another machine"},
		{"power on proves no life", Evidence{Power: Power{On: Yes, At: noon}, Peers: gone3, Stream: silent(9 * second)}, Dead, ""},

		{"stream ended", Evidence{Stream: ended(100 * time.Millisecond), Peers: none3}, AgentDead, "the agent is gone, the host was there"},
		{"agent took its leave", Evidence{Stream: Stream{State: StreamLeft, Since: ago(second), At: noon}}, AgentDead, "took its leave"},
		{"stream ended and port refused", Evidence{Stream: ended(9 * second), Peers: peers(SawRefusal, 8*second, second, "z/a", "z/b")}, AgentDead, "refused"},
		{"agent came back to another server", Evidence{Stream: ended(9 * second), Peers: peers(SawAnswer, 8*second, second, "z/a")}, Alive, "answered"},
		{"stream ended, then the host died", Evidence{Stream: ended(9 * second), Peers: gone3}, CannotTell, "second kind"},
		{"stream ended, then all fell silent", Evidence{Stream: ended(9 * second), Peers: gone3, Kernel: Kernel{Answers: No, Since: ago(6 * second), At: noon}}, Dead, ""},
		{"a server's connection was refused", Evidence{Peers: none3, Kernel: Kernel{Answers: Yes, Refuses: true, Since: ago(second), At: ago(second)}}, AgentDead, "refused a server"},
		{"refused, and heard since", Evidence{Stream: heard(0), Kernel: Kernel{Answers: Yes, Refuses: true, Since: ago(second), At: ago(second)}}, Alive, ""},
		{"kernel's own window", Evidence{Window: 3 * second, Peers: gone3, Kernel: Kernel{Answers: No, Since: ago(second), At: noon, Window: second}}, Dead, "its kernel answers no server"},
		{"peers' own window", Evidence{Window: 3 * second, Peers: []Sighting{{By: "a", Domain: "z/a", Saw: SawSilence, Since: ago(4 * second), At: ago(2 * second), Window: second}, {By: "b", Domain: "z/b", Saw: SawSilence, Since: ago(4 * second), At: ago(2 * second), Window: second}}, Stream: silent(9 * second)}, Dead, "2 of 2"},
		{"stream ended long ago and nobody looked", Evidence{Stream: ended(minute)}, CannotTell, ""},

		{"frozen: the servers' probes", Evidence{Stream: silent(3 * second), Kernel: Kernel{Answers: Yes, Since: ago(minute), At: ago(second)}}, Hung, "its kernel answered"},
		{"frozen: the peers' connections", Evidence{Peers: peers(SawAccept, 2*second, second, "z/a", "z/b", "z/c")}, Hung, "3 of 3 failure domains"},
		{"one peer's connection, and a server that has just begun", Evidence{Peers: peers(SawAccept, 2*second, second, "z/a")}, CannotTell, ""},
		{"three peers' connections, for a moment", Evidence{Peers: peers(SawAccept, second, second/2, "z/a", "z/b", "z/c")}, CannotTell, ""},
		{"frozen: both", Evidence{Stream: silent(3 * second), Peers: append(peers(SawAccept, 2*second, second, "z/a"), none3[1:]...)}, Hung, "takes connections"},
		{"a stream that stalls, and no peer misses the host", Evidence{Stream: silent(3 * second), Peers: none3, Kernel: Kernel{Answers: Yes, Since: ago(minute), At: ago(second)}}, CannotTell, "only one kind"},
		{"a stream that stalls, and a peer misses the host", Evidence{Stream: silent(3 * second), Peers: append(peers(SawSilence, 2*second, second, "z/a"), none3[1:]...), Kernel: Kernel{Answers: Yes, Since: ago(minute), At: ago(second)}}, Hung, "its kernel answered"},
		{"silent for a moment only", Evidence{Window: second / 4, Stream: silent(second / 2), Kernel: Kernel{Answers: Yes, Since: ago(minute), At: ago(second / 4)}}, CannotTell, ""},
		{"one accepted connection is no hang", Evidence{Peers: append(peers(SawAccept, 2*second, second, "z/a"), none3[1:]...)}, CannotTell, ""},
		{"slow, not hung: heard since", Evidence{Stream: heard(second / 2), Peers: peers(SawAccept, 2*second, second, "z/a", "z/b", "z/c")}, Alive, ""},
		{"hung, then switched off", Evidence{Stream: silent(20 * second), Peers: append(peers(SawAccept, 19*second, 15*second, "z/a"), peers(SawSilence, 9*second, 0, "z/b", "z/c")...)}, Dead, ""},

		{"agent stuck, services work", Evidence{Stream: silent(9 * second), Peers: peers(SawAccept, 5*second, second, "z/a", "z/b"), Services: []ServiceSighting{{Service: "etcd-member:c/m", By: "x", Reaches: Yes, At: noon}}}, AgentDead, "etcd-member:c/m answered x"},
		{"agent unreachable, services work", Evidence{Stream: silent(9 * second), Peers: gone3, Services: []ServiceSighting{{Service: "etcd-member:c/m", By: "x", Reaches: Yes, At: noon}}}, Alive, "its agent is not heard"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.e.Host = "h"
			got := Judge(noon, []Evidence{c.e}, Rules{}).Verdicts[0]
			if all := strings.Join(got.Reasons, "; "); got.Life != c.want || !strings.Contains(all, c.why) {
				t.Errorf("%s (%s), want %s (%s)", got.Life, all, c.want, c.why)
			}
			if len(got.Reasons) == 0 {
				t.Error("no reason")
			}
		})
	}
}

// TestObserverDoubtsItself: a partition shows one side's hosts as dead. The one that is
// cut off has most of its view gone, and is the one that is ill.
func TestObserverDoubtsItself(t *testing.T) {
	fleet := func(n int, stream func(i int) Stream) []Evidence {
		var all []Evidence
		for i := range n {
			var ps []Sighting
			for j := range n {
				if j == i {
					continue
				}
				// p0 is cut off: it hears nobody. The others hear each other.
				saw := SawAnswer
				if i == 0 || j == 0 {
					saw = SawSilence
				}
				ps = append(ps, Sighting{By: fmt.Sprint("h", j), Domain: fmt.Sprint("z/", j), Saw: saw, Since: ago(9 * second), At: noon})
			}
			all = append(all, Evidence{Host: fmt.Sprint("h", i), Peers: ps, Stream: stream(i)})
		}
		return all
	}
	p := Judge(noon, fleet(5, func(i int) Stream {
		if i == 0 {
			return silent(9 * second)
		}
		return heard(0)
	}), Rules{})
	if len(p.Ill) != 1 || p.Ill[0].By != "h0" || !strings.Contains(p.Ill[0].Why, "4 of the 4") {
		t.Errorf("ill: %+v, want h0 alone", p.Ill)
	}
	for i, v := range p.Verdicts {
		if want := map[bool]Life{true: Dead, false: Alive}[i == 0]; v.Life != want {
			t.Errorf("%s is %s (%v), want %s", v.Host, v.Life, v.Reasons, want)
		}
	}

	// The judge itself: most streams silent at once. Whoever is heard is alive; of the
	// others nobody can tell, but for one that is seen switched off.
	all := fleet(5, func(i int) Stream {
		if i == 4 {
			return heard(0)
		}
		return silent(9 * second)
	})
	for i := range all {
		for j := range all[i].Peers {
			all[i].Peers[j].Saw = SawSilence
		}
	}
	all[1].Power = Power{On: No, At: noon}
	p = Judge(noon, all, Rules{})
	if len(p.Ill) == 0 || p.Ill[0].By != "" {
		t.Errorf("ill: %+v, want the judge first", p.Ill)
	}
	for i, want := range []Life{CannotTell, Dead, CannotTell, CannotTell, Alive} {
		if p.Verdicts[i].Life != want {
			t.Errorf("%s is %s (%v), want %s", p.Verdicts[i].Host, p.Verdicts[i].Life, p.Verdicts[i].Reasons, want)
		}
	}
}

func TestDoubt(t *testing.T) {
	for _, c := range []struct {
		looks, gone int
		ill         bool
	}{{0, 0, false}, {1, 1, false}, {2, 2, false}, {3, 1, false}, {3, 2, true}, {4, 2, false}, {4, 3, true}, {199, 99, false}, {199, 100, true}} {
		if why, ill := Doubt(c.looks, c.gone); ill != c.ill || ill != (why != "") {
			t.Errorf("%d of %d gone: %v (%s)", c.gone, c.looks, ill, why)
		}
	}
}

// drawEvidence draws anything at all.
func drawEvidence(t *rapid.T, host string) Evidence {
	when := func(name string) time.Time {
		return ago(time.Duration(rapid.IntRange(-2, 60).Draw(t, name)) * second)
	}
	e := Evidence{Host: host, Window: time.Duration(rapid.IntRange(0, 5).Draw(t, "window")) * second}
	e.Stream = Stream{State: StreamState(rapid.IntRange(0, 4).Draw(t, "stream")), Since: when("stream since"), At: when("stream at")}
	for range rapid.IntRange(0, 6).Draw(t, "peers") {
		e.Peers = append(e.Peers, Sighting{
			By: fmt.Sprint("p", rapid.IntRange(0, 5).Draw(t, "by")), Domain: rapid.SampledFrom([]string{"", "z/a", "z/b", "z/c"}).Draw(t, "domain"),
			Saw: Saw(rapid.IntRange(0, 4).Draw(t, "saw")), Since: when("since"), At: when("at"), Ill: rapid.IntRange(0, 9).Draw(t, "ill") == 0,
		})
	}
	for range rapid.IntRange(0, 3).Draw(t, "services") {
		e.Services = append(e.Services, ServiceSighting{Service: "s", By: fmt.Sprint("p", rapid.IntRange(0, 5).Draw(t, "by")), Domain: rapid.SampledFrom([]string{"", "z/a", "z/b"}).Draw(t, "domain"),
			Reaches: Tri(rapid.IntRange(0, 2).Draw(t, "reaches")), Since: when("since"), At: when("at")})
	}
	e.Kernel = Kernel{Answers: Tri(rapid.IntRange(0, 2).Draw(t, "kernel")), Since: when("kernel since"), At: when("kernel at")}
	e.Power = Power{On: Tri(rapid.IntRange(0, 2).Draw(t, "power")), At: when("power at")}
	return e
}

// TestJudgeProperties: no order shows; dead needs two kinds or the power off; who was
// heard last of all is not dead; nothing bad is believed of an ill judge.
func TestJudgeProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []Evidence
		for i := range rapid.IntRange(1, 6).Draw(t, "hosts") {
			all = append(all, drawEvidence(t, fmt.Sprint("h", i)))
		}
		p := Judge(noon, all, Rules{})
		shuffled := rapid.Permutation(all).Draw(t, "order")
		for i := range shuffled {
			if len(shuffled[i].Peers) > 1 {
				shuffled[i].Peers = rapid.Permutation(shuffled[i].Peers).Draw(t, "order of peers")
			}
		}
		if again := Judge(noon, shuffled, Rules{}); !reflect.DeepEqual(p, again) {
			t.Fatalf("another order, another picture:\n%+v\n%+v", p, again)
		}
		judgeIll := len(p.Ill) > 0 && p.Ill[0].By == ""
		for i, v := range p.Verdicts {
			e := all[i]
			off := e.Power.On == No && noon.Sub(e.Power.At) <= 30*second
			if judgeIll && !off && v.Life != Alive && v.Life != CannotTell {
				t.Fatalf("%s of an ill judge: %v", v.Life, v.Reasons)
			}
			if v.Life != Dead || off {
				continue
			}
			kinds := 0
			for _, is := range []bool{
				e.Stream.State == StreamSilent || e.Kernel.Answers == No,
				slices.ContainsFunc(e.Peers, func(s Sighting) bool { return s.Saw == SawSilence }),
				slices.ContainsFunc(e.Services, func(s ServiceSighting) bool { return s.Reaches == No }),
			} {
				if is {
					kinds++
				}
			}
			if kinds < 2 {
				t.Fatalf("dead by %d kinds: %+v", kinds, e)
			}
			for _, s := range e.Peers {
				if (s.Saw == SawAnswer || s.Saw == SawAccept || s.Saw == SawRefusal) && !s.At.Before(noon) {
					t.Fatalf("dead, and seen alive just now: %+v", e)
				}
			}
			if e.Stream.State == StreamHeard && !e.Stream.At.Before(noon) {
				t.Fatalf("dead, and its stream is heard: %+v", e)
			}
		}
	})
}

// TestOneWitnessNeverKills: take all but one kind of witness away from any evidence
// that says dead, and it does not.
func TestOneWitnessNeverKills(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawEvidence(t, "h")
		e.Power = Power{}
		switch rapid.IntRange(0, 2).Draw(t, "kind that stays") {
		case 0:
			e.Stream, e.Kernel, e.Services = Stream{}, Kernel{}, nil
		case 1:
			e.Peers, e.Services = nil, nil
		case 2:
			e.Stream, e.Kernel, e.Peers = Stream{}, Kernel{}, nil
		}
		if v := Judge(noon, []Evidence{e}, Rules{MinKinds: -3, MinDomains: 1}).Verdicts[0]; v.Life == Dead {
			t.Fatalf("dead by one kind of witness: %v", v.Reasons)
		}
	})
}
