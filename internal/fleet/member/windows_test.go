package member

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWindows(t *testing.T) {
	w := DefaultWindows()
	ms := time.Millisecond
	for _, c := range []struct {
		name          string
		m             Measured
		wait, silence time.Duration
		asks          int
	}{
		{"idle network", Measured{RoundTrip: ms}, 100 * ms, 175 * ms, 4},
		{"nothing measured", Measured{}, 100 * ms, 175 * ms, 4},
		{"a quarter lost each way", Measured{RoundTrip: ms, Loss: 438}, 100 * ms, 500 * ms, 17},
		{"busy at both ends", Measured{RoundTrip: ms, OwnDelay: 40 * ms, TheirDelay: 40 * ms}, 243 * ms, 243*ms + 3*(243*ms/4), 4},
		{"busy and lossy", Measured{RoundTrip: ms, OwnDelay: 40 * ms, TheirDelay: 40 * ms, Loss: 500}, 405 * ms, 405*ms + 19*(405*ms/4), 20},
		{"far", Measured{RoundTrip: 200 * ms}, 600 * ms, 1050 * ms, 4},
		{"a member that claims an hour", Measured{TheirDelay: time.Hour}, w.Ceiling, w.Ceiling * 7 / 4, 4},
		{"nonsense", Measured{RoundTrip: -1, OwnDelay: 1<<63 - 1, TheirDelay: 1<<63 - 1, Loss: 5000}, w.Ceiling, w.Ceiling + 39*(w.Ceiling/4), 40},
	} {
		if got := w.Wait(c.m); got != c.wait {
			t.Errorf("%s: wait %s, want %s", c.name, got, c.wait)
		}
		if got := w.Asks(c.m.Loss); got != c.asks {
			t.Errorf("%s: %d questions, want %d", c.name, got, c.asks)
		}
		if got := w.Silence(c.m); got != c.silence {
			t.Errorf("%s: silence of %s, want %s", c.name, got, c.silence)
		}
	}
}

// TestWindowsProperties: between the bounds, 3 to 5 times what was measured, and never
// shorter because the network got worse.
func TestWindowsProperties(t *testing.T) {
	w := DefaultWindows()
	rapid.Check(t, func(t *rapid.T) {
		d := func(name string) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(2*time.Second)).Draw(t, name))
		}
		m := Measured{RoundTrip: d("rtt"), OwnDelay: d("own"), TheirDelay: d("theirs"), Loss: rapid.IntRange(0, 1000).Draw(t, "loss")}
		got, sum := w.Wait(m), m.RoundTrip+m.OwnDelay+m.TheirDelay
		if got < w.Floor || got > w.Ceiling {
			t.Fatalf("wait of %s is out of bounds", got)
		}
		if got > w.Floor && got < w.Ceiling && (got < 3*sum-10*time.Microsecond || got > 5*sum) {
			t.Fatalf("wait of %s is not 3 to 5 times %s", got, sum)
		}
		worse := m
		worse.Loss += rapid.IntRange(0, 300).Draw(t, "more loss")
		worse.OwnDelay += d("more delay")
		if w.Silence(worse) < w.Silence(m) {
			t.Fatalf("silence of %s for %+v, but %s for %+v, which is worse", w.Silence(m), m, w.Silence(worse), worse)
		}
	})
}
