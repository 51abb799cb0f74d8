package incident

import (
	"slices"
	"time"

	"fettle/internal/judge/guard"
	"fettle/internal/judge/world"
)

// Windows returns the windows of maintenance that are not over, sorted by ID.
func (m *Mind) Windows() []guard.Window {
	return slices.DeleteFunc(slices.Clone(m.windows), func(w guard.Window) bool { return w.Over(m.now) })
}

// RestoreWindows takes in what was kept of maintenance, before the first input.
func (m *Mind) RestoreWindows(list []guard.Window) {
	m.windows = slices.Clone(list)
	slices.SortFunc(m.windows, byID)
}

func byID(a, b guard.Window) int { return cmpText(a.ID, b.ID) }

// maintain takes in what an input says of maintenance. Where a window has opened or
// closed since the last input, everything is asked anew.
func (m *Mind) maintain(in Input) {
	if turn := m.turn; !turn.IsZero() && !m.now.Before(turn) {
		for _, id := range m.sortedOpen() {
			m.poke(m.records[id])
		}
	}
	gone := in.EndWindow
	if in.Window != nil {
		gone = in.Window.ID
	}
	m.windows = slices.DeleteFunc(m.windows, func(w guard.Window) bool { return w.ID == gone || w.Over(m.now) })
	if in.Window != nil {
		m.windows = append(m.windows, *in.Window)
		slices.SortFunc(m.windows, byID)
	}
	m.turn, _ = m.windowTurns()
}

// windowTurns returns when the next window opens or closes.
func (m *Mind) windowTurns() (time.Time, bool) {
	var at time.Time
	for _, w := range m.windows {
		if t, ok := w.Turns(m.now); ok && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	return at, !at.IsZero()
}

// withdrawn is a view in which the hosts on which people work are claimed.
func (m *Mind) withdrawn(v world.View) world.View {
	claims := guard.Withdrawn(m.windows, m.now)
	if len(claims) == 0 {
		return v
	}
	o := world.Over(v)
	o.Claim(claims...)
	return o
}
