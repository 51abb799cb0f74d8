package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"fettle/internal/fettle"
	"fettle/internal/judge/runbook"
)

// Fill returns the step with its late parameters taken from the outputs of
// earlier steps, by id. The error is of class Refused: it names the output that
// is missing or of another type than was declared. The given step is not
// changed.
func Fill(step fettle.Step, steps map[string]fettle.Facts) (fettle.Step, error) {
	if len(step.Late) == 0 {
		return step, nil
	}
	step.Params = step.Params.Clone()
	if step.Params == nil {
		step.Params = fettle.Facts{}
	}
	for _, l := range step.Late {
		v, ok := steps[l.Step][l.Output]
		if !ok {
			return fettle.Step{}, fettle.Refuse(step.Action, step.Target, "look at what step "+l.Step+" answered; the plan must be made anew",
				"parameter %s waits for output %s of step %s, which did not come", l.Param, l.Output, l.Step)
		}
		if got := fettle.TypeOf(v); l.Type != "" && got != l.Type {
			return fettle.Step{}, fettle.Refuse(step.Action, step.Target, "the adapter's action does not keep to its catalogue",
				"parameter %s: output %s of step %s is %s, wanted %s", l.Param, l.Output, l.Step, runbook.TypeName(got), runbook.TypeName(l.Type))
		}
		step.Params[l.Param] = v
	}
	step.Late = nil
	return step, nil
}

// Hash is the SHA-256, in hex, of the plan's JSON without its hash. The JSON is
// canonical: fields in the order of the type, maps by key. A plan that has no
// JSON, because a fact in it is of no permitted type, has the hash "", which is
// no hash: Make makes none, and nothing may be approved under it.
func Hash(p fettle.Plan) string {
	text := Text(p)
	if text == nil {
		return ""
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Text is what Hash is the hash of, nil where there is none: who is given it can tell
// what was approved without knowing every field.
func Text(p fettle.Plan) []byte {
	p.Hash = ""
	text, err := json.Marshal(p)
	if err != nil {
		return nil
	}
	return text
}
