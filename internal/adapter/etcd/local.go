package etcd

import (
	"context"
	"strings"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// The standings of a member, as the fact standing has them.
const (
	standsVoter     = "voter"
	standsLearner   = "learner"
	standsUnstarted = "unstarted"
	standsNone      = "none"
)

// localState is the member of this machine as its machine sees it.
type localState struct {
	unit     machine.Unit
	data     DataState
	logState string
	logLost  fettle.Tri
	standing string // "": no member could be asked
	round    *round
}

// logLines is how much of a service's log is asked for: a panic with its
// goroutines takes two screens.
const logLines = 200

// look looks at service, data and standing, now.
func (in *instance) look(ctx context.Context) (localState, error) {
	return in.lookWith(ctx, in.cluster.look)
}

func (in *instance) lookWith(ctx context.Context, ask func(context.Context) *round) (localState, error) {
	unit, err := in.m.Services.Unit(ctx, in.config.Unit)
	if err != nil {
		return localState{}, err
	}
	s := localState{unit: unit, round: ask(ctx)}
	s.standing = s.round.standing(in.member)
	switch own, _ := s.round.of(in.member); {
	case serves(unit) && own.status != nil:
		// It answers under the identity that the cluster knows: it has its log.
		s.data = in.data(ctx, false)
		s.logState, s.logLost = logRunning, fettle.No
		return s, nil
	case serves(unit), unit.MainPID != 0:
		// It runs, and is not ready, frozen, or about to end: it may be writing, so
		// only the head of its log is read.
		s.data = in.data(ctx, false)
	default:
		s.data = in.data(ctx, true)
		if s.data.State == logWhole && unit.Result != "success" {
			lines, err := in.m.Services.Log(ctx, in.config.Unit, logLines)
			if says := damageIn(lines); err == nil && says != "" {
				s.data.State, s.data.Damage = logDamaged, says
			}
		}
	}
	s.logState, s.logLost = judgeLog(s.data, s.round, in.member)
	return s, nil
}

// serves reports whether a service is up, as far as its manager knows.
func serves(u machine.Unit) bool {
	return u.ActiveState == "active" || u.ActiveState == "reloading" || u.ActiveState == "deactivating" && u.MainPID != 0
}

// standing is what the cluster says a member is.
func (r *round) standing(s fettle.Subject) string {
	v, ok := r.of(s)
	switch {
	case r.from != listed:
		return ""
	case !ok || !v.listed:
		return standsNone
	case v.unstarted:
		return standsUnstarted
	case v.learner:
		return standsLearner
	}
	return standsVoter
}

// judgeLog tells whether data that no server has open belongs to the identity
// that the cluster knows, and whether what that identity promised is lost.
func judgeLog(d DataState, r *round, s fettle.Subject) (state string, lost fettle.Tri) {
	v, _ := r.of(s)
	standing := r.standing(s)
	// An unstarted voter may also be one whose name was never published: whether
	// it has voted is not known. A learner has not.
	never := fettle.Unknown
	if v.learner {
		never = fettle.No
	}
	switch {
	case d.State == logUnreadable:
		return logUnreadable, fettle.Unknown
	case d.State == logDamaged && (standing == standsNone || standing == standsUnstarted && v.learner):
		return logDamaged, fettle.No
	case d.State == logDamaged:
		return logDamaged, fettle.Yes
	case d.State == logMissing && standing == "":
		return logMissing, fettle.Unknown
	case d.State == logMissing && standing == standsNone:
		return logMissing, fettle.No
	case d.State == logMissing && standing == standsUnstarted:
		return logMissing, never
	case d.State == logMissing:
		return logMissing, fettle.Yes
	case standing == "":
		return logWhole, fettle.No
	case standing == standsNone:
		return logForeign, fettle.No
	case d.Member == v.id && (r.id == 0 || d.Cluster == r.id):
		return logWhole, fettle.No
	case standing == standsUnstarted:
		return logForeign, never
	}
	return logForeign, fettle.Yes
}

// settings reads the member's settings as they are now.
func (in *instance) settings(ctx context.Context) (Settings, error) {
	return readSettings(ctx, in.m.Files, in.config)
}

// mountMemory keeps the mount point for a while: mounts change rarely, and never
// under a data directory without more happening.
type mountMemory struct {
	at    time.Time
	point string
}

const mountsKept = time.Minute

// filesystem returns the mount point under the data directory, "" where it is not
// known.
func (in *instance) filesystem(ctx context.Context) string {
	now := in.m.Clock.Now()
	in.mu.Lock()
	kept := in.mounts
	in.mu.Unlock()
	if !kept.at.IsZero() && now.Sub(kept.at) < mountsKept {
		return kept.point
	}
	mounts, err := in.m.Filesystems.Mounts(ctx)
	if err != nil {
		return kept.point
	}
	point := mountOf(mounts, in.config.DataDir)
	in.mu.Lock()
	in.mounts = mountMemory{now, point}
	in.mu.Unlock()
	return point
}

// mountOf returns the mount point that a path is under: the longest, and of
// several at one place the last, which covers the others.
func mountOf(mounts []machine.Mount, file string) string {
	best := ""
	for _, m := range mounts {
		under := m.Point == "/" || file == m.Point || strings.HasPrefix(file, strings.TrimSuffix(m.Point, "/")+"/")
		if under && len(m.Point) >= len(best) {
			best = m.Point
		}
	}
	return best
}
