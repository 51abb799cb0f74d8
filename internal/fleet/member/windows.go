package member

import "time"

// Measured is what is known of the way to a member and back.
type Measured struct {
	RoundTrip  time.Duration // near the worst seen, not the mean
	OwnDelay   time.Duration // how late this process wakes up
	TheirDelay time.Duration // how late the other one says that it does
	Loss       int           // of questions that stay without answer, per mille
}

// Windows are the knobs of how long silence must last before it means something.
//
//	Wait = Factor × (RoundTrip + OwnDelay + TheirDelay), between Floor and Ceiling
//	Factor = FactorMin at no loss, rising to FactorMax at LossFull
//	Asks = the least n with Loss^n ≤ ChanceOfError, between AsksMin and AsksMax
//	Silence = Wait + (Asks-1) × Wait/4: the questions go out a quarter apart, and the
//	          last one is given all of Wait
//
// With the defaults, on an idle local network: 100 ms + 3 × 25 ms = 175 ms. With
// 25 % of the packets lost in each direction (438 per mille of the round trips): 17
// questions, 500 ms. With 40 ms of scheduling delay at both ends besides: 4.75 × 81
// ms = 385 ms, so 1.9 s.
//
// The zero value is not useful; use DefaultWindows.
type Windows struct {
	// FactorMin and FactorMax times the round trip and the delays is how long an answer
	// may take. Less than 3 takes a slow answer for none; more than 5 gains nothing that
	// the measurement itself does not give, since it follows the load.
	FactorMin, FactorMax int
	// LossFull is the loss, per mille, from which on FactorMax is used. Where packets are
	// lost, queues are full, and what arrives is late.
	LossFull int
	// Floor: shorter than this nothing is silent, however fast the network is: a garbage
	// collection or a busy neighbour takes as long. Lower it and short stalls become
	// suspicions; raise it and every death is seen that much later.
	Floor time.Duration
	// Ceiling: longer than this nobody is waited for, whatever was measured, and whatever
	// a member claims of its own delay. It bounds the time to a verdict.
	Ceiling time.Duration
	// AsksMin and AsksMax bound how often a member is asked before it counts as silent.
	AsksMin, AsksMax int
	// ChanceOfError is how seldom a member that is there may stay without one answer by
	// loss alone, in parts of 10^9. It is of one look; a verdict needs other witnesses.
	ChanceOfError int
}

// DefaultWindows is for one data centre, or some with a few milliseconds between
// them.
func DefaultWindows() Windows {
	return Windows{
		FactorMin: 3, FactorMax: 5, LossFull: 500,
		Floor: 100 * time.Millisecond, Ceiling: 5 * time.Second,
		AsksMin: 4, AsksMax: 40,
		ChanceOfError: 1000, // one in a million
	}
}

// Wait is how long one answer may take.
func (w Windows) Wait(m Measured) time.Duration {
	loss := min(max(m.Loss, 0), w.LossFull)
	// The factor is kept in thousandths, so that no float takes part.
	factor := int64(w.FactorMin) * 1000
	if w.LossFull > 0 {
		factor += int64(w.FactorMax-w.FactorMin) * 1000 * int64(loss) / int64(w.LossFull)
	}
	// Each part is cut at the ceiling first: a claim of years must not overflow.
	sum := time.Duration(0)
	for _, part := range []time.Duration{m.RoundTrip, m.OwnDelay, m.TheirDelay} {
		sum += min(max(part, 0), w.Ceiling)
	}
	return min(max(time.Duration(int64(sum)/1000*factor), w.Floor), w.Ceiling)
}

// Asks is how often to ask at this loss.
func (w Windows) Asks(loss int) int {
	loss = min(max(loss, 0), 999)
	n, chance := 0, 1_000_000_000
	for chance > w.ChanceOfError && n < w.AsksMax {
		chance = chance * loss / 1000
		n++
	}
	return max(n, w.AsksMin)
}

// Pace is the time between two questions.
func (w Windows) Pace(m Measured) time.Duration { return w.Wait(m) / 4 }

// Silence is how long a member is asked without an answer before that is a sighting.
func (w Windows) Silence(m Measured) time.Duration {
	return w.Wait(m) + time.Duration(w.Asks(m.Loss)-1)*w.Pace(m)
}
