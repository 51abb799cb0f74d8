package etcd

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"fettle/internal/fettle"
)

const (
	opCompact = "etcd.compact"
	opDefrag  = "etcd.defrag"
	opDisarm  = "etcd.disarm"
)

// compact is etcd.compact.
type compact struct{ *cluster }

// upTo is the revision to which history goes.
func (a compact) upTo(step fettle.Step) (int64, error) {
	revision, _ := step.Params.Int("revision")
	keep, _ := step.Params.Int("keep")
	switch {
	case step.Target != a.subject:
		return 0, fettle.Refuse(opCompact, step.Target, "the step belongs to an agent with the adapter for that cluster", "this adapter looks after %s", a.subject)
	case keep < 0:
		return 0, fettle.Refuse(opCompact, step.Target, "keep none, or so many", "parameter keep: %d", keep)
	case revision-keep < 2:
		return 0, fettle.Refuse(opCompact, step.Target, "there is no history to drop", "up to revision %d − %d", revision, keep)
	}
	return revision - keep, nil
}

// gone reports whether history up to a revision is compacted at a member.
func gone(ctx context.Context, e *endpoint, revision int64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*callTimeout)
	defer cancel()
	// At the revision itself 3.4 and 3.7 answer alike only below it.
	_, err := e.kv.Range(ctx, &pb.RangeRequest{Key: []byte(aKey), Limit: 1, KeysOnly: true, Revision: revision - 1})
	switch sortError(err) {
	case fine, future:
		return false, nil
	case compacted:
		return true, nil
	}
	return false, err
}

// Preview implements fettle.Action.
func (a compact) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	revision, err := a.upTo(step)
	if err != nil {
		return fettle.Preview{}, err
	}
	_, v, e, err := a.leader(ctx)
	if err != nil {
		return fettle.Preview{}, unseen(opCompact, step.Target, err)
	}
	if is, err := gone(ctx, e, revision); err == nil && is {
		return would("nothing: history up to revision %d is gone already", revision), nil
	}
	p := would("drop the history of %s before revision %d, of %d; the newest value of every key stays", a.system, revision, v.status.Header.GetRevision())
	p.Loses = fmt.Sprintf("revisions before %d, but for those in the snapshot", revision)
	return p, nil
}

// Apply implements fettle.Action.
func (a compact) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	revision, err := a.upTo(d.Step)
	if err != nil {
		return fettle.Result{}, err
	}
	begun := a.m.Clock.Now()
	err = a.attempt(ctx, func(ctx context.Context, e *endpoint) error {
		_, err := e.kv.Compact(ctx, &pb.CompactionRequest{Revision: revision, Physical: true})
		return err
	})
	if err != nil && sortError(err) != compacted {
		return fettle.Result{}, outcome(opCompact, d.Step.Target, err)
	}
	a.awaitFreed(ctx, a.m.Clock.Now().Sub(begun))
	return compactResult(revision), nil
}

func compactResult(revision int64) fettle.Result {
	return fettle.Result{Outputs: fettle.Facts{"revision": revision}, Notes: []string{fmt.Sprintf("history before revision %d is gone", revision)}}
}

const (
	// The others free their pages by themselves, in about the time that it took the
	// leader, who was asked to be done before it answered. They are given twice
	// that. What they have not freed by then, a later defragmentation finds.
	freedLeast = 500 * time.Millisecond
	freedMost  = 30 * time.Second
)

// awaitFreed waits until the members say that they use about as little as the
// leader, or have had their time: without a write after it, a member's own number
// stays as it was.
func (a compact) awaitFreed(ctx context.Context, leaderTook time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, min(max(2*leaderTook, freedLeast), freedMost))
	defer cancel()
	for {
		r := a.look(ctx)
		leader, ok := r.byID(r.leader)
		done := ok && leader.status != nil
		for _, v := range r.views {
			if done && v.listed && v.status != nil && v.status.DbSizeInUse > leader.status.DbSizeInUse*5/4+1<<20 {
				done = false
			}
		}
		if done || !a.pause(ctx, 2*shared) {
			return
		}
	}
}

// Recover implements fettle.Action.
func (a compact) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	revision, err := a.upTo(d.Step)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, err
	}
	var failed error
	fate, result, err := a.fate(ctx, d, func(*round) (fettle.Result, bool) {
		_, _, e, err := a.leader(ctx)
		if err != nil {
			failed = err
			return fettle.Result{}, false
		}
		is, err := gone(ctx, e, revision)
		failed = err
		return compactResult(revision), err == nil && is
	})
	if failed != nil {
		return fettle.UnknownFate, fettle.Result{}, unseen(opCompact, d.Step.Target, failed)
	}
	return fate, result, err
}

// Undo implements fettle.Action.
func (a compact) Undo(_ context.Context, d fettle.Dispatch) (fettle.Result, error) {
	return forwardOnly(opCompact, d.Step.Target)
}

// defrag is etcd.defrag.
type defrag struct{ *cluster }

// mayDefrag looks whether the member can be spared while it answers nothing.
func (a defrag) mayDefrag(ctx context.Context, step fettle.Step) (view, error) {
	if err := a.ours(opDefrag, step.Target); err != nil {
		return view{}, err
	}
	r := a.look(ctx)
	v, ok := r.of(step.Target)
	if !ok || v.status == nil {
		return view{}, fettle.Refuse(opDefrag, step.Target, "it must answer first", "it does not answer")
	}
	voters, serving := 0, 0
	for _, o := range r.views {
		if !o.listed || o.learner {
			continue
		}
		voters++
		if r.serving(o) == fettle.Yes && o.id != v.id {
			serving++
		}
		if o.id != v.id && o.clientURL != "" {
			if p, err := a.pageOf(ctx, o.clientURL); err == nil && p.defragInflight > 0 {
				return view{}, fettle.Refuse(opDefrag, step.Target, "one after another; it is tried again", "%s is being defragmented", o.name)
			}
		}
	}
	if voters > 1 && !v.learner && serving < voters/2+1 {
		return view{}, fettle.Refuse(opDefrag, step.Target, "another member serving again", "without it %d of %d voters serve, which is no majority", serving, voters)
	}
	return v, nil
}

// pageOf reads a member's metrics.
func (c *cluster) pageOf(ctx context.Context, clientURL string) (page, error) {
	status, body, err := c.dial.get(ctx, clientURL+"/metrics", 4<<20)
	if err != nil {
		return page{}, err
	}
	if status != 200 {
		return page{}, fmt.Errorf("%s/metrics: HTTP status %d", clientURL, status)
	}
	return parseMetrics(body)
}

// Preview implements fettle.Action.
func (a defrag) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	v, err := a.mayDefrag(ctx, step)
	if err != nil {
		return fettle.Preview{}, err
	}
	return would("write the database of %s anew without its free pages: %d of %d bytes are in use; it answers nothing meanwhile", v.name, v.status.DbSizeInUse, v.status.DbSize), nil
}

// Apply implements fettle.Action. A deadline does not stop the server.
func (a defrag) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	v, err := a.mayDefrag(ctx, d.Step)
	if err != nil {
		return fettle.Result{}, err
	}
	e, err := a.dial.to(v.clientURL)
	if err != nil {
		return fettle.Result{}, unseen(opDefrag, d.Step.Target, err)
	}
	if _, err := e.maintenance.Defragment(ctx, &pb.DefragmentRequest{}); err != nil {
		return fettle.Result{}, outcome(opDefrag, d.Step.Target, err)
	}
	after, err := e.maintenance.Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return fettle.Result{Notes: []string{"its database was written anew"}}, nil
	}
	return fettle.Result{
		Outputs: fettle.Facts{"before_bytes": v.status.DbSize, "after_bytes": after.DbSize},
		Notes:   []string{fmt.Sprintf("its database takes %d bytes, was %d", after.DbSize, v.status.DbSize)},
	}, nil
}

// Recover implements fettle.Action. It is told by what it is for: a database with
// hardly a free page has been written anew, and to do it once more harms nothing.
func (a defrag) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	r := a.look(ctx)
	v, ok := r.of(d.Step.Target)
	if !ok || v.clientURL == "" {
		return fettle.UnknownFate, fettle.Result{}, unseen(opDefrag, d.Step.Target, errNoLeader)
	}
	p, err := a.pageOf(ctx, v.clientURL)
	switch {
	case err != nil || v.status == nil:
		return fettle.UnknownFate, noted("it does not answer, perhaps because it is being defragmented"), nil
	case p.defragInflight > 0:
		return fettle.Running, fettle.Result{}, nil
	case v.status.DbSizeInUse*5/4+1<<20 >= v.status.DbSize:
		return fettle.Done, noted("%d of %d bytes of its database are in use", v.status.DbSizeInUse, v.status.DbSize), nil
	}
	return fettle.NeverWillBe, fettle.Result{}, nil
}

// Undo implements fettle.Action.
func (a defrag) Undo(_ context.Context, d fettle.Dispatch) (fettle.Result, error) {
	return forwardOnly(opDefrag, d.Step.Target)
}

// largestWrite is the room that there must be for the alarm to be lifted: what one
// request may take by default (--max-request-bytes). A member raises the alarm for a
// write that would not fit, not when its database has reached the quota.
const largestWrite = 3 << 19

// disarm is etcd.disarm.
type disarm struct{ *cluster }

// mayDisarm returns the alarms that are to be lifted.
func (a disarm) mayDisarm(ctx context.Context, step fettle.Step) ([]alarm, error) {
	if step.Target != a.subject {
		return nil, fettle.Refuse(opDisarm, step.Target, "the step belongs to an agent with the adapter for that cluster", "this adapter looks after %s", a.subject)
	}
	r := a.look(ctx)
	quota := a.smallestQuota(r)
	seen := map[alarm]bool{}
	var list []alarm
	for _, v := range r.views {
		if v.status == nil {
			continue
		}
		if quota > 0 && v.listed && v.status.DbSize+largestWrite >= quota {
			return nil, fettle.Refuse(opDisarm, step.Target, "compact, and defragment it", "the database of %s still takes %d of %d bytes: the first large write would raise the alarm again", v.name, v.status.DbSize, quota)
		}
		alarms, _ := alarmsIn(v.status.Errors)
		for _, al := range alarms {
			if al.what == "NOSPACE" && !seen[al] {
				seen[al] = true
				list = append(list, al)
			}
		}
	}
	return list, nil
}

// Preview implements fettle.Action.
func (a disarm) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	list, err := a.mayDisarm(ctx, step)
	switch {
	case err != nil:
		return fettle.Preview{}, err
	case len(list) == 0:
		return would("nothing: no alarm NOSPACE stands"), nil
	}
	p := fettle.Preview{}
	for _, al := range list {
		p.Would = append(p.Would, "lift the alarm NOSPACE of "+hex(al.member))
	}
	return p, nil
}

// disarmTurns bounds how often the list is read again: once for each member that
// raises its alarm late, and some more.
const disarmTurns = 10

// Apply implements fettle.Action. Members raise theirs one after another, so the
// list is read again until it is empty.
func (a disarm) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	if _, err := a.mayDisarm(ctx, d.Step); err != nil {
		return fettle.Result{}, err
	}
	lifted := 0
	err := a.attempt(ctx, func(ctx context.Context, e *endpoint) error {
		for range disarmTurns {
			standing, err := e.maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET, Alarm: pb.AlarmType_NOSPACE})
			if err != nil || len(standing.Alarms) == 0 {
				return err
			}
			for _, al := range standing.Alarms {
				off := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: al.MemberID, Alarm: pb.AlarmType_NOSPACE}
				if _, err := e.maintenance.Alarm(ctx, off); err != nil {
					return err
				}
				lifted++
			}
		}
		return fmt.Errorf("it is raised again each time: after %d turns an alarm NOSPACE still stands", disarmTurns)
	})
	if err != nil {
		return fettle.Result{}, outcome(opDisarm, d.Step.Target, err)
	}
	return noted("%d alarms NOSPACE were lifted", lifted), nil
}

// Recover implements fettle.Action.
func (a disarm) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	return a.fate(ctx, d, func(r *round) (fettle.Result, bool) {
		f := a.clusterFacts(r)
		standing, known := f.Bool("nospace")
		return noted("no alarm NOSPACE stands"), known && !standing
	})
}

// Undo implements fettle.Action.
func (a disarm) Undo(_ context.Context, d fettle.Dispatch) (fettle.Result, error) {
	return forwardOnly(opDisarm, d.Step.Target)
}
