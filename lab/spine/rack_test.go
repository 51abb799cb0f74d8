//go:build lab

package spine_test

import (
	"testing"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// A rack with its switch is cut off: three of seven hosts, fewer than would make those
// who see it doubt themselves. That is one incident about
// what they share, which says that rack and switch cannot be told apart, and none about
// a host, also where one of them comes back later than the others; it ends when they are
// back.
func TestLabRackCutOff(t *testing.T) {
	f := start(t, 7, spine.Options{Prepare: func(l *lab.Lab) {
		if _, err := l.Host(1).Exec(t.Context(), "/bin/sh", "-c", `mkdir -p /etc/fettle && cat > /etc/fettle/topology.yaml <<'EOF'
hosts:
  - {match: [h1, "h[5-7]"], rack: r1, switch: [s1]}
  - {match: ["h[2-4]"], rack: r2, switch: [s2]}
EOF`); err != nil {
			t.Fatal(err)
		}
	}})
	spine.Until(t, "all hosts to see each other", func() bool { g := f.Gossip(); return g.Members == 7 && g.Seen == 6 })
	before := f.Snapshot()
	if err := f.Partition(t.Context(), f.Hosts()[1:4], append([]*lab.Host{f.Host(1)}, f.Hosts()[4:]...)); err != nil {
		t.Fatal(err)
	}
	in := f.WaitFor("fettle.rack_silent", "rack:r2", fettle.Escalated)
	spine.Until(t, "it to explain every host's silence, and the switch's", func() bool {
		explains := map[fettle.Code]int{}
		for _, k := range f.Incident(in.ID).Conditions {
			explains[k.Code]++
		}
		return explains["fettle.switch_silent"] == 1 && explains["fettle.agent_lost"] == 3
	})
	if d := f.Incident(in.ID).Diagnosis; len(d.Unsettled) != 1 || d.Unsettled[0].Causes[0] != key("fettle.switch_silent", "switch:s2") {
		t.Errorf("that it may be the switch is not said: %+v", d)
	}
	late := f.Host(4)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(f.HealExcept(t.Context(), late))
	spine.Until(t, "two of the rack to be back", func() bool { return f.Connected(f.Host(2)) && f.Connected(f.Host(3)) })
	spine.Until(t, "the third to call in vain", func() bool { return f.Shell(late, "ss -Htn state syn-sent dport = :7401") != "" })
	must(f.Heal(t.Context()))
	f.CheckUntouched(f.WaitFor("fettle.rack_silent", "rack:r2", fettle.Resolved))
	f.CheckOnly(in.Cause)
	f.CheckUnchanged(before)
}
