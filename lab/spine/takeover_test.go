//go:build lab

package spine_test

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// takeoverBar is how long it may take at worst until another server leads.
const takeoverBar = 5 * time.Second

// takeover is what followed when the server that led was ended, each part counted from
// then on.
type takeover struct {
	what    momentOf
	at      string        // of what, as the part says that died or was held
	leads   time.Duration // another server is elected
	heard   time.Duration // the first agent is connected to it
	all     time.Duration // the last one
	told    time.Duration // it knows what the last one sees
	resumed time.Duration // the story of what was being mended goes on
	mended  time.Duration // it is over
}

// said is when a server logged a line with this text, after a time, oldest first.
func said(f *spine.Fleet, h *lab.Host, text string, after time.Time) []time.Time {
	out := f.Shell(h, "journalctl -b -o short-unix --no-pager -u "+spine.ServerUnit+" | grep -F '"+text+"' || true")
	var all []time.Time
	for line := range strings.Lines(out) {
		first, _, _ := strings.Cut(line, " ")
		sec, frac, _ := strings.Cut(first, ".")
		s, err1 := strconv.ParseInt(sec, 10, 64)
		us, err2 := strconv.ParseInt(frac, 10, 64)
		if at := time.Unix(s, us*1000); err1 == nil && err2 == nil && at.After(after) {
			all = append(all, at)
		}
	}
	return all
}

// awaitLeader waits until another server than one leads, and says when it began.
func awaitLeader(t *testing.T, f *spine.Fleet, was *lab.Host, at time.Time) (*lab.Host, time.Duration) {
	t.Helper()
	var now *lab.Host
	spine.Until(t, "another server to lead", func() bool { now = f.Leader(); return now != nil && now != was })
	var began []time.Time
	spine.Until(t, now.Name()+" to say that it leads", func() bool {
		began = said(f, now, `msg="this server leads"`, at)
		return len(began) > 0
	})
	took := began[0].Sub(at)
	if took > takeoverBar {
		t.Errorf("%s leads %v after %s was ended, at worst it may be %v", now.Name(), took, was.Name(), takeoverBar)
	}
	return now, took
}

// awaitBack waits until a server that was ended is one of the others again: Fettle starts
// it, or help does. Ran is the invocation that was ended, after when another one led.
func awaitBack(t *testing.T, f *spine.Fleet, h *lab.Host, ran string, after time.Time, help bool) {
	t.Helper()
	spine.Until(t, h.Name()+"'s server to be one of the others again", func() bool {
		if help && f.Property(h, spine.ServerUnit, "ActiveState") == "failed" {
			f.Try(h, "systemctl start "+spine.ServerUnit)
		}
		return f.Property(h, spine.ServerUnit, "InvocationID") != ran && len(said(f, h, `msg="who leads is known"`, after)) > 0
	})
}

// The server that leads is stopped, as before an upgrade of its host. It hands over:
// nobody waits for its lease, and what fails just then is mended by the next one.
func TestLabServersStopped(t *testing.T) {
	f := start(t, 3, spine.Options{Servers: 3})
	var all []time.Duration
	for i := range 6 {
		was := f.Leader()
		if was == nil {
			t.Fatal("no server leads")
		}
		name, h := fmt.Sprintf("other-%d.service", i), f.Hosts()[i%3]
		f.Service(h, name, "ExecStart=/bin/sleep infinity")
		ran, at := f.Property(was, spine.ServerUnit, "InvocationID"), time.Now()
		f.Shell(was, "systemctl stop "+spine.ServerUnit)
		now, took := awaitLeader(t, f, was, at)
		all = append(all, took)
		t.Logf("%s was stopped, %s leads after %v", was.Name(), now.Name(), took.Round(time.Millisecond))
		f.Shell(h, "systemctl kill -s KILL "+name)
		in := f.WaitFor(failed, f.Unit(h, name), fettle.Resolved)
		f.CheckMended(in, "start", "start")
		f.CheckStarts(h, name, 2)
		f.Shell(was, "systemctl start "+spine.ServerUnit)
		awaitBack(t, f, was, ran, at.Add(took), false)
	}
	slices.Sort(all)
	t.Logf("from stop to the next leader: p50 %v, worst %v", all[len(all)/2], all[len(all)-1])
}

// parts fills in what the new leader's log and the story tell.
func (o *takeover) parts(f *spine.Fleet, leader *lab.Host, at time.Time, in fettle.Incident) {
	last := func(text string) (first, last time.Duration) {
		all := said(f, leader, text, at)
		if len(all) == 0 {
			return 0, 0
		}
		return all[0].Sub(at), all[min(len(all), len(f.Hosts()))-1].Sub(at)
	}
	o.heard, o.all = last(`msg="an agent connected"`)
	_, o.told = last(`msg="an agent has told all that it sees"`)
	for _, e := range in.Story {
		if d := e.At.Sub(at); d > o.leads {
			o.resumed = d
			break
		}
	}
	o.mended = max(0, in.Ended.Sub(at)) // it may have been the last record
}

// reportTakeovers prints the parts of all, each at its median, its 99th part in a hundred, and
// worst.
func reportTakeovers(t *testing.T, all []takeover) {
	t.Helper()
	var b strings.Builder
	ms := func(d time.Duration) string { return d.Round(time.Millisecond).String() }
	fmt.Fprintf(&b, "%-52s %8s %8s %8s %8s %8s %8s\n", "the leader was killed", "leads", "heard", "all", "told", "resumed", "mended")
	for _, o := range all {
		fmt.Fprintf(&b, "%-52s %8s %8s %8s %8s %8s %8s\n", o.what.String()+": "+o.at, ms(o.leads), ms(o.heard), ms(o.all), ms(o.told), ms(o.resumed), ms(o.mended))
	}
	row := func(name string, at func(int) int) {
		part := func(of func(takeover) time.Duration) string {
			sorted := slices.SortedFunc(slices.Values(all), func(x, y takeover) int { return cmp.Compare(of(x), of(y)) })
			return ms(of(sorted[at(len(sorted))]))
		}
		fmt.Fprintf(&b, "%-52s %8s %8s %8s %8s %8s %8s\n", name, part(func(o takeover) time.Duration { return o.leads }),
			part(func(o takeover) time.Duration { return o.heard }), part(func(o takeover) time.Duration { return o.all }),
			part(func(o takeover) time.Duration { return o.told }), part(func(o takeover) time.Duration { return o.resumed }),
			part(func(o takeover) time.Duration { return o.mended }))
	}
	if len(all) > 0 {
		row("p50", func(n int) int { return n / 2 })
		row("p99", func(n int) int { return n * 99 / 100 })
		row("worst", func(n int) int { return n - 1 })
	}
	t.Logf("%d takeovers, each part since the kill:\n%s", len(all), b.String())
}
