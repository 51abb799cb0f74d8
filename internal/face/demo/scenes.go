package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"fettle/internal/fettle"
)

// scene is one thing that goes wrong.
type scene struct {
	name    string
	says    string
	limit   time.Duration // after which the scene has failed
	inflict func(context.Context, *stage) error
	// over reports whether what must follow has followed; the stage's cluster
	// being healthy is asked besides, unless refused.
	refused bool
}

// scenes are played in this order.
func scenes() []scene {
	return []scene{
		{
			name: "a member killed", limit: 30 * time.Second,
			says: "The leader's process gets SIGKILL. Its data is whole, so it may simply be started.",
			inflict: func(ctx context.Context, s *stage) error {
				m, err := s.leader(ctx)
				if err != nil {
					return err
				}
				return s.cluster.kill(ctx, m)
			},
		},
		{
			name: "a data directory lost", limit: 45 * time.Second,
			says: "A member's data directory is gone, and its process with it. Started again it would vote under its old name with an empty log; it must leave and join anew.",
			inflict: func(ctx context.Context, s *stage) error {
				m, err := s.follower(ctx)
				if err != nil {
					return err
				}
				return s.cluster.lose(ctx, m)
			},
		},
		{
			name: "the space quota reached", limit: 45 * time.Second,
			says: "One key is overwritten until its history fills the database. etcd then refuses every write until somebody compacts, defragments and lifts the alarm, in this order.",
			inflict: func(ctx context.Context, s *stage) error {
				return fillQuota(ctx, s.cluster.endpoints(), s.out)
			},
		},
		{
			name: "two of three members lost", limit: 30 * time.Second, refused: true,
			says: "Two data directories are gone. What two of three had agreed on cannot be told from one alone. Fettle must refuse, touch nothing, and say what it would do.",
			inflict: func(ctx context.Context, s *stage) error {
				leader, err := s.leader(ctx)
				if err != nil {
					return err
				}
				for _, m := range s.cluster.members {
					if m.name != leader.name {
						err = errors.Join(err, s.cluster.lose(ctx, m))
					}
				}
				return err
			},
		},
	}
}

// stage is where the scenes play.
type stage struct {
	cluster *cluster
	load    *load
	watch   *watch
	out     io.Writer
}

// leader finds the member that leads.
func (s *stage) leader(ctx context.Context) (member, error) {
	for {
		for _, m := range s.cluster.members {
			if id, leads, err := status(ctx, m.endpoint()); err == nil && leads == id {
				return m, nil
			}
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return member{}, fmt.Errorf("no member leads: %w", err)
		}
	}
}

// follower finds one that follows.
func (s *stage) follower(ctx context.Context) (member, error) {
	leader, err := s.leader(ctx)
	if err != nil {
		return member{}, err
	}
	for _, m := range s.cluster.members {
		if m.name != leader.name {
			return m, nil
		}
	}
	return member{}, errors.New("the cluster has no follower")
}

func status(ctx context.Context, endpoint string) (id, leader uint64, err error) {
	c, err := client(endpoint)
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := c.Status(ctx, endpoint)
	if err != nil {
		return 0, 0, err
	}
	return r.Header.MemberId, r.Leader, nil
}

// Result is one row of the table at the end.
type Result struct {
	Fault     string        `json:"fault"`
	Outcome   string        `json:"outcome"` // mended, refused, failed
	Cause     string        `json:"cause"`
	Seen      time.Duration `json:"seen_ns"`
	Mended    time.Duration `json:"mended_ns,omitempty"`
	Writes    int           `json:"acknowledged_writes"`
	Lost      int           `json:"lost_writes"`
	Wrong     string        `json:"wrong,omitempty"`
	NotAsked  []string      `json:"members_not_asked,omitempty"`
	Incidents []string      `json:"incidents"`
}

// play breaks something and waits for what must follow.
func (s *stage) play(ctx context.Context, sc scene) Result {
	ctx, cancel := context.WithTimeout(ctx, sc.limit)
	defer cancel()
	r := Result{Fault: sc.name, Outcome: "failed"}
	begin := time.Now()
	if err := sc.inflict(ctx, s); err != nil {
		r.Wrong = err.Error()
		return r
	}
	broken := time.Now()
	if sc.name != "the space quota reached" {
		broken = begin
	}
	var err error
	if sc.refused {
		err = s.untilRefused(ctx, begin)
	} else {
		err = s.untilMended(ctx, begin)
	}
	s.measure(&r, begin, broken)
	switch {
	case err != nil:
		r.Wrong = fmt.Sprintf("what had to follow did not within %v", sc.limit)
	case sc.refused:
		r.Outcome = "refused"
	default:
		r.Outcome = "mended"
	}
	return r
}

// untilMended waits until an incident was opened, all that were have ended, and
// the cluster is healthy and takes writes.
func (s *stage) untilMended(ctx context.Context, begin time.Time) error {
	err := s.watch.until(ctx, func() bool {
		list := s.watch.since(begin)
		resolved := slices.ContainsFunc(list, func(in fettle.Incident) bool { return in.State == fettle.Resolved })
		return resolved && !slices.ContainsFunc(list, func(in fettle.Incident) bool { return !in.State.Ended() })
	})
	if err != nil {
		return err
	}
	if err := s.cluster.healthy(ctx); err != nil {
		return err
	}
	now := time.Now().UnixNano()
	for s.load.lastOK.Load() < now {
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return errors.New("the cluster takes no writes")
		}
	}
	return nil
}

// untilRefused waits until a person is asked about a plan that loses something,
// or everything is refused, and then some more: that nothing is touched is only
// seen by waiting.
func (s *stage) untilRefused(ctx context.Context, begin time.Time) error {
	err := s.watch.until(ctx, func() bool {
		return slices.ContainsFunc(s.watch.since(begin), func(in fettle.Incident) bool {
			return strings.Contains(string(in.Cause.Code), "majority") && (in.State == fettle.Proposed || in.State == fettle.Escalated)
		})
	})
	if err != nil {
		return err
	}
	if err := pause(ctx, 3*time.Second); err != nil {
		return err
	}
	for _, in := range s.watch.since(begin) {
		for _, e := range in.Story {
			if e.Kind == fettle.EvIntent {
				return fmt.Errorf("it acted: %s", e.Text)
			}
		}
	}
	return nil
}

// measure fills in when it was seen, why it was, and how long it took.
func (s *stage) measure(r *Result, begin, broken time.Time) {
	list := s.watch.since(begin)
	slices.SortFunc(list, func(a, b fettle.Incident) int { return a.Opened.Compare(b.Opened) })
	var last time.Time
	for i, in := range list {
		r.Incidents = append(r.Incidents, in.ID)
		if i == 0 {
			r.Seen = max(in.Opened.Sub(broken), 0)
			r.Cause = string(in.Cause.Code)
		}
		if in.State == fettle.Resolved || in.State == fettle.Proposed {
			r.Cause = string(in.Cause.Code)
		}
		if in.Ended.After(last) {
			last = in.Ended
		}
	}
	if !last.IsZero() {
		r.Mended = last.Sub(broken)
	}
}

// audit looks up every acknowledged write on every member that should hold it.
func (s *stage) audit(ctx context.Context, r *Result, members []member) {
	acked := s.load.snapshot()
	r.Writes = len(acked)
	for _, m := range members {
		gone, err := lost(ctx, m.endpoint(), acked)
		if err != nil {
			r.NotAsked = append(r.NotAsked, m.name)
			r.Outcome, r.Wrong = "failed", fmt.Sprintf("%s could not be asked for the acknowledged writes: %v", m.name, err)
			continue
		}
		r.Lost += len(gone)
	}
	if n := s.load.wrong.Load(); n > 0 {
		r.Outcome, r.Wrong = "failed", fmt.Sprintf("%d reads did not return what had been acknowledged", n)
	}
	if r.Lost > 0 {
		r.Outcome, r.Wrong = "failed", fmt.Sprintf("%d acknowledged writes are missing", r.Lost)
	}
}

// caughtUp waits until a member has everything that the leader has.
func caughtUp(ctx context.Context, members []member) error {
	for {
		var indexes []uint64
		for _, m := range members {
			c, err := client(m.endpoint())
			if err != nil {
				return err
			}
			callCtx, cancel := context.WithTimeout(ctx, time.Second)
			st, err := c.Status(callCtx, m.endpoint())
			cancel()
			c.Close()
			if err == nil {
				indexes = append(indexes, st.RaftAppliedIndex)
			}
		}
		if len(indexes) == len(members) && slices.Max(indexes) == slices.Min(indexes) {
			return nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("the members did not catch up with each other: %w", err)
		}
	}
}
