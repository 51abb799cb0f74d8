package etcd

import (
	"context"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"fettle/internal/fettle"
)

const (
	opRemove  = "etcd.member_remove"
	opAdd     = "etcd.member_add"
	opPromote = "etcd.promote"
)

// memberRemove is etcd.member_remove.
type memberRemove struct{ *cluster }

// mayRemove looks whether the identity is the target's, and whether those that
// stay are a serving majority by our own count.
func (a memberRemove) mayRemove(ctx context.Context, step fettle.Step) (*round, view, error) {
	id, err := idOf(opRemove, step)
	if err != nil {
		return nil, view{}, err
	}
	if err := a.ours(opRemove, step.Target); err != nil {
		return nil, view{}, err
	}
	r, err := a.current(ctx)
	if err != nil {
		return nil, view{}, unseen(opRemove, step.Target, err)
	}
	v, ok := r.byID(id)
	if !ok {
		return r, view{id: id}, nil
	}
	refuse := func(hint, format string, args ...any) (*round, view, error) {
		return r, v, fettle.Refuse(opRemove, step.Target, hint, format, args...)
	}
	if v.subject != step.Target {
		return refuse("plan again from the facts as they are now", "%s is the identity of %s", hex(id), v.subject)
	}
	if v.id == r.leader {
		return refuse("move leadership away first", "%s leads", v.name)
	}
	voters, serving := 0, 0
	for _, o := range r.views {
		if o.listed && !o.learner && o.id != id {
			voters++
			if r.serving(o) == fettle.Yes {
				serving++
			}
		}
	}
	if !v.learner && serving < voters/2+1 {
		return refuse("another member serving again", "of the %d voters that stay %d serve, which is no majority", voters, serving)
	}
	return r, v, nil
}

// Preview implements fettle.Action.
func (a memberRemove) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	_, v, err := a.mayRemove(ctx, step)
	switch {
	case err != nil:
		return fettle.Preview{}, err
	case !v.listed:
		return would("nothing: %s is no member any more", hex(v.id)), nil
	}
	return would("remove %s (identity %s, %v) from %s; that identity is never accepted again", v.name, hex(v.id), v.peerURLs, a.system), nil
}

func removeAt(ctx context.Context, e *endpoint, id uint64) error {
	_, err := e.cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: id})
	return err
}

// Apply implements fettle.Action.
func (a memberRemove) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	_, v, err := a.mayRemove(ctx, d.Step)
	if err != nil {
		return fettle.Result{}, err
	}
	if !v.listed {
		return noted("%s is no member any more", hex(v.id)), nil
	}
	err = a.attempt(ctx, func(ctx context.Context, e *endpoint) error { return removeAt(ctx, e, v.id) })
	if err != nil && sortError(err) != notMember {
		return fettle.Result{}, outcome(opRemove, d.Step.Target, err)
	}
	return noted("%s (%s) is no member any more", v.name, hex(v.id)), nil
}

// Recover implements fettle.Action.
func (a memberRemove) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	id, err := idOf(opRemove, d.Step)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, err
	}
	return a.fate(ctx, d, func(r *round) (fettle.Result, bool) {
		_, there := r.byID(id)
		return noted("%s is no member any more", hex(id)), !there
	})
}

// Undo implements fettle.Action.
func (a memberRemove) Undo(_ context.Context, d fettle.Dispatch) (fettle.Result, error) {
	return forwardOnly(opRemove, d.Step.Target)
}

// memberAdd is etcd.member_add.
type memberAdd struct{ *cluster }

// peerURLOf returns the peer URL of a member of this machine, or of one that the
// configuration knows.
func (c *cluster) peerURLOf(s fettle.Subject) (string, bool) {
	if in, ok := c.own(s); ok {
		return in.config.PeerURL, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	u, ok := c.peerOf[s.Name()]
	return u, ok
}

// learnerAt returns the member with this peer URL.
func (r *round) learnerAt(peerURL string) (view, bool) {
	for _, v := range r.views {
		if v.listed && slices.Contains(v.peerURLs, peerURL) {
			return v, true
		}
	}
	return view{}, false
}

// mayAdd looks whether the target's peer URL is free, or already that of a
// learner that has never joined.
func (a memberAdd) mayAdd(ctx context.Context, step fettle.Step) (peerURL string, there view, err error) {
	if err := a.ours(opAdd, step.Target); err != nil {
		return "", view{}, err
	}
	peerURL, ok := a.peerURLOf(step.Target)
	if !ok {
		return "", view{}, fettle.Refuse(opAdd, step.Target, "name it under peers in the adapter's configuration", "its peer URL is not known here")
	}
	r, err := a.current(ctx)
	if err != nil {
		return "", view{}, unseen(opAdd, step.Target, err)
	}
	if there, ok = r.learnerAt(peerURL); ok && !(there.learner && there.unstarted) {
		return "", view{}, fettle.Refuse(opAdd, step.Target, "remove it first", "%s is the peer URL of the member %s (%s)", peerURL, there.name, hex(there.id))
	}
	return peerURL, there, nil
}

// Preview implements fettle.Action.
func (a memberAdd) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	peerURL, there, err := a.mayAdd(ctx, step)
	switch {
	case err != nil:
		return fettle.Preview{}, err
	case there.listed:
		return would("nothing: %s is a learner already, %s", peerURL, hex(there.id)), nil
	}
	return would("add %s as a learner, without a vote, at %s to %s", step.Target.Name(), peerURL, a.system), nil
}

// Apply implements fettle.Action.
func (a memberAdd) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	peerURL, there, err := a.mayAdd(ctx, d.Step)
	if err != nil {
		return fettle.Result{}, err
	}
	if there.listed {
		return added(there.id), nil
	}
	tries, stop := withReserve(ctx)
	defer stop()
	var id uint64
	for {
		err = a.attempt(ctx, func(ctx context.Context, e *endpoint) error {
			got, err := e.cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{peerURL}, IsLearner: true})
			if err == nil {
				id = got.Member.GetID()
			}
			return err
		})
		switch sortError(err) {
		case fine:
			return added(id), nil
		case isMember:
			// Added meanwhile, perhaps by an earlier try of ours that was cut off.
			r, cerr := a.current(ctx)
			if cerr != nil {
				return fettle.Result{}, outcome(opAdd, d.Step.Target, err)
			}
			if v, ok := r.learnerAt(peerURL); ok && v.learner {
				return added(v.id), nil
			}
		case notMember:
			// An identity is made of URL, token and the second: one that was removed
			// within this second would be made again, and is never accepted.
		case tooMany:
			return fettle.Result{}, fettle.Refuse(opAdd, d.Step.Target, "promote or remove the learner that is there (etcdctl member list)", "%w", err)
		default:
			return fettle.Result{}, outcome(opAdd, d.Step.Target, err)
		}
		if !a.pause(tries, askSlowest/2) {
			return fettle.Result{}, outcome(opAdd, d.Step.Target, err)
		}
	}
}

func added(id uint64) fettle.Result {
	return fettle.Result{Outputs: fettle.Facts{"id": hex(id)}, Notes: []string{"it is a learner now, " + hex(id)}}
}

// Recover implements fettle.Action. Adding a peer URL twice is refused by the
// cluster, so a learner there that has never joined is the one of this key.
func (a memberAdd) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	if d.Undo {
		return a.recoverUndo(ctx, d)
	}
	peerURL, ok := a.peerURLOf(d.Step.Target)
	if !ok {
		return fettle.UnknownFate, fettle.Result{}, fettle.Refuse(opAdd, d.Step.Target, "name it under peers in the adapter's configuration", "its peer URL is not known here")
	}
	return a.fate(ctx, d, func(r *round) (fettle.Result, bool) {
		v, there := r.learnerAt(peerURL)
		return added(v.id), there && v.learner
	})
}

func (a memberAdd) recoverUndo(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	text, _ := d.Outputs.Str("id")
	id, err := parseID(text)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, fettle.Refuse("undo "+opAdd, d.Step.Target, "", "%w", err)
	}
	return a.fate(ctx, d, func(r *round) (fettle.Result, bool) {
		_, there := r.byID(id)
		return noted("%s is no member any more", hex(id)), !there
	})
}

// Undo implements fettle.Action: it removes the learner, and nothing that has a
// vote.
func (a memberAdd) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	op := "undo " + opAdd
	text, _ := d.Outputs.Str("id")
	id, err := parseID(text)
	if err != nil {
		return fettle.Result{}, fettle.Refuse(op, d.Step.Target, "", "%w", err)
	}
	r, err := a.current(ctx)
	if err != nil {
		return fettle.Result{}, unseen(op, d.Step.Target, err)
	}
	v, ok := r.byID(id)
	if !ok {
		return noted("%s is no member any more", hex(id)), nil
	}
	if !v.learner {
		return fettle.Result{}, fettle.Refuse(op, d.Step.Target, "removing a voter is a step of its own", "%s has a vote by now", hex(id))
	}
	err = a.attempt(ctx, func(ctx context.Context, e *endpoint) error { return removeAt(ctx, e, id) })
	if err != nil && sortError(err) != notMember {
		return fettle.Result{}, outcome(op, d.Step.Target, err)
	}
	return noted("the learner %s was removed", hex(id)), nil
}

// promote is etcd.promote.
type promote struct{ *cluster }

// Preview implements fettle.Action.
func (a promote) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	id, err := idOf(opPromote, step)
	if err != nil {
		return fettle.Preview{}, err
	}
	r, err := a.current(ctx)
	if err != nil {
		return fettle.Preview{}, unseen(opPromote, step.Target, err)
	}
	v, ok := r.byID(id)
	switch {
	case !ok:
		return fettle.Preview{}, fettle.Refuse(opPromote, step.Target, "plan again from the facts as they are now", "there is no member %s", hex(id))
	case !v.learner:
		return would("nothing: %s has a vote already", hex(id)), nil
	}
	text := fmt.Sprintf("give the learner %s (%s) a vote, as soon as it has caught up", v.name, hex(id))
	if l, ok := r.byID(r.leader); ok && l.status != nil && v.status != nil {
		text += fmt.Sprintf("; it has applied entry %d of %d", v.status.RaftAppliedIndex, l.status.RaftIndex)
	}
	return would("%s", text), nil
}

// Apply implements fettle.Action.
func (a promote) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	id, err := idOf(opPromote, d.Step)
	if err != nil {
		return fettle.Result{}, err
	}
	if err := a.ours(opPromote, d.Step.Target); err != nil {
		return fettle.Result{}, err
	}
	err = a.attempt(ctx, func(ctx context.Context, e *endpoint) error {
		_, err := e.cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
		return err
	})
	switch sortError(err) {
	case fine:
		return noted("%s has a vote now", hex(id)), nil
	case notMember:
		return fettle.Result{}, fettle.Refuse(opPromote, d.Step.Target, "plan again from the facts as they are now", "there is no member %s", hex(id))
	case notLearner:
		return noted("%s has a vote already", hex(id)), nil
	}
	return fettle.Result{}, outcome(opPromote, d.Step.Target, err)
}

// Recover implements fettle.Action.
func (a promote) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	id, err := idOf(opPromote, d.Step)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, err
	}
	return a.fate(ctx, d, func(r *round) (fettle.Result, bool) {
		v, there := r.byID(id)
		return noted("%s has a vote now", hex(id)), there && !v.learner
	})
}

// Undo implements fettle.Action.
func (a promote) Undo(_ context.Context, d fettle.Dispatch) (fettle.Result, error) {
	return forwardOnly(opPromote, d.Step.Target)
}
