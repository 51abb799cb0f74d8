package executor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"fettle/internal/act/execute"
	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
	"fettle/internal/judge/plan"
)

// approved is execute.Options.Approved: whether what needs a person's approval has it.
func (e *Executor) approved(d fettle.Dispatch, spec fettle.ActionSpec, past execute.Past) error {
	switch {
	case !e.ruling.now().NeedsPerson(spec):
		return nil
	case d.Undo && past.Step: // it gives back what this host has begun
		return nil
	case past.Done && !d.Undo: // an approval is for one run of its plan
		return errors.New("this step of the plan was done on this host already, and what was approved was to do it once")
	case d.Approval == nil:
		return errors.New("this host does it only with a person's signed approval, and none came with it")
	}
	by, err := checkApproval(d, past, e.o.Trust(), e.o.Clock.Wall())
	if err != nil {
		return err
	}
	e.o.Log.Info("a person approved it", "action", d.Step.Action, "target", d.Step.Target, "by", by.ID, "incident", d.Incident, "plan", d.Plan)
	return nil
}

// checkApproval verifies that a person approved the plan of a dispatch, and that its
// step is one of that plan.
func checkApproval(d fettle.Dispatch, past execute.Past, trust *pki.Trust, wall time.Time) (pki.Name, error) {
	a, by, err := warrant.OpenApproval(warrant.Signed{Note: d.Approval.Note, Certificate: d.Approval.Certificate}, trust)
	switch {
	case err != nil:
		return by, err
	case a.Plan != d.Plan:
		return by, fmt.Errorf("what %s approved is plan %.12s, and this is a step of %.12s", by.ID, a.Plan, d.Plan)
	case a.Incident != d.Incident:
		return by, fmt.Errorf("%s approved it for incident %.40s, and this is %.40s", by.ID, a.Incident, d.Incident)
	case wall.After(a.Finish):
		return by, fmt.Errorf("the approval by %s ended at %s", by.ID, a.Finish.Format(time.RFC3339))
	case warrant.HashOf(d.Approval.Plan) != a.Plan:
		return by, errors.New("the plan that came along is not the one that was approved")
	}
	var p fettle.Plan
	if err := json.Unmarshal(d.Approval.Plan, &p); err != nil {
		return by, fmt.Errorf("the approved plan cannot be read: %w", err)
	}
	if p.Incident != d.Incident {
		return by, fmt.Errorf("the approved plan is of incident %.40s", p.Incident)
	}
	i := slices.IndexFunc(p.Steps, func(s fettle.Step) bool { return s.ID == d.Step.ID })
	if i < 0 {
		return by, fmt.Errorf("the approved plan has no step %.40q", d.Step.ID)
	}
	// Who begins a plan must do so in time. Later steps on other hosts follow until the
	// finish: a plan is not left half done.
	if wall.After(a.Until) && !past.Plan && i == 0 {
		return by, fmt.Errorf("the approval by %s ended at %s, before the plan began", by.ID, a.Until.Format(time.RFC3339))
	}
	return by, sameStep(p.Steps[i], d.Step)
}

// sameStep refuses a step that is not the planned one with its late parameters filled
// in. Their values come from earlier steps, perhaps of other hosts: their types are all
// that can be held to.
func sameStep(planned, step fettle.Step) error {
	outputs := map[string]fettle.Facts{}
	for _, l := range planned.Late {
		if outputs[l.Step] == nil {
			outputs[l.Step] = fettle.Facts{}
		}
		if v, ok := step.Params[l.Param]; ok {
			outputs[l.Step][l.Output] = v
		}
	}
	want, err := plan.Fill(planned, outputs)
	if err != nil {
		return err
	}
	a, aerr := json.Marshal(want)
	b, berr := json.Marshal(step)
	if err := errors.Join(aerr, berr); err != nil {
		return err
	}
	if !bytes.Equal(a, b) {
		return fmt.Errorf("the step is not step %.40q as it was approved", planned.ID)
	}
	return nil
}
