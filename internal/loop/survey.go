package loop

import (
	"context"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

// Survey feeds a mind with one look at everything, lets it ask for what it wants
// to look at besides, and returns the look when it has nothing more to ask. The
// mind's policy must not permit acting: what it would do is in its incidents'
// plans. It is what doctor does.
//
// Conditions that must hold for some time are not raised by one look; where one
// becomes due within patience the survey waits for it and looks at everything
// again.
func Survey(ctx context.Context, m *incident.Mind, hands Hands, now func() time.Time, wait func(context.Context, time.Duration) error, look func(context.Context) []fettle.Observation, patience time.Duration) ([]fettle.Observation, error) {
	end := now().Add(patience)
	seen := look(ctx)
	decisions := m.Take(incident.Input{At: now(), Observations: seen})
	for {
		for len(decisions) > 0 {
			d := decisions[0]
			decisions = decisions[1:]
			if d.Kind != incident.Gather && d.Kind != incident.Look {
				continue
			}
			lookCtx, cancel := context.WithTimeout(ctx, d.Within)
			got := hands.Look(lookCtx, d.Looks)
			cancel()
			decisions = append(decisions, m.Take(incident.Input{At: now(), Observations: got, Gathered: d.Key})...)
		}
		next, ok := m.Next()
		if !ok || next.After(end) || ctx.Err() != nil {
			return seen, ctx.Err()
		}
		if err := wait(ctx, next.Sub(now())); err != nil {
			return seen, err
		}
		seen = look(ctx)
		decisions = m.Take(incident.Input{At: now(), Observations: seen})
	}
}
