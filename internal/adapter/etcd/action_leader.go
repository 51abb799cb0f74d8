package etcd

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"fettle/internal/fettle"
)

// moveLeader is etcd.move_leader.
type moveLeader struct{ *cluster }

const opMove = "etcd.move_leader"

// choose returns the present leader and who shall lead: the voter that was named,
// or the one that is furthest. to is zero when the target does not lead.
func (a moveLeader) choose(ctx context.Context, step fettle.Step) (r *round, to view, err error) {
	if err := a.ours(opMove, step.Target); err != nil {
		return nil, view{}, err
	}
	want, err := subjectOf(opMove, step, "to")
	if err != nil {
		return nil, view{}, err
	}
	r = a.look(ctx)
	if r.leader == 0 {
		return r, view{}, unseen(opMove, step.Target, errNoLeader)
	}
	if from, ok := r.of(step.Target); !ok || from.id != r.leader {
		return r, view{}, nil
	}
	for _, v := range r.views {
		if !v.listed || v.learner || v.subject == step.Target || r.serving(v) != fettle.Yes || want != "" && v.subject != want {
			continue
		}
		if to.status == nil || v.status.RaftAppliedIndex > to.status.RaftAppliedIndex {
			to = v
		}
	}
	if to.id == 0 {
		return r, view{}, fettle.Refuse(opMove, step.Target, "another voter serving again", "there is no other voter that serves and could lead")
	}
	return r, to, nil
}

// Preview implements fettle.Action.
func (a moveLeader) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	_, to, err := a.choose(ctx, step)
	switch {
	case err != nil:
		return fettle.Preview{}, err
	case to.id == 0:
		return would("nothing: %s does not lead", step.Target.Name()), nil
	}
	return would("hand leadership from %s to %s; for about a tenth of a second nothing is written", step.Target.Name(), to.name), nil
}

// Apply implements fettle.Action.
func (a moveLeader) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	r, to, err := a.choose(ctx, d.Step)
	if err != nil {
		return fettle.Result{}, err
	}
	if to.id == 0 {
		return a.led(r), nil
	}
	return a.hand(ctx, opMove, d.Step.Target, to)
}

// hand asks the leader to hand over. That it is not the leader any more is as
// good.
func (a moveLeader) hand(ctx context.Context, op string, target fettle.Subject, to view) (fettle.Result, error) {
	_, _, e, err := a.leader(ctx)
	if err != nil {
		return fettle.Result{}, unseen(op, target, err)
	}
	_, err = e.maintenance.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: to.id})
	if err != nil && sortError(err) != notLeader {
		return fettle.Result{}, outcome(op, target, err)
	}
	return a.led(a.look(ctx)), nil
}

func (a moveLeader) led(r *round) fettle.Result {
	v, ok := r.byID(r.leader)
	if !ok {
		return noted("no leader is known at this moment")
	}
	return fettle.Result{Outputs: fettle.Facts{"leader": string(v.subject)}, Notes: []string{v.name + " leads"}}
}

// Recover implements fettle.Action. That the target does not lead is what was
// wanted, whoever brought it about.
func (a moveLeader) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	return a.fate(ctx, d, func(r *round) (fettle.Result, bool) {
		v, ok := r.of(d.Step.Target)
		leads := ok && v.id == r.leader
		return a.led(r), r.leader != 0 && leads == d.Undo
	})
}

// Undo implements fettle.Action: it hands leadership back, as far as the target
// can take it.
func (a moveLeader) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	op := "undo " + opMove
	r := a.look(ctx)
	v, ok := r.of(d.Step.Target)
	switch {
	case !ok || !v.listed || v.learner || r.serving(v) != fettle.Yes:
		return fettle.Result{}, fettle.Refuse(op, d.Step.Target, "leave leadership where it is", "%s could not lead now", d.Step.Target.Name())
	case v.id == r.leader:
		return noted("%s leads", v.name), nil
	}
	result, err := a.hand(ctx, op, d.Step.Target, v)
	if err != nil {
		return result, fmt.Errorf("hand leadership back: %w", err)
	}
	return result, nil
}
