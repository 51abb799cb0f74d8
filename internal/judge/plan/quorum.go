package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"fettle/internal/fettle"
)

// noTime takes everything that is known, however old. How fresh it must be is
// for the guards.
var noTime time.Time

// change returns what becomes of a group, and whether on must not lead
// afterwards although it is not foretold who will.
//
// What already is so stays so: the removal of who is no member, the promotion of
// a voter. What cannot be is an error: to lead without a vote, to start outside
// of the group.
//
//	stop         serves no more; if it led, somebody else will, or nobody
//	start        serves; where there was no quorum before, whether the others
//	             serve from then on is not known
//	remove       is no member; if it led, somebody else will, or nobody
//	add-learner  is a member without a vote; whether it serves, under which
//	             identity and whether its log is whole is not known
//	promote      has a vote; all else stays
//	lead         leads, and nobody else
//	yield        leads no more; who does is not known
//	only         is the whole group, serves and leads; its identity is not known
func change(g fettle.QuorumGroup, effect fettle.QuorumEffect, on fettle.Subject) (next fettle.QuorumGroup, yields bool, err error) {
	next = g.Clone()
	i := slices.IndexFunc(next.Members, func(m fettle.QuorumMember) bool { return m.Subject == on })
	if i < 0 {
		switch effect {
		case fettle.QuorumRemove, fettle.QuorumYield:
			return next, false, nil
		case fettle.QuorumLearner:
			next.Members = append(next.Members, fettle.QuorumMember{Subject: on})
			slices.SortFunc(next.Members, func(a, b fettle.QuorumMember) int { return cmp.Compare(a.Subject, b.Subject) })
			return next, false, nil
		}
		return next, false, fmt.Errorf("%s is not a member", on)
	}
	m := &next.Members[i]
	led := m.Leader
	switch effect {
	case fettle.QuorumStop:
		m.Serving, m.Leader = fettle.No, false
		return next, led, nil
	case fettle.QuorumStart:
		m.Serving = fettle.Yes
		if g.ServingVotes() < g.Majority() {
			for j := range next.Members {
				if j != i && next.Members[j].Serving == fettle.No {
					next.Members[j].Serving = fettle.Unknown
				}
			}
		}
	case fettle.QuorumRemove:
		next.Members = slices.Delete(next.Members, i, i+1)
		return next, led, nil
	case fettle.QuorumLearner:
		if m.Voter {
			return next, false, fmt.Errorf("%s is a voter already; remove it first", on)
		}
	case fettle.QuorumPromote:
		m.Voter = true
	case fettle.QuorumLead:
		if !m.Voter {
			return next, false, fmt.Errorf("%s has no vote, so it cannot lead", on)
		}
		for j := range next.Members {
			next.Members[j].Leader = j == i
		}
	case fettle.QuorumYield:
		m.Leader = false
		return next, true, nil
	case fettle.QuorumOnly:
		next.Members = []fettle.QuorumMember{{Subject: on, Voter: true, Serving: fettle.Yes, Leader: true}}
	default:
		return next, false, fmt.Errorf("unknown effect %q", effect)
	}
	return next, false, nil
}
