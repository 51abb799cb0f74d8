package fanout_test

import (
	"fmt"
	"runtime"
	"testing"

	"fettle/internal/fleet/fanout"
)

func TestGroups(t *testing.T) {
	c := &fanout.Collector{}
	say := func(host, out, errs string, r fanout.Result) {
		r.Host = host
		for _, b := range []byte(out) { // in pieces of any size
			c.Add(fanout.Event{Kind: fanout.Output, Host: host, Stream: fanout.Stdout, Data: []byte{b}})
		}
		c.Add(fanout.Event{Kind: fanout.Output, Host: host, Stream: fanout.Stderr, Data: []byte(errs)})
		c.Add(fanout.Event{Kind: fanout.Ended, Host: host, Result: r})
	}
	good := fanout.Result{Outcome: fanout.Succeeded}
	say("web2", "6.1.0\n", "", good)
	say("db1", "6.2.0\n", "", good)
	say("web10", "6.1.0\n", "", good)
	say("web1", "6.1.0\n", "", good)
	say("web3", "6.1.0\n", "", fanout.Result{Outcome: fanout.Failed, Exit: 1})
	say("web4", "", "6.1.0\n", good) // the same, on the other stream
	got := ""
	for _, g := range c.Groups() {
		got += fmt.Sprintf("%s %s out=%q err=%q\n", fanout.Fold(g.Hosts), g.Outcome, g.Stdout, g.Stderr)
	}
	want := `web[1-2,10] succeeded out="6.1.0\n" err=""
db1 succeeded out="6.2.0\n" err=""
web4 succeeded out="" err="6.1.0\n"
web3 failed out="6.1.0\n" err=""
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestCollectorIsBounded: ten thousand hosts that say the same cost one text, and
// those that each say something else cost no more than was allowed.
func TestCollectorIsBounded(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for _, same := range []bool{true, false} {
		before := heap()
		c := &fanout.Collector{Kept: 4 << 20}
		for i := range 10_000 {
			host := fmt.Sprintf("h%d", i)
			data := make([]byte, 4096)
			if !same {
				copy(data, host)
			}
			c.Add(fanout.Event{Kind: fanout.Output, Host: host, Data: data})
			c.Add(fanout.Event{Kind: fanout.Ended, Host: host, Result: fanout.Result{Host: host, Outcome: fanout.Succeeded}})
		}
		if used := int64(heap()) - int64(before); used > 16<<20 {
			t.Errorf("same %v: %d MiB", same, used>>20)
		}
		groups := c.Groups()
		switch cut := groups[0]; {
		case same && (len(groups) != 1 || cut.Clipped):
			t.Errorf("%d groups, the first clipped %v", len(groups), cut.Clipped)
		case !same && (len(groups) != 1025 || !cut.Clipped || len(cut.Hosts) != 10_000-1024):
			t.Errorf("%d groups, the first of %d hosts, clipped %v", len(groups), len(cut.Hosts), cut.Clipped)
		}
		runtime.KeepAlive(c)
	}
}
