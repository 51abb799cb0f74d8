package diagnose

import (
	"fmt"
	"strings"
	"testing"

	"fettle/internal/fettle"
)

// TestDoubt says who is ill when six things seem dead to w1, for different
// reasons and with different others looking.
func TestDoubt(t *testing.T) {
	six := func(format string, more ...any) string {
		var b strings.Builder
		for i := range 6 {
			fmt.Fprintf(&b, format+"\n", append([]any{i}, more...)...)
		}
		return b.String()
	}
	for _, c := range []struct {
		name, world string
		ill         string
		raised      int // conditions that are still causes or effects of the usual kind
	}{
		{"nobody else looks", six("sees host:w1 host:h%d unreachable"), "host:w1", 0},
		{"its conditions are taken back", six("sees host:w1 host:h%[1]d unreachable\nraised x.dead host:h%[1]d seen=9s by=w1"), "host:w1", 0},
		{"seen in a critical condition only", six("raised x.dead host:h%d seen=9s by=w1"), "host:w1", 0},
		{"not in a warning", six("raised x.old host:h%d seen=9s by=w1"), "", 6},
		{"one other confirms", six("sees host:w1 host:h%[1]d unreachable\nsees host:w2 host:h%[1]d unreachable\nsees host:w2 host:g%[1]d ok\nsees host:w2 host:f%[1]d ok\nraised x.dead host:h%[1]d seen=9s by=w1,w2"), "", 6},
		{"one other denies", six("sees host:w1 host:h%[1]d unreachable\nsees host:w2 host:h%[1]d ok\nraised x.dead host:h%[1]d seen=9s by=w1"), "host:w1", 0},
		{"one confirms and one denies", six("sees host:w1 host:h%[1]d unreachable\nsees host:w2 host:h%[1]d unreachable\nsees host:w3 host:h%[1]d ok"), "host:w1 host:w2", 0},
		{"its probes are cut off", six("sees host:w1 host:h%d timed-out"), "host:w1", 0},
		{"its probes are cut off and another is not answered", six("sees host:w1 host:h%[1]d timed-out\nsees host:w2 host:h%[1]d unreachable\nsees host:w2 host:g%[1]d ok\nsees host:w2 host:f%[1]d ok"), "", 0},
		{"another's cut off probe confirms nothing", six("sees host:w1 host:h%[1]d unreachable\nsees host:w2 host:h%[1]d timed-out\nsees host:w2 host:g%[1]d ok\nsees host:w2 host:f%[1]d ok"), "host:w1", 0},
		{"it may not look", six("sees host:w1 host:h%d permission-denied"), "", 0},
		{"it sees as many well", six("sees host:w1 host:h%[1]d unreachable\nsees host:w1 host:g%[1]d ok"), "", 0},
		{"they are on its own machine", six("sees host:w1 unit:w1/u%[1]d unreachable\nraised x.failed unit:w1/u%[1]d seen=9s by=w1"), "", 6},
		{"they run on its own machine", six("edge part:s/p%[1]d runs-on host:w1\nsees host:w1 part:s/p%[1]d unreachable\nraised x.lost part:s/p%[1]d seen=9s by=w1"), "", 6},
		{"too few", strings.Join(strings.Split(six("sees host:w1 host:h%d unreachable"), "\n")[:4], "\n"), "", 0},
		{"two who say the same confirm each other", six("raised x.dead host:h%[1]d seen=9s by=w1,w2"), "", 6},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			story := "condition x.dead host network critical probe=x.p\ncondition x.old host host warning\n" +
				"condition x.failed unit host critical\ncondition x.lost part data critical\n" + c.world + "\nwant\n"
			in, err := parseIncident(story)
			if err != nil {
				t.Fatal(err)
			}
			var ill []string
			raised := 0
			groups := in.diagnose(t, in.catalogue)
			for _, g := range groups {
				for _, k := range g.Diagnosis.Ill {
					ill = append(ill, string(k.Subject))
				}
				if len(g.Diagnosis.Ill) == 0 {
					raised += len(g.Members)
				} else if len(g.Members) > 0 && len(g.Diagnosis.Look) == 0 {
					t.Error("nobody else is asked to look")
				}
			}
			if strings.Join(ill, " ") != c.ill || raised != c.raised {
				t.Errorf("ill: %v (want %s), raised: %d (want %d)\n%s", ill, c.ill, raised, c.raised, printGroups(groups))
			}
		})
	}
}

// TestDoubtEnds: when the observer sees well again, or somebody confirms it, what
// it said counts again.
func TestDoubtEnds(t *testing.T) {
	var b strings.Builder
	for i := range 6 {
		fmt.Fprintf(&b, "sees host:w1 host:h%[1]d unreachable\nraised x.dead host:h%[1]d clear=1s seen=9s by=w1\n", i)
	}
	in, err := parseIncident("condition x.dead host network critical probe=x.p\n" + b.String() + "\nwant\n")
	if err != nil {
		t.Fatal(err)
	}
	d := mustNew(t, in.catalogue)
	d.Load(in.w, epoch)
	if g := d.Groups(); len(g) != 1 || len(g[0].Diagnosis.Ill) != 1 || len(g[0].Members) != 6 {
		t.Fatalf("want one group about w1:\n%s", printGroups(g))
	}
	var changed []fettle.Subject
	for i := range 3 {
		s := fettle.HostSubject(fmt.Sprintf("h%d", i))
		in.w.Observe(fettle.Observation{Subject: s, Host: "host:w2", Probe: "x.sight", Asked: at(20), Reason: fettle.Unreachable})
		changed = append(changed, s)
	}
	got := d.Update(in.w, at(21), changed...)
	gone := 0
	for _, g := range got {
		if g.Gone {
			gone++
			if g.Key != (fettle.ConditionKey{Subject: "host:w1"}) {
				t.Errorf("%v is gone", g.Key)
			}
		}
	}
	if gone != 1 || len(d.Groups()) != 6 {
		t.Errorf("want the doubt gone and six incidents; Update returned:\n%s\nand there are:\n%s", printGroups(got), printGroups(d.Groups()))
	}
}
