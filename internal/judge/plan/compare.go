package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/world"
)

// Difference is one field that is not as it was foretold.
type Difference struct {
	Step      string         `json:"step"`
	Subject   fettle.Subject `json:"subject"`
	Field     string         `json:"field"` // a fact's name; of a quorum group's member: membership, id, vote, serving, leader, log_lost
	Predicted string         `json:"predicted"`
	Observed  string         `json:"observed"`
	Unseen    bool           `json:"unseen,omitempty"` // it was not observed since, so it may yet be as foretold
	Text      string         `json:"text"`             // "etcd-member:m/c1 serving: predicted yes, observed no"
}

// String returns Text.
func (d Difference) String() string { return d.Text }

const notYet = "not observed yet"

// Compare holds predictions against what was observed no earlier than since,
// field by field, and returns what differs, in the order of the predictions. An
// id, a member's serving and a lost log that were not foretold are not compared;
// nor is who leads, where that was left to an election, except that it must not
// be one of NotLeader.
func Compare(predictions []fettle.Prediction, view world.View, since time.Time) []Difference {
	c := &comparison{view: view, since: since}
	for _, p := range predictions {
		c.step = p.Step
		c.facts(p)
		if p.Quorum != nil {
			c.quorum(p)
		}
	}
	return c.found
}

type comparison struct {
	view  world.View
	since time.Time
	step  string
	found []Difference
}

func (c *comparison) differ(s fettle.Subject, field, predicted, observed string, unseen bool) {
	text := fmt.Sprintf("%s %s: predicted %s, observed %s", s, field, predicted, observed)
	if unseen {
		text = fmt.Sprintf("%s %s: predicted %s, %s", s, field, predicted, observed)
	}
	c.found = append(c.found, Difference{Step: c.step, Subject: s, Field: field, Predicted: predicted, Observed: observed, Unseen: unseen, Text: text})
}

func (c *comparison) facts(p fettle.Prediction) {
	seen := c.view.Facts(p.Subject)
	for _, name := range slices.Sorted(maps.Keys(p.Facts)) {
		want := p.Facts[name]
		asked, known := c.view.Asked(p.Subject, name)
		got, there := seen[name]
		switch {
		case !known || !there || asked.Before(c.since):
			c.differ(p.Subject, name, show(want), notYet, true)
		case !fettle.EqualValue(want, got):
			c.differ(p.Subject, name, show(want), show(got), false)
		}
	}
}

// show writes a value as a person reads it: text in quotes, so that "" and "5"
// can be told from nothing and 5.
func show(v fettle.Value) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case []string:
		return fmt.Sprintf("[%s]", strings.Join(v, ", "))
	case bool:
		return fettle.TriOf(v).String()
	default:
		return expr.Text(v)
	}
}

func (c *comparison) quorum(p fettle.Prediction) {
	got, ok := c.view.Quorum(p.Subject, c.since)
	if !ok {
		c.differ(p.Subject, "members", fmt.Sprintf("%d", len(p.Quorum.Members)), notYet, true)
		return
	}
	leader := fettle.Subject("")
	for _, m := range p.Quorum.Members {
		if m.Leader {
			leader = m.Subject
		}
	}
	for _, want := range p.Quorum.Members {
		has, member := got.Member(want.Subject)
		if !member {
			c.differ(want.Subject, "membership", "a member", "none", false)
			continue
		}
		c.member(want, has)
		if leader != "" && want.Leader != has.Leader {
			c.differ(want.Subject, "leader", yesNo(want.Leader), yesNo(has.Leader), false)
		}
		if leader == "" && has.Leader && slices.Contains(p.NotLeader, want.Subject) {
			c.differ(want.Subject, "leader", "no", "yes", false)
		}
	}
	for _, has := range got.Members {
		if _, foretold := p.Quorum.Member(has.Subject); !foretold {
			c.differ(has.Subject, "membership", "none", "a member", false)
		}
	}
}

func (c *comparison) member(want, has fettle.QuorumMember) {
	if want.ID != "" && want.ID != has.ID {
		c.differ(want.Subject, "id", want.ID, has.ID, false)
	}
	if want.Voter != has.Voter {
		c.differ(want.Subject, "vote", yesNo(want.Voter), yesNo(has.Voter), false)
	}
	switch {
	case want.Serving == fettle.Unknown || want.Serving == has.Serving:
	case has.Serving == fettle.Unknown:
		c.differ(want.Subject, "serving", want.Serving.String(), "not known yet", true)
	default:
		c.differ(want.Subject, "serving", want.Serving.String(), has.Serving.String(), false)
	}
	// Whether a log is whole is seen only from the member's own host, and not
	// by every observer of the group: not to see it speaks against nothing.
	if want.LogLost != fettle.Unknown && has.LogLost != fettle.Unknown && want.LogLost != has.LogLost {
		c.differ(want.Subject, "log_lost", want.LogLost.String(), has.LogLost.String(), false)
	}
}

func yesNo(b bool) string { return fettle.TriOf(b).String() }
