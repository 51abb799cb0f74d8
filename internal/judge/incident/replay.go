package incident

import (
	"fmt"
	"slices"

	"fettle/internal/fettle"
)

// Recording is what a mind was given, from its beginning, and what it made of
// it: enough to come to the same decisions again. Its JSON is the incident file
// of `fettle replay`.
type Recording struct {
	Schema    int               `json:"schema"`
	Pins      fettle.Pins       `json:"pins"`
	Policy    fettle.Policy     `json:"policy"`
	Evaluates []fettle.Scope    `json:"evaluates,omitempty"`
	Begun     []Record          `json:"begun,omitempty"` // records that it was restored from
	Inputs    []Input           `json:"inputs"`
	Truncated bool              `json:"truncated,omitempty"` // some inputs are missing: it cannot be replayed
	Incidents []fettle.Incident `json:"incidents"`           // as they stood after the last input
}

// Replay feeds a recording to a fresh mind with the same catalogues, runbooks
// and policy, and returns what is decided differently, a sentence each. An error
// means that it could not be replayed, which is not agreement.
func (rec *Recording) Replay(m *Mind) ([]string, error) {
	switch {
	case rec.Schema != 1:
		return nil, fmt.Errorf("recording: schema %d; this program reads schema 1", rec.Schema)
	case rec.Truncated:
		return nil, fmt.Errorf("recording: it was truncated, so the same inputs cannot be given again")
	case len(rec.Inputs) == 0:
		return nil, fmt.Errorf("recording: it has no inputs")
	}
	var diff []string
	pin := func(what, was, is string) {
		if was != is {
			diff = append(diff, fmt.Sprintf("the %s changed since: was %.12s, is %.12s", what, was, is))
		}
	}
	now := m.Pins()
	pin("judge", rec.Pins.Judge, now.Judge)
	pin("catalogue", rec.Pins.Catalogue, now.Catalogue)
	pin("runbooks", rec.Pins.Runbooks, now.Runbooks)
	pin("policy", rec.Pins.Policy, now.Policy)
	m.Restore(slices.Clone(rec.Begun), nil)
	for _, in := range rec.Inputs {
		m.Take(in)
	}
	again := map[string]fettle.Incident{}
	for _, in := range m.Incidents() {
		again[in.ID] = in
	}
	for _, was := range rec.Incidents {
		is, ok := again[was.ID]
		if !ok {
			diff = append(diff, fmt.Sprintf("incident %s (%s) is not opened", was.ID, was.Cause))
			continue
		}
		delete(again, was.ID)
		diff = append(diff, compareIncidents(was, is)...)
	}
	for _, in := range m.Incidents() {
		if _, left := again[in.ID]; left {
			diff = append(diff, fmt.Sprintf("incident %s (%s) is opened, and was not", in.ID, in.Cause))
		}
	}
	return diff, nil
}

func compareIncidents(was, is fettle.Incident) []string {
	var diff []string
	if was.State != is.State || was.Why != is.Why {
		diff = append(diff, fmt.Sprintf("incident %s: was %s (%s), is %s (%s)", was.ID, was.State, was.Why, is.State, is.Why))
	}
	if planHash(was) != planHash(is) {
		diff = append(diff, fmt.Sprintf("incident %s: the plan was %.12s, is %.12s", was.ID, planHash(was), planHash(is)))
	}
	for i := range max(len(was.Story), len(is.Story)) {
		a, b := line(was.Story, i), line(is.Story, i)
		if a != b {
			diff = append(diff, fmt.Sprintf("incident %s, event %d: was %q, is %q", was.ID, i+1, a, b))
			break // what follows differs because this does
		}
	}
	return diff
}

func planHash(in fettle.Incident) string {
	if in.Plan == nil {
		return ""
	}
	return in.Plan.Hash
}

func line(story []fettle.Event, i int) string {
	if i >= len(story) {
		return "nothing"
	}
	e := story[i]
	return fmt.Sprintf("%s %s %s %s ×%d", e.At.UTC().Format("15:04:05.000000"), e.Kind, e.Step, e.Text, max(e.Times, 1))
}
