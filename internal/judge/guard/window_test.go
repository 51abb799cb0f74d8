package guard

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"fettle/internal/fettle"
)

func TestWindows(t *testing.T) {
	from := time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC)
	once := Window{ID: "m", All: true, From: from, Until: from.Add(2 * time.Hour)}
	daily := once
	daily.Every = 24 * time.Hour
	endless := Window{ID: "m", All: true, From: from}
	for _, c := range []struct {
		name  string
		w     Window
		at    time.Duration // since from
		open  bool
		turns time.Duration // since from; negative: never
		over  bool
	}{
		{"before", once, -time.Hour, false, 0, false},
		{"at its beginning", once, 0, true, 2 * time.Hour, false},
		{"at its end", once, 2 * time.Hour, false, -1, true},
		{"every day, before the first", daily, -48 * time.Hour, false, 0, false},
		{"every day, between", daily, 3 * time.Hour, false, 24 * time.Hour, false},
		{"every day, the tenth", daily, 9*24*time.Hour + time.Minute, true, 9*24*time.Hour + 2*time.Hour, false},
		{"every day, the end of the tenth", daily, 9*24*time.Hour + 2*time.Hour, false, 10 * 24 * time.Hour, false},
		{"without an end", endless, 1000 * time.Hour, true, -1, false},
	} {
		now := from.Add(c.at)
		_, open := c.w.Open(now)
		turns, ok := c.w.Turns(now)
		if open != c.open || ok != (c.turns >= 0) || ok && !turns.Equal(from.Add(c.turns)) || c.w.Over(now) != c.over {
			t.Errorf("%s: open %v, turns %v %v, over %v", c.name, open, turns, ok, c.w.Over(now))
		}
	}
}

// TestWindowTurns: nothing changes between now and when a window says that it turns,
// and something does then.
func TestWindowTurns(t *testing.T) {
	from := time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC)
	rapid.Check(t, func(r *rapid.T) {
		w := Window{ID: "m", Hosts: []fettle.Subject{host}, From: from}
		if rapid.Bool().Draw(r, "ends") {
			w.Until = from.Add(time.Duration(rapid.Int64Range(1, 100).Draw(r, "minutes")) * time.Minute)
			if rapid.Bool().Draw(r, "repeats") {
				w.Every = w.Until.Sub(from) + time.Duration(rapid.Int64Range(1, 100).Draw(r, "pause"))*time.Minute
			}
		}
		if err := w.Check(); err != nil {
			r.Fatal(err)
		}
		now := from.Add(time.Duration(rapid.Int64Range(-100, 1000).Draw(r, "now")) * time.Minute)
		until, open := w.Open(now)
		turn, turns := w.Turns(now)
		if !turns {
			if _, later := w.Open(now.Add(10000 * time.Hour)); later != open {
				r.Fatalf("it never turns, and is %v now and %v later", open, later)
			}
			return
		}
		if !turn.After(now) || open && !until.Equal(turn) {
			r.Fatalf("open %v until %v, turns at %v, now %v", open, until, turn, now)
		}
		if _, still := w.Open(turn.Add(-time.Nanosecond)); still != open {
			r.Fatalf("it was %v, and %v before it turned", open, still)
		}
		if _, after := w.Open(turn); after == open {
			r.Fatalf("it did not turn at %v", turn)
		}
	})
}

func TestWindowCheck(t *testing.T) {
	from := time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC)
	for name, w := range map[string]Window{
		"no name":               {All: true, From: from},
		"no beginning":          {ID: "m", All: true},
		"no host":               {ID: "m", From: from},
		"all and some":          {ID: "m", From: from, All: true, Hosts: []fettle.Subject{host}},
		"ends before it begins": {ID: "m", From: from, All: true, Until: from},
		"repeats without end":   {ID: "m", From: from, All: true, Every: time.Hour},
		"repeats too soon":      {ID: "m", From: from, All: true, Until: from.Add(time.Hour), Every: time.Hour},
	} {
		if w.Check() == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}
