package units

import (
	"context"
	"time"

	"fettle/internal/machine"
)

// job is one queued change of one unit. Several callers may wait for it.
type job struct {
	kind    string // start, stop, restart, reload
	by      string // who asked, for StoppedBy
	issued  time.Time
	spawned bool // its start phase has begun
	result  string
	ended   time.Time
	done    chan struct{}
}

// finish ends the unit's present job.
func (e *Engine) finish(s *state, result string) {
	j := s.job
	if j == nil {
		return
	}
	j.result, j.ended = result, e.now()
	s.job, s.unit.Job = nil, ""
	e.Board.Put(s.unit) // who waited for the job finds the state that it led to
	close(j.done)
}

// wait blocks until the job or the context ends. The job goes on without those
// who wait for it, as systemd's do.
func (j *job) wait(ctx context.Context) (machine.JobResult, error) {
	select {
	case <-j.done:
		return machine.JobResult{Result: j.result, Issued: j.issued, Took: j.ended.Sub(j.issued)}, nil
	case <-ctx.Done():
		return machine.JobResult{Issued: j.issued}, ctx.Err()
	}
}

// shares reports whether a request of this kind is answered by the job that is
// already there.
func (j *job) shares(kind string) bool {
	switch {
	case j.kind == kind:
		return true
	case kind == "start" && j.kind == "restart":
		return true
	case kind == "reload":
		return j.kind == "start" || j.kind == "restart"
	}
	return false
}
