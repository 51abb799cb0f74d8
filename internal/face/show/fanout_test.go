package show_test

import (
	"bytes"
	"testing"
	"time"

	"fettle/internal/face/show"
	"fettle/internal/fleet/fanout"
)

// TestFanout: lines come whole, whatever the pieces they arrive in, each with its
// host; another machine's control characters reach no terminal.
func TestFanout(t *testing.T) {
	var out, errs bytes.Buffer
	f := &show.Fanout{Out: &show.Printer{W: &out, Color: true}, Err: &show.Printer{W: &errs}}
	c := &fanout.Collector{}
	for _, e := range []fanout.Event{
		{Kind: fanout.Output, Host: "web1", Stream: fanout.Stdout, Data: []byte("one\ntw")},
		{Kind: fanout.Output, Host: "web2", Stream: fanout.Stdout, Data: []byte("three\r\n\x1b[31mred\x1b[2J\x07")},
		{Kind: fanout.Output, Host: "web1", Stream: fanout.Stderr, Data: []byte("oh")},
		{Kind: fanout.Quiet, Host: "web1", Why: "no answer for 1s"},
		{Kind: fanout.Answers, Host: "web1"},
		{Kind: fanout.Output, Host: "web1", Stream: fanout.Stdout, Data: []byte("o\n")},
		{Kind: fanout.Ended, Host: "web1", Result: fanout.Result{Host: "web1", Outcome: fanout.Succeeded}},
		{Kind: fanout.Clipped, Host: "web2", Why: "more than 5 bytes"},
		{Kind: fanout.Ended, Host: "web2", Result: fanout.Result{Host: "web2", Outcome: fanout.Signalled, Signal: "KILL", Clipped: true}},
		{Kind: fanout.Ended, Host: "web3", Result: fanout.Result{Host: "web3", Outcome: fanout.Hung, Why: "it says nothing", Hint: "look at its console"}},
		{Kind: fanout.Ended, Host: "web4", Result: fanout.Result{Host: "web4", Outcome: fanout.Skipped, Why: "1 did not succeed"}},
	} {
		f.Add(e)
		c.Add(e)
	}
	dim := func(host string) string { return "\x1b[2m" + host + ":\x1b[0m " }
	wantOut := dim("web1") + "one\n" + dim("web2") + "three\n" + dim("web1") + "two\n" + dim("web2") + "?[31mred?[2J?\n"
	wantErrs := "web1: no answer for 1s\nweb1: answers again\nweb1: oh\nweb2: more than 5 bytes\nweb2: ended by SIGKILL\nweb3: hung: it says nothing\n"
	if out.String() != wantOut {
		t.Errorf("out\n%q, want\n%q", out.String(), wantOut)
	}
	if errs.String() != wantErrs {
		t.Errorf("errs\n%q, want\n%q", errs.String(), wantErrs)
	}

	var text bytes.Buffer
	p := &show.Printer{W: &text}
	p.FanoutGroups(c.Groups())
	p.FanoutSummary(fanout.Summary{Hosts: 4, Took: 1200 * time.Millisecond, Stopped: "1 did not succeed", Counts: map[fanout.Outcome]int{
		fanout.Succeeded: 1, fanout.Signalled: 1, fanout.Hung: 1, fanout.Skipped: 1,
	}}, c.Groups(), true)
	want := `web1
one
two
oh

web2 ended by SIGKILL
three
?[31mred?[2J?
(cut: the rest of the output was thrown away)

web3 hung: it says nothing
hint: look at its console

web4 skipped: 1 did not succeed
4 hosts in 1.2 s: 1 succeeded, 1 signalled, 1 hung, 1 skipped
  stopped: 1 did not succeed
  ended by SIGKILL: web2
  hung: it says nothing: web3
    hint: look at its console
  skipped: 1 did not succeed: web4
`
	if text.String() != want {
		t.Errorf("got\n%s\nwant\n%s", text.String(), want)
	}
}
