package guard

import (
	"slices"
	"time"

	"fettle/internal/fettle"
)

// vote is a quorum group's member that a step touches without naming it: the
// unit that a member runs as, or the host that it runs on.
type vote struct {
	group, member fettle.Subject
	unknown       bool // nobody told of the group of late: what was known is not known now
	stranger      bool // the group has no such member: what it would do when it runs, it does by itself
}

// implied finds the votes that hang on the step's target, at most two uses away.
// A runbook that restarts a unit takes the vote of the member that the unit
// serves, whatever the runbook says. A group of which nobody has told of late has
// its members still: they are votes of which nothing is known.
func implied(q Question) []vote {
	k := q.Step.Target.Kind()
	if k != fettle.KindUnit && k != fettle.KindHost {
		return nil
	}
	at := append(q.View.Related(q.Step.Target, "<uses"), q.View.Related(q.Step.Target, "<uses <uses")...)
	if k == fettle.KindHost {
		at = append(at, q.View.Related(q.Step.Target, "<runs-on")...)
	}
	var out []vote
	for _, s := range at {
		for _, g := range q.View.Related(s, ">part-of") {
			group, fresh := q.View.Quorum(g, q.since())
			if !fresh {
				group, _ = q.View.Quorum(g, time.Time{})
			}
			m, member := group.Member(s)
			v := vote{g, s, !fresh, !member}
			if (m.Voter || !member && len(group.Members) > 0) && !slices.Contains(out, v) {
				out = append(out, v)
			}
		}
	}
	return out
}

// impliedQuorum (S2) counts the votes that a step takes without naming them. To take
// back what took nothing takes: who undoes a start stops what was started.
func impliedQuorum(q Question) fettle.Verdict {
	if !has(q.Step.Takes, fettle.TakesCapacity) && !q.Undo {
		return allow("the step takes no capacity from what a voter runs on")
	}
	for _, v := range implied(q) {
		if v.stranger {
			continue // it has no vote; whether it may be started is the next guard's question
		}
		if v.unknown {
			return refuse("the votes of "+string(v.group)+" are not known, and "+string(v.member)+" hangs on it", "", "an observer that can reach a member of the group")
		}
		now, _ := q.View.Quorum(v.group, q.since())
		next := silenced(now, v.member)
		as := q
		as.Step.Group, as.Step.Target = v.group, v.member
		as.Step.Takes = append(slices.Clone(q.Step.Takes), fettle.TakesVotes)
		if verdict := votes(as, now, next); !verdict.Allow {
			return verdict
		}
	}
	return allow("no vote hangs on it that cannot be spared")
}

// impliedIdentity (S2): starting the unit of a voter starts the voter. One that the
// others do not count among them (it was removed, or they were made anew without it)
// would found a group of its own with what it finds, under the old name.
func impliedIdentity(q Question) fettle.Verdict {
	if q.Undo && (q.Step.Target.Kind() != fettle.KindUnit || !has(q.Step.Takes, fettle.TakesCapacity)) {
		return allow("to take it back starts no unit")
	}
	for _, v := range implied(q) {
		if v.stranger {
			return refuse("it may start "+string(v.member)+", which is no member of "+string(v.group)+" as the others see it", "", "the repair of "+string(v.member)+", which joins it under a new identity")
		}
		if v.unknown && has(q.Step.Takes, fettle.TakesCapacity) {
			continue // its vote is counted, and that is not known either
		}
		if v.unknown {
			return refuse("it may start "+string(v.member)+", and it is not known now whether its log is whole", "", "an observer of "+string(v.group))
		}
		group, _ := q.View.Quorum(v.group, q.since())
		m, _ := group.Member(v.member)
		if m.Serving == fettle.Yes {
			continue // it runs, with its log
		}
		switch m.LogLost {
		case fettle.No:
		case fettle.Yes:
			return refuse("it would start "+string(v.member)+", whose log is lost or damaged, under its old identity "+m.ID, "", "the repair of "+string(v.member)+" under a new identity")
		default:
			return refuse("it would start "+string(v.member)+", and it is not known whether its log is whole", "", "an agent on its host that can read its data directory")
		}
	}
	return allow("it starts no voter with a lost log")
}
