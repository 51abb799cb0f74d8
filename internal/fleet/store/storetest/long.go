package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

func longStory(t *testing.T, open Open) {
	s := load(t, open)
	long := Record("a", 3000) // 3000 events of 600 bytes
	s.commit(loop.Txn{Records: []incident.Record{long}})
	if len(long.Story) != 3000 || len(long.Story[0].Verdicts) != 1 {
		t.Fatal("the caller's record was changed")
	}
	s = s.again(open)
	got := s.state.Records[0]
	last := got.Story[len(got.Story)-1]
	equal(t, "last event", last, long.Story[2999])
	if got.Story[0].Text != "event 0" || len(got.Story) > 300 {
		t.Errorf("%d events, beginning with %q", len(got.Story), got.Story[0].Text)
	}
	left := slices.IndexFunc(got.Story, func(e fettle.Event) bool { return strings.Contains(e.Text, "left out") })
	if left < 0 || got.Story[left].Text != fmt.Sprintf("%d events are left out here; the log of decisions has them", 3000-len(got.Story)+1) {
		t.Errorf("it does not say how many events are missing: %+v", got.Story[max(left, 0)])
	}
	equal(t, "progress", got.Progress, long.Progress)
	equal(t, "plan", got.Plan, long.Plan)
}
