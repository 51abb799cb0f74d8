package guard

import (
	"fmt"
	"slices"

	"fettle/internal/fettle"
)

// counts reports whether the step can change a group's votes.
func counts(q Question) bool {
	if has(q.Step.Takes, fettle.TakesVotes) {
		return true
	}
	for _, e := range q.Step.Effects {
		if e.Quorum != "" {
			return true
		}
	}
	return false
}

// quorum (S2): in the predicted state the group keeps at least min(what it had,
// its majority) serving votes, with every other claim in flight counted as lost. To take
// a step on a vote back may silence it, whatever the step did: a start is undone by a
// stop. That state must be fit too.
func quorum(q Question) fettle.Verdict {
	if !counts(q) {
		return allow("the step touches no vote")
	}
	if q.Step.Group == "" {
		return refuse("the step takes votes but names no quorum group", "", "name the `group` in the runbook")
	}
	now, ok := q.View.Quorum(q.Step.Group, q.since())
	if !ok {
		return refuse("the votes of "+string(q.Step.Group)+" are not known", "", "an observer that can reach a member of the group")
	}
	if q.Predicted == nil {
		return refuse("what becomes of the votes cannot be predicted", "", "an action that declares its effect on the group")
	}
	if v := votes(q, now, *q.Predicted); !v.Allow || !q.Undo {
		return v
	}
	if m, ok := now.Member(q.Step.Target); !ok || !m.Voter || m.Serving == fettle.No {
		return allow("it has no serving vote that taking back could silence")
	}
	return votes(q, now, silenced(now, q.Step.Target))
}

// votes holds a group as it is against how it would be.
func votes(q Question, now, next fettle.QuorumGroup) fettle.Verdict {
	before, after := now.ServingVotes(), next.ServingVotes()
	claimed := 0
	for _, member := range claimedVotes(q) {
		if m, ok := next.Member(member); ok && member != q.Step.Target && m.Voter && m.Serving == fettle.Yes {
			claimed++
		}
	}
	had := before
	if q.Undo || has(q.Step.Takes, fettle.TakesVotes) {
		had += doubtfulVotes(now) // what may serve is what may be lost
	}
	need := min(had, next.Majority())
	sum := fmt.Sprintf("serving %d → %d, claimed by others %d, majority of %d voters is %d: %d − %d = %d, needs %d",
		before, after, claimed, next.Voters(), next.Majority(), after, claimed, after-claimed, need)
	if after-claimed < need {
		return refuse("it would leave too few serving votes in "+string(q.Step.Group), sum, "another member serving again")
	}
	membership := fmt.Sprint(ids(now)) != fmt.Sprint(ids(next))
	if membership && before < now.Majority() && !approved(q) {
		return refuse("the group has no quorum, and its membership is never changed then without a person", sum,
			"start the lost members with their own data, or approve this plan knowing what it loses")
	}
	v := allow("enough votes stay")
	v.Arithmetic = sum
	return v
}

// silenced is a group in which a member does not serve any more.
func silenced(g fettle.QuorumGroup, member fettle.Subject) fettle.QuorumGroup {
	next := g.Clone()
	for i := range next.Members {
		if next.Members[i].Subject == member {
			next.Members[i].Serving = fettle.No
		}
	}
	return next
}

// doubtfulVotes counts the voters that may serve: those of which nobody knows, or those
// who look disagree. Where a link is cut the fewer may be right.
func doubtfulVotes(g fettle.QuorumGroup) int {
	n := 0
	for _, m := range g.Members {
		if m.Voter && (m.Serving == fettle.Unknown || m.Disputed) {
			n++
		}
	}
	return n
}

// claimedVotes are the members whose votes steps in flight take away: those that
// claim them, and those on whose unit or host somebody works, whatever that says.
func claimedVotes(q Question) []fettle.Subject {
	var out []fettle.Subject
	for _, c := range q.View.Claims() {
		hit := []fettle.Subject{c.Member}
		switch k := c.Member.Kind(); {
		case c.What == fettle.TakesVotes && c.Of == q.Step.Group:
		case c.What == fettle.TakesCapacity && (k == fettle.KindUnit || k == fettle.KindHost):
			hit = append(q.View.Related(c.Member, "<uses"), q.View.Related(c.Member, "<uses <uses")...)
			hit = append(hit, q.View.Related(c.Member, "<runs-on")...)
		default:
			continue
		}
		for _, m := range hit {
			if !has(out, m) {
				out = append(out, m)
			}
		}
	}
	return out
}

// ids are the identities that vote, or will: what a change of membership changes.
func ids(g fettle.QuorumGroup) []string {
	var out []string
	for _, m := range g.Members {
		if m.Voter {
			out = append(out, m.ID)
		}
	}
	return out
}

// identity (S2): a member whose log is lost, or not known to be whole, never
// votes under its old identity. To take a stop back is a start.
func identity(q Question) fettle.Verdict {
	start := fettle.QuorumStart
	if q.Undo {
		start = fettle.QuorumStop
	}
	starts := slices.ContainsFunc(q.Step.Effects, func(e fettle.EffectSpec) bool { return e.Quorum == start })
	if !starts || q.Step.Group == "" {
		return allow("the step starts no voter")
	}
	now, ok := q.View.Quorum(q.Step.Group, q.since())
	if !ok {
		return refuse("the votes of "+string(q.Step.Group)+" are not known", "", "an observer that can reach a member of the group")
	}
	m, ok := now.Member(q.Step.Target)
	if !ok || !m.Voter {
		return allow("it starts without a vote")
	}
	switch m.LogLost {
	case fettle.No:
		return allow("its log is whole, so its vote is its own")
	case fettle.Yes:
		return refuse("its log is lost or damaged: voting again as "+m.ID+" could take back what the group agreed on", "", "remove it and add it under a new identity")
	default:
		return refuse("it is not known whether its log is whole", "", "an agent on its host that can read its data directory")
	}
}

// replicas (S2): the set keeps at least min(what it had, its minimum) in sync.
func replicas(q Question) fettle.Verdict {
	taken := map[fettle.Subject]int{}
	for _, c := range q.Step.Claims {
		if c.What == fettle.TakesReplicas {
			taken[c.Of]++
		}
	}
	if has(q.Step.Takes, fettle.TakesReplicas) && len(taken) == 0 {
		return refuse("the step takes a replica but claims none", "", "name the claim in the runbook")
	}
	for _, c := range q.Step.Claims {
		n := taken[c.Of]
		if n == 0 {
			continue
		}
		set, ok := q.View.Replicas(c.Of, q.since())
		if !ok {
			return refuse("the copies of "+string(c.Of)+" are not known", "", "an observer of the replica set")
		}
		others := 0
		for _, o := range q.View.Claims() {
			if o.What == fettle.TakesReplicas && o.Of == c.Of && o.Member != c.Member {
				others++
			}
		}
		left, need := set.InSync-n-others, min(set.InSync, set.Minimum)
		sum := fmt.Sprintf("in sync %d − taken %d − claimed by others %d = %d, needs %d", set.InSync, n, others, left, need)
		if left < need {
			return refuse("it would leave too few copies of "+string(c.Of), sum, "another copy in sync again")
		}
	}
	return allow("enough copies stay")
}

// budget (S3): the ill and the claimed of a pool, with this step's claims, stay
// within every budget for their kind.
func budget(q Question) fettle.Verdict {
	if q.Undo {
		return allow("taking back is free of budgets")
	}
	if len(q.Step.Takes) > 0 && len(q.Step.Claims) == 0 && (has(q.Step.Takes, fettle.TakesCapacity) || has(q.Step.Takes, fettle.TakesVotes)) {
		return refuse("the step takes something but claims nothing, so it cannot be counted", "", "name the claim in the runbook")
	}
	for _, c := range q.Step.Claims {
		if c.Of == "" || c.Member == "" {
			return refuse("a claim on nothing: an empty selector matches nothing", "", "name what is claimed in the runbook")
		}
		if q.Ill(c.Member) || lostGroup(q, c) {
			continue // already lost: it spends the rate, not availability
		}
		for _, b := range q.Policy.Budgets {
			if b.Kind != c.Member.Kind() {
				continue
			}
			if v := spend(q, b, c); !v.Allow {
				return v
			}
		}
	}
	return allow("within every budget")
}

// lostGroup reports whether a claim is for a vote in a group that is known to
// have no quorum: there is nothing left that the step could take.
func lostGroup(q Question, c fettle.Claim) bool {
	g, ok := q.View.Quorum(c.Of, q.since())
	return ok && c.What == fettle.TakesVotes && g.ServingVotes() < g.Majority()
}

func spend(q Question, b fettle.Budget, c fettle.Claim) fettle.Verdict {
	pools := q.View.Related(c.Member, b.Pool)
	if len(pools) == 0 {
		return allow("it is in no such pool")
	}
	for _, pool := range pools {
		members := q.View.Related(pool, b.Pool.Reverse())
		out := 0
		for _, m := range members {
			if m == c.Member || q.Ill(m) || claimed(q, m) || q.Doubtful != nil && q.Doubtful(m) {
				out++
			}
		}
		limit := max(min(b.MaxNumber, len(members)*b.MaxPermille/1000), b.Floor)
		sum := fmt.Sprintf("%d of %d in %s ill or claimed with this; limit max(min(%d, %d‰ of %d = %d), floor %d) = %d; %d must stay",
			out, len(members), pool, b.MaxNumber, b.MaxPermille, len(members), len(members)*b.MaxPermille/1000, b.Floor, limit, b.MinStay)
		if out > limit {
			return refuse("the budget of "+string(pool)+" is spent", sum, "others healthy again, or a larger budget in the policy")
		}
		if len(members)-out < b.MinStay {
			return refuse("too few of "+string(pool)+" would stay", sum, "others healthy again")
		}
	}
	return allow("within the budget")
}

func claimed(q Question, m fettle.Subject) bool {
	for _, c := range q.View.Claims() {
		if c.Member == m {
			return true
		}
	}
	return false
}
