package units

import (
	"cmp"
	"syscall"
	"time"
)

// advance does the next thing that the unit's job asks for in its present state.
// e.mu is held; what happened at once is returned.
func (e *Engine) advance(s *state) []Event {
	j := s.job
	if j == nil {
		return nil
	}
	up := s.unit.ActiveState == "active"
	down := s.unit.ActiveState == "inactive" || s.unit.ActiveState == "failed"
	switch {
	case j.kind == "start" && up:
		e.finish(s, "done")
	case (j.kind == "start" || j.kind == "restart") && down:
		return e.spawn(s)
	case j.kind == "stop" && down:
		e.finish(s, "done")
	case (j.kind == "stop" || j.kind == "restart") && s.unit.ActiveState != "deactivating":
		if j.kind == "stop" {
			s.stopBy = j.by
		}
		return e.terminate(s, "")
	case j.kind == "reload" && up:
		return e.hands.Reload(s.unit.Name, s.unit.InvocationID)
	case j.kind == "reload":
		e.finish(s, "invalid")
	}
	return nil
}

func (e *Engine) spawn(s *state) []Event {
	s.job.spawned = true
	s.failure, s.stopBy = "", ""
	starting(&s.unit, e.invocation(), e.now())
	e.Board.Put(s.unit)
	e.arm(s, s.def.StartTimeout)
	return e.hands.Spawn(s.unit.Name, s.unit.InvocationID)
}

// terminate asks the process to end; failure is why, when nobody asked for it.
func (e *Engine) terminate(s *state, failure string) []Event {
	if failure != "" {
		s.failure = failure
	}
	stopping(&s.unit, "stop-sigterm", e.now())
	e.Board.Put(s.unit)
	e.arm(s, s.def.StopTimeout)
	return e.hands.Signal(s.unit.Name, s.unit.InvocationID, syscall.SIGTERM, true)
}

// apply works through events and all that follows from them at once.
func (e *Engine) apply(s *state, events []Event) {
	for len(events) > 0 {
		ev := events[0]
		events = events[1:]
		if ev.Invocation == s.unit.InvocationID {
			events = append(events, e.happened(s, ev)...)
		}
	}
	e.Board.Put(s.unit)
}

func (e *Engine) happened(s *state, ev Event) []Event {
	down := s.unit.ActiveState == "inactive" || s.unit.ActiveState == "failed"
	switch ev.What {
	case Spawned:
		if !down {
			s.unit.MainPID = ev.PID
			e.Board.Put(s.unit)
		}
	case NotSpawned:
		if ev.Failure != "" {
			s.failure = ev.Failure
			return e.gone(s, 0, 0)
		}
		return e.gone(s, CLDExited, cmp.Or(ev.Status, ExitExec))
	case Ready:
		if s.unit.ActiveState == "activating" {
			e.arm(s, 0)
			running(&s.unit, e.now())
			// A finished job is no longer shown, as in systemd's own signal.
			if s.job != nil && s.job.kind != "stop" {
				e.finish(s, "done")
			}
		}
	case Reloaded:
		if s.job != nil && s.job.kind == "reload" {
			e.finish(s, "done")
		}
	case Exited:
		return e.gone(s, ev.Code, ev.Status)
	}
	return nil
}

// gone records the end of the process and lets the job go on from there.
func (e *Engine) gone(s *state, code, status int) []Event {
	if s.unit.ActiveState == "inactive" || s.unit.ActiveState == "failed" {
		return nil
	}
	e.arm(s, 0)
	ended(&s.unit, code, status, s.failure, e.now())
	s.unit.StoppedBy = s.stopBy
	j := s.job
	switch {
	case j == nil:
	case j.kind == "stop":
		e.finish(s, "done")
	case j.kind == "reload", j.spawned:
		e.finish(s, "failed")
	default:
		e.Board.Put(s.unit)
		return e.advance(s)
	}
	return nil
}

// arm starts the unit's one timer, or stops it when d is 0.
func (e *Engine) arm(s *state, d time.Duration) {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if d <= 0 {
		return
	}
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if s.timer == t {
			s.timer = nil
			e.apply(s, e.expired(s))
		}
	})
	s.timer = t
}

// expired is what the manager does when a unit took too long.
func (e *Engine) expired(s *state) []Event {
	switch s.unit.ActiveState {
	case "activating":
		return e.terminate(s, "timeout")
	case "deactivating":
		s.failure = "timeout"
		stopping(&s.unit, "stop-sigkill", e.now())
		e.Board.Put(s.unit)
		return e.hands.Signal(s.unit.Name, s.unit.InvocationID, syscall.SIGKILL, true)
	}
	return nil
}

// Halt stops the timers: no unit changes by itself any more. Events still count.
func (e *Engine) Halt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.states {
		e.arm(s, 0)
	}
}
