package memmachine

import "time"

// clock is the bubble's clock, or the real one outside of a bubble.
type clock struct{ m *Machine }

func (clock) Now() time.Time { return time.Now() }

func (c clock) Wall() time.Time {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	return time.Now().Round(0).Add(c.m.wallOffset)
}

func (clock) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// StepWall sets the wall clock this far from the true time, as a bad time source
// would. Clock.Now is not touched.
func (m *Machine) StepWall(offset time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wallOffset = offset
}
