package guard

import (
	"slices"

	"fettle/internal/fettle"
)

// vote is a quorum group's member that a step touches without naming it: the
// unit that a member runs as, or the host that it runs on.
type vote struct {
	group, member fettle.Subject
}

// implied finds the votes that hang on the step's target, at most two uses away.
// A runbook that restarts a unit takes the vote of the member that the unit
// serves, whatever the runbook says.
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
			group, ok := q.View.Quorum(g, q.since())
			if !ok {
				continue
			}
			if m, ok := group.Member(s); ok && m.Voter && !slices.Contains(out, vote{g, s}) {
				out = append(out, vote{g, s})
			}
		}
	}
	return out
}

// impliedQuorum (S2) counts the votes that a step takes without naming them.
func impliedQuorum(q Question) fettle.Verdict {
	if !has(q.Step.Takes, fettle.TakesCapacity) {
		return allow("the step takes no capacity from what a voter runs on")
	}
	for _, v := range implied(q) {
		now, _ := q.View.Quorum(v.group, q.since())
		next := now.Clone()
		for i := range next.Members {
			if next.Members[i].Subject == v.member {
				next.Members[i].Serving = fettle.No
			}
		}
		as := q
		as.Step.Group, as.Step.Target, as.Predicted = v.group, v.member, &next
		as.Step.Takes = append(slices.Clone(q.Step.Takes), fettle.TakesVotes)
		if verdict := quorum(as); !verdict.Allow {
			return verdict
		}
	}
	return allow("no vote hangs on it that cannot be spared")
}

// impliedIdentity (S2): starting the unit of a voter starts the voter.
func impliedIdentity(q Question) fettle.Verdict {
	if q.Undo {
		return allow("taking back")
	}
	for _, v := range implied(q) {
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
