package control

import (
	"context"
	"time"

	"fettle/internal/machine"
)

const (
	// crowdEvery is how often it is looked whether many agents wait to be let in.
	crowdEvery = 250 * time.Millisecond
	// crowdOver is how long none must have waited for that to be over.
	crowdOver = 10 * time.Second
)

// watchCrowd tells when many agents wait to be let in, and when that is over, until ctx
// ends.
func watchCrowd(ctx context.Context, clock machine.Clock, many func() bool, tell func(crowded bool)) {
	told, last := false, time.Time{}
	for {
		timer, stop := clock.After(crowdEvery)
		select {
		case <-timer:
		case <-ctx.Done():
			stop()
			return
		}
		now := clock.Now()
		if many() {
			last = now
		}
		if crowded := !last.IsZero() && now.Sub(last) < crowdOver; crowded != told {
			told = crowded
			tell(crowded)
		}
	}
}
