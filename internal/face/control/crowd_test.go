package control

import (
	"testing"
	"testing/synctest"
	"time"

	"fettle/internal/machine"
)

// synced is the clock of a bubble.
type synced struct{ machine.Clock }

func (synced) Now() time.Time { return time.Now() }

func (synced) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// TestCrowd: that many wait is told at once, and that it is over when nobody has for a
// while; not each time the last of a few is in.
func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		many := true
		var told []bool
		go watchCrowd(t.Context(), synced{}, func() bool { return many }, func(crowded bool) { told = append(told, crowded) })
		pass := func(d time.Duration, want ...bool) {
			t.Helper()
			<-time.After(d)
			synctest.Wait()
			if len(told) != len(want) || len(want) > 0 && told[len(told)-1] != want[len(want)-1] {
				t.Fatalf("told %v, want %v", told, want)
			}
		}
		pass(crowdEvery, true)
		many = false
		pass(crowdOver/2, true)
		many = true
		pass(crowdEvery, true)
		many = false
		pass(crowdOver-crowdEvery, true)
		pass(crowdEvery, true, false)
		pass(time.Minute, true, false)
		many = true
		pass(crowdEvery, true, false, true)
	})
}
