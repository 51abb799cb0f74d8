package member

import (
	"context"
	"time"
)

// Lateness measures how late this process wakes up: what a busy machine, a throttled
// container or a garbage collection adds to every answer. Whoever waits for others must
// wait that much longer. Safe for concurrent use.
type Lateness struct {
	tick   time.Duration
	delays *samples
}

// latenessSpan is how long a measurement counts.
const latenessSpan = 6400 * time.Millisecond

// NewLateness makes one that measures in every tick, and tells of the last 6.4 s.
func NewLateness(tick time.Duration) *Lateness {
	return &Lateness{tick: tick, delays: newSamples(int(max(16, latenessSpan/max(tick, time.Millisecond))))}
}

// Run measures until ctx ends.
func (l *Lateness) Run(ctx context.Context) {
	for {
		before := time.Now()
		if !wait(ctx, l.tick) {
			return
		}
		l.delays.add(time.Since(before) - l.tick)
	}
}

// Delay is the scheduling delay: 98 in 100 wake-ups are less late.
func (l *Lateness) Delay() time.Duration { return l.delays.quantile(980) }
