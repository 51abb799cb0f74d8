package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fettle/internal/fleet/fanout"
)

// hostFunc is what a pretended host does.
type hostFunc func(ctx context.Context, s *fanout.Sink) (fanout.Status, error)

// pretend is a Runner over pretended hosts, and counts what is done at once.
type pretend struct {
	hosts       map[string]hostFunc
	others      hostFunc
	now, most   atomic.Int32
	mu          sync.Mutex
	began       []string
	calledTwice bool
}

func (p *pretend) Run(ctx context.Context, h fanout.Host, _ fanout.Command, s *fanout.Sink) (fanout.Status, error) {
	n := p.now.Add(1)
	defer p.now.Add(-1)
	for most := p.most.Load(); n > most && !p.most.CompareAndSwap(most, n); most = p.most.Load() {
	}
	p.mu.Lock()
	for _, b := range p.began {
		p.calledTwice = p.calledTwice || b == h.Name
	}
	p.began = append(p.began, h.Name)
	p.mu.Unlock()
	if f := p.hosts[h.Name]; f != nil {
		return f(ctx, s)
	}
	return p.others(ctx, s)
}

// takes is a host on which the command takes its time, says text and ends.
func takes(d time.Duration, text string, status fanout.Status) hostFunc {
	return func(ctx context.Context, s *fanout.Sink) (fanout.Status, error) {
		s.Reached()
		s.Alive()
		s.Begun()
		s.Output(fanout.Stdout, []byte(text))
		tick := time.NewTicker(500 * time.Millisecond) // as keepalives are answered
		defer tick.Stop()
		end := time.After(d)
		for {
			select {
			case <-end:
				return status, nil
			case <-tick.C:
				s.Alive()
			case <-ctx.Done():
				return fanout.Status{}, ctx.Err()
			}
		}
	}
}

// silent is a host that does what steps do, and nothing after that.
func silent(steps ...func(*fanout.Sink)) hostFunc {
	return func(ctx context.Context, s *fanout.Sink) (fanout.Status, error) {
		for _, step := range steps {
			step(s)
		}
		<-ctx.Done()
		return fanout.Status{}, ctx.Err()
	}
}

func hosts(names ...string) []fanout.Host {
	var out []fanout.Host
	for _, n := range names {
		out = append(out, fanout.Host{Name: n})
	}
	return out
}

func many(n int) []fanout.Host {
	var out []fanout.Host
	for i := range n {
		out = append(out, fanout.Host{Name: fmt.Sprintf("h%d", i+1)})
	}
	return out
}

// record runs and keeps the events, with the time of each since the beginning.
type record struct {
	events  []fanout.Event
	at      []time.Duration
	results map[string]fanout.Result
	sum     fanout.Summary
}

func run(t *testing.T, ctx context.Context, hosts []fanout.Host, o fanout.Options, p *pretend) *record {
	t.Helper()
	r := &record{results: map[string]fanout.Result{}}
	begin := time.Now()
	r.sum = fanout.Run(ctx, hosts, fanout.Command{Argv: []string{"true"}}, o, p, func(e fanout.Event) {
		r.events, r.at = append(r.events, e), append(r.at, time.Since(begin))
		if _, over := r.results[e.Host]; over {
			t.Errorf("%s has ended, and then: %+v", e.Host, e)
		}
		if e.Kind == fanout.Ended {
			r.results[e.Host] = e.Result
		}
	})
	if len(r.results) != len(hosts) || r.sum.Hosts != len(hosts) {
		t.Errorf("%d results and %d in the summary of %d hosts", len(r.results), r.sum.Hosts, len(hosts))
	}
	if p.calledTwice {
		t.Error("a host was given the command twice")
	}
	return r
}

// when says when something was told of a host.
func (r *record) when(host string, kind fanout.Kind) time.Duration {
	for i, e := range r.events {
		if e.Host == host && e.Kind == kind {
			return r.at[i]
		}
	}
	return -1
}

var ok = takes(0, "fine\n", fanout.Status{})

// TestOutcomes: each way to end is told apart, and whether the command may have
// run.
func TestOutcomes(t *testing.T) {
	reached, alive, begun := (*fanout.Sink).Reached, (*fanout.Sink).Alive, (*fanout.Sink).Begun
	broken := func(steps ...func(*fanout.Sink)) hostFunc {
		return func(_ context.Context, s *fanout.Sink) (fanout.Status, error) {
			for _, step := range steps {
				step(s)
			}
			return fanout.Status{}, errors.New("connection reset")
		}
	}
	refuses := func(_ context.Context, s *fanout.Sink) (fanout.Status, error) {
		alive(s)
		begun(s)
		return fanout.Status{}, fanout.Refuse("allow it", "not allowed")
	}
	for _, c := range []struct {
		name  string
		host  hostFunc
		want  fanout.Outcome
		began bool
		after time.Duration
		why   string
		exit  int
	}{
		{"succeeds", takes(0, "", fanout.Status{}), fanout.Succeeded, true, 0, "", 0},
		{"takes long", takes(time.Hour, "", fanout.Status{}), fanout.Succeeded, true, time.Hour, "", 0},
		{"fails", takes(0, "", fanout.Status{Exit: 3}), fanout.Failed, true, 0, "", 1},
		{"killed", takes(0, "", fanout.Status{Signal: "KILL"}), fanout.Signalled, true, 0, "", 1},
		{"refuses", refuses, fanout.Refused, false, 0, "not allowed", 1},
		{"no connection", silent(), fanout.Unreachable, false, time.Second, "no connection within 1s", 2},
		{"no banner", silent(reached), fanout.Hung, false, time.Second, "accepts connections and says nothing", 2},
		{"hangs at login", silent(reached, alive), fanout.Hung, false, 10 * time.Second, "began the login", 2},
		{"hangs in mid-command", silent(reached, alive, begun), fanout.Hung, true, 10 * time.Second, "the command had begun", 2},
		{"reset before", broken(reached), fanout.Unreachable, false, 0, "reset", 2},
		{"reset in mid-command", broken(reached, alive, begun), fanout.Lost, true, 0, "reset", 2},
		{"a hop first", silent(func(s *fanout.Sink) { <-time.After(800 * time.Millisecond); s.Hop() }), fanout.Unreachable, false, 1800 * time.Millisecond, "no connection", 2},
		{"allowed longer", silent(func(s *fanout.Sink) { s.Allow(5 * time.Second) }), fanout.Unreachable, false, 5 * time.Second, "no connection within 5s", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := run(t, t.Context(), hosts("a"), fanout.Options{}, &pretend{others: c.host})
				got := r.results["a"]
				if got.Outcome != c.want || got.Began != c.began || got.Took != c.after || !strings.Contains(got.Why, c.why) {
					t.Errorf("%+v, want %s, began %v, after %s, %q", got, c.want, c.began, c.after, c.why)
				}
				if r.sum.Exit() != c.exit {
					t.Errorf("exit status %d, want %d", r.sum.Exit(), c.exit)
				}
			})
		})
	}
}

// TestNamedInASecond: a host that gives no sign of life is named in a second,
// wherever it stopped, and the others have their results before that.
func TestNamedInASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reached, alive, begun := (*fanout.Sink).Reached, (*fanout.Sink).Alive, (*fanout.Sink).Begun
		p := &pretend{others: ok, hosts: map[string]hostFunc{
			"off": silent(), "frozen": silent(reached), "midway": silent(reached, alive, begun),
			"slow": func(ctx context.Context, s *fanout.Sink) (fanout.Status, error) {
				reached(s)
				alive(s)
				begun(s)
				<-time.After(3 * time.Second)
				alive(s)
				return fanout.Status{}, nil
			},
		}}
		r := run(t, t.Context(), append(hosts("off", "frozen", "midway", "slow"), many(50)...), fanout.Options{}, p)
		for _, h := range []string{"off", "frozen"} {
			if at := r.when(h, fanout.Ended); at != time.Second {
				t.Errorf("%s was given up after %s", h, at)
			}
		}
		for _, h := range []string{"midway", "slow"} {
			if at := r.when(h, fanout.Quiet); at != time.Second {
				t.Errorf("%s was named after %s", h, at)
			}
		}
		if at := r.when("slow", fanout.Answers); at != 3*time.Second || r.results["slow"].Outcome != fanout.Succeeded {
			t.Errorf("slow answered after %s: %+v", at, r.results["slow"])
		}
		if at := r.when("h50", fanout.Ended); at != 0 {
			t.Errorf("a healthy host waited %s for the others", at)
		}
		if r.sum.Exit() != 2 {
			t.Errorf("exit status %d", r.sum.Exit())
		}
	})
}

func TestParallelAndBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := takes(time.Second, "", fanout.Status{})
		p := &pretend{others: second}
		r := run(t, t.Context(), many(100), fanout.Options{Parallel: 7}, p)
		if p.most.Load() != 7 || r.sum.Took != 15*time.Second {
			t.Errorf("%d at once, %s", p.most.Load(), r.sum.Took)
		}
		batch, err := fanout.ParseBatch("15%")
		if err != nil {
			t.Fatal(err)
		}
		// One slow host in the first batch holds the second back.
		p = &pretend{others: second, hosts: map[string]hostFunc{"h2": takes(time.Minute, "", fanout.Status{})}}
		r = run(t, t.Context(), many(9), fanout.Options{Batch: batch}, p)
		if p.most.Load() != 2 || r.when("h3", fanout.Ended) != 61*time.Second {
			t.Errorf("%d at once, the second batch ended after %s", p.most.Load(), r.when("h3", fanout.Ended))
		}
	})
}

// TestStopAfter: once enough did not succeed, nothing more is begun, and what runs
// is let finish.
func TestStopAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pretend{others: takes(time.Minute, "", fanout.Status{}), hosts: map[string]hostFunc{
			"h2": takes(time.Second, "", fanout.Status{Exit: 1}), "h3": silent(), // unreachable counts too
		}}
		r := run(t, t.Context(), many(10), fanout.Options{Parallel: 4, StopAfter: 2}, p)
		if r.sum.Counts[fanout.Succeeded] != 2+1 && r.sum.Counts[fanout.Succeeded] != 2 {
			t.Errorf("%+v", r.sum)
		}
		if r.results["h1"].Outcome != fanout.Succeeded || r.results["h10"].Outcome != fanout.Skipped || r.results["h10"].Began {
			t.Errorf("%+v %+v", r.results["h1"], r.results["h10"])
		}
		if r.sum.Stopped != "2 did not succeed" || r.sum.Exit() != 1 {
			t.Errorf("%+v", r.sum)
		}
		for _, b := range p.began {
			if b == "h6" || b == "h10" {
				t.Errorf("%s was begun after the second failure", b)
			}
		}
	})
}

// TestTimeoutAndInterrupt: what runs is cut off, what was not begun is skipped,
// and neither is called failure.
func TestTimeoutAndInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pretend{others: takes(time.Hour, "", fanout.Status{})}
		r := run(t, t.Context(), many(3), fanout.Options{Parallel: 2, Timeout: time.Minute}, p)
		if r.sum.Took != time.Minute || r.results["h1"].Outcome != fanout.Cut || !r.results["h1"].Began || r.results["h3"].Outcome != fanout.Skipped {
			t.Errorf("%+v %+v", r.sum, r.results)
		}
		if !strings.Contains(r.results["h1"].Why, "the run may take 1m0s") || r.sum.Exit() != 2 {
			t.Errorf("%q, exit status %d", r.results["h1"].Why, r.sum.Exit())
		}
		p = &pretend{others: p.others}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r = run(t, ctx, many(3), fanout.Options{}, p)
		if r.sum.Took != time.Second || r.results["h2"].Outcome != fanout.Cut || r.sum.Exit() != 2 {
			t.Errorf("%+v %+v", r.sum, r.results)
		}
	})
}

func TestOutputIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pretend{others: func(_ context.Context, s *fanout.Sink) (fanout.Status, error) {
			s.Begun()
			for range 100 {
				s.Output(fanout.Stdout, []byte("0123456789"))
			}
			return fanout.Status{}, nil
		}}
		r := run(t, t.Context(), many(1), fanout.Options{Limit: 25}, p)
		var text strings.Builder
		clipped := 0
		for _, e := range r.events {
			text.Write(e.Data)
			if e.Kind == fanout.Clipped {
				clipped++
			}
		}
		if text.String() != "0123456789012345678901234" || clipped != 1 || !r.results["h1"].Clipped || r.results["h1"].Bytes != 1000 {
			t.Errorf("%q, clipped %d times, %+v", text.String(), clipped, r.results["h1"])
		}
	})
}

// TestSlowReader: when it is we who are slow to take the output, no host is called
// silent for it.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pretend{others: takes(time.Second, "x", fanout.Status{})}
		sum := fanout.Run(t.Context(), many(2), fanout.Command{}, fanout.Options{}, p, func(e fanout.Event) {
			if e.Kind == fanout.Output {
				<-time.After(time.Minute)
			}
			if e.Kind == fanout.Quiet {
				t.Errorf("%+v", e)
			}
		})
		if sum.Exit() != 0 {
			t.Errorf("%+v", sum)
		}
	})
}

// TestLateTalk: what a Runner tells after it has returned is not told.
func TestLateTalk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late sync.WaitGroup
		p := &pretend{others: func(_ context.Context, s *fanout.Sink) (fanout.Status, error) {
			late.Go(func() {
				<-time.After(time.Millisecond)
				s.Output(fanout.Stdout, []byte("late"))
			})
			return fanout.Status{}, nil
		}}
		p.hosts = map[string]hostFunc{"h2": takes(time.Second, "", fanout.Status{})}
		run(t, t.Context(), many(2), fanout.Options{}, p)
		late.Wait()
	})
}

func TestBatch(t *testing.T) {
	for text, want := range map[string]int{"": 33, "5": 5, "100": 33, "10%": 4, "1%": 1, "100%": 33} {
		b, err := fanout.ParseBatch(text)
		if err != nil || b.Of(33) != want || b.String() != text {
			t.Errorf("ParseBatch(%q) is %d of 33 (%v), %q", text, b.Of(33), err, b)
		}
	}
	for _, bad := range []string{"0", "-1", "+1", "x", "%", "0%", "101%", "1.5", "5 %"} {
		if b, err := fanout.ParseBatch(bad); err == nil {
			t.Errorf("ParseBatch(%q) = %v", bad, b)
		}
	}
}

func TestExitRule(t *testing.T) {
	for _, c := range []struct {
		counts map[fanout.Outcome]int
		want   int
	}{
		{map[fanout.Outcome]int{fanout.Succeeded: 3}, 0},
		{map[fanout.Outcome]int{fanout.Succeeded: 2, fanout.Failed: 1}, 1},
		{map[fanout.Outcome]int{fanout.Refused: 1, fanout.Hung: 2}, 1},
		{map[fanout.Outcome]int{fanout.Succeeded: 2, fanout.Lost: 1}, 2},
		{map[fanout.Outcome]int{fanout.Skipped: 1}, 2},
		{nil, 2},
	} {
		hosts := 0
		for _, n := range c.counts {
			hosts += n
		}
		if got := (fanout.Summary{Hosts: hosts, Counts: c.counts}).Exit(); got != c.want {
			t.Errorf("%v: %d, want %d", c.counts, got, c.want)
		}
	}
}
