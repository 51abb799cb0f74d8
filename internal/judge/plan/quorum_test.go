package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"fettle/internal/fettle"
)

// group reads a group from a line: members in order, each a name and marks.
// V a voter, L a learner; + serving, - not, ? unknown; * leads; ! its log is
// lost, = it is whole.
func group(t testing.TB, line string) fettle.QuorumGroup {
	t.Helper()
	var g fettle.QuorumGroup
	for _, word := range strings.Fields(line) {
		m := fettle.QuorumMember{Subject: fettle.NewSubject("ring-member", "r", word[:1]), ID: "id-" + word[:1]}
		for _, mark := range word[1:] {
			switch mark {
			case 'V':
				m.Voter = true
			case 'L', '?':
			case '+':
				m.Serving = fettle.Yes
			case '-':
				m.Serving = fettle.No
			case '*':
				m.Leader = true
			case '!':
				m.LogLost = fettle.Yes
			case '=':
				m.LogLost = fettle.No
			case '~':
				m.ID = ""
			default:
				t.Fatalf("mark %q in %q", mark, word)
			}
		}
		g.Members = append(g.Members, m)
	}
	return g
}

func TestQuorumEffects(t *testing.T) {
	for _, c := range []struct {
		before string
		effect fettle.QuorumEffect
		on     string
		after  string
		yields bool
		err    string
	}{
		{before: "aV+* bV+ cV+", effect: fettle.QuorumStop, on: "c", after: "aV+* bV+ cV-"},
		{before: "aV+* bV+ cV+", effect: fettle.QuorumStop, on: "a", after: "aV- bV+ cV+", yields: true},
		{before: "aV+* bV+ cV-", effect: fettle.QuorumStop, on: "c", after: "aV+* bV+ cV-"},
		{before: "aV+*", effect: fettle.QuorumStop, on: "x", err: "ring-member:r/x is not a member"},

		{before: "aV+* bV+ cV-=", effect: fettle.QuorumStart, on: "c", after: "aV+* bV+ cV+="},
		{before: "aV+* bV+ cL?", effect: fettle.QuorumStart, on: "c", after: "aV+* bV+ cL+"},
		{before: "aV+* bV+ cV+", effect: fettle.QuorumStart, on: "c", after: "aV+* bV+ cV+"},
		// Where there was no quorum, the survivors may serve again too.
		{before: "aV- bV- cV-", effect: fettle.QuorumStart, on: "c", after: "aV? bV? cV+"},
		{before: "aV+* bV+", effect: fettle.QuorumStart, on: "c", err: "is not a member"},

		{before: "aV+* bV+ cV-!", effect: fettle.QuorumRemove, on: "c", after: "aV+* bV+"},
		{before: "aV+* bV+ cV+", effect: fettle.QuorumRemove, on: "a", after: "bV+ cV+", yields: true},
		{before: "aV+* bV+", effect: fettle.QuorumRemove, on: "c", after: "aV+* bV+"},

		{before: "aV+* cV+", effect: fettle.QuorumLearner, on: "b", after: "aV+* bL?~ cV+"},
		{before: "aV+* bL+", effect: fettle.QuorumLearner, on: "b", after: "aV+* bL+"},
		{before: "aV+* bV-", effect: fettle.QuorumLearner, on: "b", err: "ring-member:r/b is a voter already; remove it first"},

		{before: "aV+* bL+", effect: fettle.QuorumPromote, on: "b", after: "aV+* bV+"},
		{before: "aV+* bL?", effect: fettle.QuorumPromote, on: "b", after: "aV+* bV?"},
		{before: "aV+* bV+", effect: fettle.QuorumPromote, on: "b", after: "aV+* bV+"},
		{before: "aV+*", effect: fettle.QuorumPromote, on: "b", err: "is not a member"},

		{before: "aV+* bV+ cV+", effect: fettle.QuorumLead, on: "b", after: "aV+ bV+* cV+"},
		{before: "aV+ bV+", effect: fettle.QuorumLead, on: "b", after: "aV+ bV+*"},
		{before: "aV+* bL+", effect: fettle.QuorumLead, on: "b", err: "has no vote, so it cannot lead"},
		{before: "aV+*", effect: fettle.QuorumLead, on: "b", err: "is not a member"},

		{before: "aV+* bV+", effect: fettle.QuorumYield, on: "a", after: "aV+ bV+", yields: true},
		{before: "aV+* bV+", effect: fettle.QuorumYield, on: "b", after: "aV+* bV+", yields: true},
		{before: "aV+*", effect: fettle.QuorumYield, on: "b", after: "aV+*"},

		{before: "aV+*", effect: "dance", on: "a", err: `unknown effect "dance"`},
	} {
		t.Run(fmt.Sprintf("%s %s in %s", c.effect, c.on, c.before), func(t *testing.T) {
			before := group(t, c.before)
			kept := before.Clone()
			after, yields, err := change(before, c.effect, fettle.NewSubject("ring-member", "r", c.on))
			if d := cmp.Diff(kept, before); d != "" {
				t.Error("it changed what it was given:", d)
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(group(t, c.after), after); d != "" {
				t.Error(d)
			}
			if yields != c.yields {
				t.Errorf("yields: %v", yields)
			}
		})
	}
}

// anyGroup draws a group with at most one leader, who serves and votes.
func anyGroup(t *rapid.T) fettle.QuorumGroup {
	var g fettle.QuorumGroup
	n := rapid.IntRange(1, 7).Draw(t, "members")
	for i := range n {
		g.Members = append(g.Members, fettle.QuorumMember{
			Subject: fettle.NewSubject("ring-member", "r", string(rune('a'+i))), ID: fmt.Sprint("id", i),
			Voter:   rapid.Bool().Draw(t, "voter"),
			Serving: fettle.Tri(rapid.IntRange(-1, 1).Draw(t, "serving")),
			LogLost: fettle.Tri(rapid.IntRange(-1, 1).Draw(t, "log lost")),
		})
	}
	lead := rapid.IntRange(-1, n-1).Draw(t, "leader")
	if lead >= 0 && g.Members[lead].Voter && g.Members[lead].Serving == fettle.Yes {
		g.Members[lead].Leader = true
	}
	return g
}

func TestQuorumProperties(t *testing.T) {
	do := func(t *rapid.T, g fettle.QuorumGroup, on fettle.Subject, effects ...fettle.QuorumEffect) fettle.QuorumGroup {
		for _, e := range effects {
			next, _, err := change(g, e, on)
			if err != nil {
				t.Fatalf("%s of %s: %v", e, on, err)
			}
			g = next
		}
		return g
	}
	same := func(t *rapid.T, want, got fettle.QuorumGroup) {
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		g := anyGroup(t)
		m := rapid.SampledFrom(g.Members).Draw(t, "on")
		stopped := do(t, g, m.Subject, fettle.QuorumStop)
		// Without a quorum a start says nothing of the others; a new leader is not
		// foretold. Everything else comes back.
		if m.Serving == fettle.Yes && !m.Leader && stopped.ServingVotes() >= stopped.Majority() {
			same(t, g, do(t, stopped, m.Subject, fettle.QuorumStart))
		}
		if m.Serving == fettle.No && g.ServingVotes() >= g.Majority() {
			same(t, g, do(t, g, m.Subject, fettle.QuorumStart, fettle.QuorumStop))
		}
		if before, after := g.ServingVotes(), stopped.ServingVotes(); after > before || before-after > 1 {
			t.Fatalf("stopping one took %d votes", before-after)
		}
		for _, e := range []fettle.QuorumEffect{fettle.QuorumStop, fettle.QuorumRemove, fettle.QuorumPromote, fettle.QuorumYield} {
			once := do(t, g, m.Subject, e)
			same(t, once, do(t, once, m.Subject, e)) // what is so stays so
		}
		back := do(t, g, m.Subject, fettle.QuorumRemove, fettle.QuorumLearner)
		learner, ok := back.Member(m.Subject)
		if !ok || learner.Voter || learner.ID != "" || learner.Serving != fettle.Unknown || learner.LogLost != fettle.Unknown || learner.Leader {
			t.Fatalf("who comes back is new: %+v", learner)
		}
		if !slices.IsSortedFunc(back.Members, func(a, b fettle.QuorumMember) int { return strings.Compare(string(a.Subject), string(b.Subject)) }) {
			t.Fatal("not sorted")
		}
		leaders := 0
		for _, has := range do(t, do(t, g, m.Subject, fettle.QuorumPromote), m.Subject, fettle.QuorumLead).Members {
			if has.Leader {
				leaders++
			}
		}
		if leaders != 1 {
			t.Fatalf("%d leaders", leaders)
		}
	})
}
