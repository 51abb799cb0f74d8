package runbook

import "fettle/internal/judge/runbook/yamlfile"

type testShape struct {
	yamlfile.Placed
	Runbook yamlfile.Text `yaml:"runbook" jsonschema:"required" jsonschema_description:"The name of the runbook that is tested."`
	Policy  *policyShape  `yaml:"policy" jsonschema_description:"The policy that holds. Left out: the default."`
	World   []seenShape   `yaml:"world" jsonschema_description:"Observations that every case begins with."`
	Cases   []caseShape   `yaml:"cases" jsonschema:"required"`
}

func (testShape) Noun() string { return "a runbook test" }

type caseShape struct {
	yamlfile.Placed
	Case    yamlfile.Text `yaml:"case" jsonschema:"required" jsonschema_description:"Its name, unique in the file."`
	Doc     yamlfile.Text `yaml:"doc"`
	Observe []seenShape   `yaml:"observe" jsonschema_description:"Observations that arrive, besides those of world."`
	Expect  []checkShape  `yaml:"expect" jsonschema:"required" jsonschema_description:"What must follow, and when."`
}

func (caseShape) Noun() string { return "a case" }

type seenShape struct {
	yamlfile.Placed
	At       yamlfile.Duration            `yaml:"at" jsonschema_description:"When it was asked for and arrives, from the beginning. Left out: 0s."`
	Subject  yamlfile.Text                `yaml:"subject" jsonschema:"required"`
	Host     yamlfile.Text                `yaml:"host" jsonschema:"required" jsonschema_description:"The host whose agent looked."`
	Probe    yamlfile.Text                `yaml:"probe" jsonschema:"required"`
	Facts    yamlfile.Map[yamlfile.Value] `yaml:"facts"`
	Edges    []edgeShape                  `yaml:"edges"`
	Quorum   []memberShape                `yaml:"quorum"`
	Replicas *replicasShape               `yaml:"replicas"`
	Reason   yamlfile.Text                `yaml:"reason" jsonschema:"enum=unreachable,enum=timed out,enum=permission denied,enum=not supported,enum=failed" jsonschema_description:"Nothing is known, and why."`
	Gone     yamlfile.Bool                `yaml:"gone" jsonschema_description:"The subject no longer exists, as far as this observer can see."`
}

func (seenShape) Noun() string { return "an observation" }

type edgeShape struct {
	yamlfile.Placed
	From yamlfile.Text `yaml:"from" jsonschema_description:"Left out: the subject of the observation."`
	Rel  yamlfile.Text `yaml:"rel" jsonschema:"required,enum=runs-on,enum=part-of,enum=uses,enum=in"`
	To   yamlfile.Text `yaml:"to" jsonschema:"required"`
}

func (edgeShape) Noun() string { return "an edge" }

type memberShape struct {
	yamlfile.Placed
	Subject yamlfile.Text `yaml:"subject" jsonschema:"required"`
	ID      yamlfile.Text `yaml:"id" jsonschema_description:"The identity under which it votes."`
	Voter   yamlfile.Bool `yaml:"voter" jsonschema_description:"Left out: true."`
	Serving yamlfile.Text `yaml:"serving" jsonschema:"required,enum=yes,enum=no,enum=unknown"`
	Leader  yamlfile.Bool `yaml:"leader"`
	LogLost yamlfile.Text `yaml:"log_lost" jsonschema:"enum=yes,enum=no,enum=unknown" jsonschema_description:"Whether its log is gone. Left out: unknown."`
}

func (memberShape) Noun() string { return "a member" }

type replicasShape struct {
	yamlfile.Placed
	Copies  yamlfile.Int `yaml:"copies" jsonschema:"required,minimum=0"`
	InSync  yamlfile.Int `yaml:"in_sync" jsonschema:"required,minimum=0"`
	Minimum yamlfile.Int `yaml:"minimum" jsonschema:"required,minimum=0"`
}

func (replicasShape) Noun() string { return "a replica set" }

type checkShape struct {
	yamlfile.Placed
	At      yamlfile.Duration `yaml:"at" jsonschema:"required" jsonschema_description:"When it is looked at, from the beginning."`
	Raised  []yamlfile.Text   `yaml:"raised" jsonschema_description:"Conditions, each as CODE on SUBJECT."`
	Clear   []yamlfile.Text   `yaml:"clear"`
	Unknown []yamlfile.Text   `yaml:"unknown"`
	Causes  []yamlfile.Text   `yaml:"causes" jsonschema_description:"All causes of the diagnosis, each as CODE on SUBJECT; [] is none."`
	Plan    *wantPlanShape    `yaml:"plan" jsonschema_description:"The plan that must have been made."`
	NoPlan  yamlfile.Text     `yaml:"no_plan" jsonschema_description:"No rung may apply; a part of the reason that must be given."`
	Begun   []yamlfile.Text   `yaml:"begun" jsonschema_description:"All steps that were allowed and handed out, by id; [] is none: nothing is touched."`
	Refused *refusedShape     `yaml:"refused" jsonschema_description:"The refusal that must follow."`
}

func (checkShape) Noun() string { return "an expectation" }

type wantPlanShape struct {
	yamlfile.Placed
	Rung  yamlfile.Text   `yaml:"rung" jsonschema:"required"`
	Level yamlfile.Text   `yaml:"level" jsonschema:"enum=observe,enum=shadow,enum=suggest,enum=approve,enum=automatic"`
	Loses yamlfile.Text   `yaml:"loses" jsonschema_description:"A part of what is said to be lost."`
	Steps []wantStepShape `yaml:"steps" jsonschema:"required" jsonschema_description:"All steps that are not skipped, in order."`
}

func (wantPlanShape) Noun() string { return "a wanted plan" }

type wantStepShape struct {
	yamlfile.Placed
	ID     yamlfile.Text                `yaml:"id" jsonschema:"required"`
	Action yamlfile.Text                `yaml:"action"`
	Target yamlfile.Text                `yaml:"target"`
	Host   yamlfile.Text                `yaml:"host"`
	With   yamlfile.Map[yamlfile.Value] `yaml:"with" jsonschema_description:"Parameters; those not named are not compared."`
}

func (wantStepShape) Noun() string { return "a wanted step" }

// FromText reads the short form, an id alone.
func (w *wantStepShape) FromText(t yamlfile.Text) { w.ID = t }

type refusedShape struct {
	yamlfile.Placed
	Step      yamlfile.Text `yaml:"step" jsonschema_description:"Left out: any step."`
	Invariant yamlfile.Text `yaml:"invariant" jsonschema:"required,pattern=^S[0-9]+$"`
	Why       yamlfile.Text `yaml:"why" jsonschema_description:"A part of the reason or the arithmetic."`
}

func (refusedShape) Noun() string { return "a refusal" }
