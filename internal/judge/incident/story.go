package incident

import (
	"time"

	"fettle/internal/fettle"
)

// tell adds an event to the story; one that only repeats the last of its kind is
// folded into it.
func (m *Mind) tell(r *Record, e fettle.Event) {
	if e.At.IsZero() {
		e.At = m.now
	}
	m.dirty[r.ID], m.stale[r.ID] = true, true
	if n := len(r.Story); n > 0 {
		last := &r.Story[n-1]
		if last.Kind == e.Kind && last.Text == e.Text && last.Step == e.Step && repeats(e.Kind) {
			last.Times = max(last.Times, 1) + 1
			last.At, last.Verdicts = e.At, e.Verdicts
			return
		}
	}
	r.Story = append(r.Story, e)
}

func repeats(k fettle.EventKind) bool {
	return k == fettle.EvRefused || k == fettle.EvHeld || k == fettle.EvNote
}

// phase moves the incident to a phase that must be looked at again at due, when
// nothing happens before; the zero due waits for something to happen.
func (m *Mind) phase(r *Record, p Phase, due time.Time) {
	r.Progress.Phase, r.Progress.Since, r.Progress.Due = p, m.now, due
	m.dirty[r.ID], m.stale[r.ID] = true, true
}

// idle lets the incident wait until due, or, when that is zero, for something to happen.
// Where it does so already nothing is new, and nothing is saved.
func (m *Mind) idle(r *Record, due time.Time) {
	if r.Progress.Phase != PhaseIdle || !r.Progress.Due.Equal(due) {
		m.phase(r, PhaseIdle, due)
	}
}

// hold says that nothing is done for now, and why, and when it is asked again.
func (m *Mind) hold(r *Record, why string, again time.Duration) {
	if r.State != fettle.Held || r.Why != why {
		m.tell(r, fettle.Event{Kind: fettle.EvHeld, Text: why})
	}
	r.State, r.Why = fettle.Held, why
	m.idle(r, m.now.Add(again))
}

// escalate calls a person, once for each reason, and goes on watching.
func (m *Mind) escalate(r *Record, why string) {
	if r.State != fettle.Escalated || r.Why != why {
		m.tell(r, fettle.Event{Kind: fettle.EvEscalated, Text: why})
		m.decisions = append(m.decisions, Decision{Kind: Call, Incident: r.ID, Text: why})
	}
	r.State, r.Why = fettle.Escalated, why
	m.idle(r, time.Time{})
}

// end closes the story.
func (m *Mind) end(r *Record, state fettle.IncidentState, why string) {
	r.State, r.Why, r.Ended = state, why, m.now
	m.phase(r, PhaseIdle, time.Time{})
	m.world.Release(r.Progress.Key)
	if state == fettle.Resolved {
		m.resolved = append(m.resolved, r.ID)
	}
	if m.byCause[r.Cause] == r.ID {
		m.closes(r.Cause)
	}
}

// backoff doubles from a second to half a minute.
func backoff(n int) time.Duration {
	return min(time.Second<<min(n, 5), 30*time.Second)
}
