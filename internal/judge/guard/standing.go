package guard

import "fettle/internal/fettle"

// standing (S12): who is cut off from every server does only what its standing
// permit lets it, and nothing that takes. The executor asks the same of the permit
// itself; asked here too, no plan is begun that would be stopped half-way.
func standing(q Question) fettle.Verdict {
	switch {
	case q.Permit == nil:
		return allow("a server decides")
	case q.Action == nil:
		return refuse("what the action takes is not known", "", "the adapter that has the action")
	case q.Plan.Loses != "":
		return refuse("it would lose something for good: "+q.Plan.Loses, "", "a server, and a person's approval")
	case !q.Now.Before(q.Permit.Until):
		return refuse("permit "+q.Permit.Serial+" has ended", "until "+q.Permit.Until.UTC().Format("2006-01-02 15:04:05"), "contact with a server renews it")
	}
	if why := q.Permit.Refuses(q.Step, *q.Action, q.Undo); why != "" {
		return refuse("permit "+q.Permit.Serial+" does not let this host do it alone: "+why, "", "contact with a server; `fettle permits` shows what is granted")
	}
	return allow("permit " + q.Permit.Serial + " lets this host do it alone")
}
