package control

import (
	"sync"
	"sync/atomic"
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
		var many atomic.Bool
		var mu sync.Mutex
		var told []bool
		go watchCrowd(t.Context(), synced{}, many.Load, func(crowded bool) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, crowded)
		})
		pass := func(d time.Duration, want ...bool) {
			t.Helper()
			<-time.After(d)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if len(told) != len(want) || len(want) > 0 && told[len(told)-1] != want[len(want)-1] {
				t.Fatalf("told %v, want %v", told, want)
			}
		}
		many.Store(true)
		pass(crowdEvery, true)
		many.Store(false)
		pass(crowdOver/2, true)
		many.Store(true)
		pass(crowdEvery, true)
		many.Store(false)
		pass(crowdOver-crowdEvery, true)
		pass(crowdEvery, true, false)
		pass(time.Minute, true, false)
		many.Store(true)
		pass(crowdEvery, true, false, true)
	})
}
