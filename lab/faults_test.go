package lab

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRuleset(t *testing.T) {
	f := newFaults()
	f.cut[way{"a", "b"}] = true
	f.cut[way{from: "c"}], f.cut[way{to: "c"}] = true, true
	f.loss[way{"b", "a"}] = 12.5
	const want = `table bridge lab
delete table bridge lab
table bridge lab {
	chain lab_forward {
		type filter hook forward priority 0; policy accept;
		oifname "c" counter drop
		iifname "a" oifname "b" counter drop
		iifname "c" counter drop
		iifname "b" oifname "a" ether type ip numgen random mod 10000 <= 1249 counter drop
	}
	chain lab_input {
		type filter hook input priority 0; policy accept;
		iifname "c" counter drop
	}
	chain lab_output {
		type filter hook output priority 0; policy accept;
		oifname "c" counter drop
	}
}
`
	for range 20 { // whatever the order of the maps
		if got := f.clone().ruleset(); got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
	}
	name := func(port string) string { return strings.ToUpper(port) }
	if got := f.text(name); !slices.Equal(got, []string{"cut  -> C", "cut A -> B", "cut C -> ", "loss B -> A 12.5%"}) {
		t.Errorf("text %q", got)
	}
}

func TestQueueRulesTakeTheExactOneFirst(t *testing.T) {
	f := newFaults()
	f.delay[way{to: "b"}] = wait{base: 1, queue: 1}
	f.delay[way{"a", "b"}] = wait{base: 2, queue: 2}
	const want = `*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
-A FORWARD -m physdev --physdev-is-bridged --physdev-in a --physdev-out b -j NFQUEUE --queue-num 2 --queue-bypass
-A FORWARD -m physdev --physdev-is-bridged --physdev-out b -j NFQUEUE --queue-num 1 --queue-bypass
COMMIT
`
	if got := f.queueRules(); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestDraw(t *testing.T) {
	d := wait{base: 10 * time.Millisecond, jitter: 2 * time.Millisecond}
	for range 1000 {
		if got := d.draw(); got < 8*time.Millisecond || got > 12*time.Millisecond {
			t.Fatalf("drew %v", got)
		}
	}
	if got := (wait{base: time.Second}).draw(); got != time.Second {
		t.Errorf("drew %v", got)
	}
}
