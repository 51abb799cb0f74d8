package store

import (
	"encoding/json"
	"fmt"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

// SlimBytes is how large a record may grow before what the log has anyway is
// left out of it.
const SlimBytes = 512 << 10

// What stays of a story that is too long: how it began, and where it stands.
const (
	slimFirst    = 16
	slimLast     = 128
	slimVerdicts = 32 // the last events keep their verdicts
)

// pack writes a record, slimmer where it is too large.
func pack(r incident.Record) ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("incident %s: %w", r.ID, err)
	}
	if len(data) > SlimBytes {
		r.Story = Slim(r.Story)
		if data, err = json.Marshal(r); err != nil {
			return nil, fmt.Errorf("incident %s: %w", r.ID, err)
		}
	}
	if len(data) > MaxItem {
		return nil, fmt.Errorf("incident %s: %d bytes, at most %d are kept (its plan or diagnosis is far too large: a defect)", r.ID, len(data), MaxItem)
	}
	return data, nil
}

// Slim returns a story without old verdicts and, when it is long, without its
// middle. The story that it is given is not changed.
func Slim(story []fettle.Event) []fettle.Event {
	out := make([]fettle.Event, 0, min(len(story), slimFirst+slimLast+1))
	for i, e := range story {
		if i < len(story)-slimVerdicts {
			e.Verdicts = nil
		}
		if len(story) <= slimFirst+slimLast+1 || i < slimFirst || i >= len(story)-slimLast {
			out = append(out, e)
			continue
		}
		if i == slimFirst {
			n := len(story) - slimFirst - slimLast
			out = append(out, fettle.Event{At: e.At, Kind: fettle.EvNote, Text: fmt.Sprintf("%d events are left out here; the log of decisions has them", n)})
		}
	}
	return out
}
