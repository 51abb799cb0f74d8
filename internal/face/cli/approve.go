package cli

import (
	"cmp"
	"fmt"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
	"fettle/internal/judge/plan"
)

// finishRoom is how much longer than its own bounds a plan that began in time may take:
// the guards may hold a later step up.
const finishRoom = time.Hour

// approve signs the approval of an incident's plan. The plan that was shown must be the
// one that its hash is of: what is signed is the hash, and a server could show another.
func approve(in fettle.Incident, life time.Duration, by *pki.Identity, now time.Time) (warrant.Signed, error) {
	if plan.Hash(*in.Plan) != in.Plan.Hash {
		return warrant.Signed{}, fmt.Errorf("incident %s: the plan that the server shows does not have the hash %.12s that it says; nothing is approved (are server and command of the same version?)", in.ID, in.Plan.Hash)
	}
	until := now.Add(cmp.Or(max(life, 0), approvalLife))
	finish := until.Add(finishRoom)
	for _, s := range in.Plan.Steps {
		finish = finish.Add(s.Timeout + s.Within + s.Hold)
	}
	second := func(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
	return warrant.SignApproval(warrant.Approval{
		Fleet: by.Name.Fleet, Incident: in.ID, Plan: in.Plan.Hash, At: second(now), Until: second(until), Finish: second(finish),
	}, by)
}
