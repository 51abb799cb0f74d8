package runbook

import "fettle/internal/judge/runbook/yamlfile"

// The shapes are the files as they are written. The JSON Schema for editors is
// generated from the same tags, see schema_test.go.

type bookShape struct {
	yamlfile.Placed
	Runbook yamlfile.Text               `yaml:"runbook" jsonschema:"required,pattern=^[a-z0-9-]+(\\.[a-z0-9_-]+)+$" jsonschema_description:"Its name: adapter, dot, trouble."`
	For     yamlfile.Text               `yaml:"for" jsonschema:"required,pattern=^[a-z0-9-]+(\\.[a-z0-9_-]+)+$" jsonschema_description:"The condition code of the cause that it mends."`
	Doc     yamlfile.Text               `yaml:"doc" jsonschema:"required" jsonschema_description:"What it does and why in this order; one paragraph."`
	Vars    yamlfile.Map[yamlfile.Expr] `yaml:"vars" jsonschema_description:"CEL, evaluated once, in order; may read cause and earlier vars."`
	Rungs   []rungShape                 `yaml:"rungs" jsonschema:"required" jsonschema_description:"From the cheapest and most reversible to the most drastic."`
}

func (bookShape) Noun() string { return "a runbook" }

type rungShape struct {
	yamlfile.Placed
	Rung     yamlfile.Text `yaml:"rung" jsonschema:"required,pattern=^[a-z0-9][a-z0-9_-]*$" jsonschema_description:"Its name, unique in the runbook."`
	Doc      yamlfile.Text `yaml:"doc" jsonschema_description:"What it does, for people."`
	When     yamlfile.Expr `yaml:"when" jsonschema_description:"CEL giving a bool. Unless it is known to be true the next rung is tried."`
	ProvedBy yamlfile.Text `yaml:"proved_by" jsonschema:"pattern=^Test[A-Z][A-Za-z0-9_/]*$" jsonschema_description:"The lab test that proved the rung. Without one it is never automatic."`
	Loses    yamlfile.Text `yaml:"loses" jsonschema_description:"What is lost for good, as a sentence; may hold ${CEL}. A rung that loses something always asks."`
	Steps    []stepShape   `yaml:"steps" jsonschema:"required" jsonschema_description:"Done one after another."`
}

func (rungShape) Noun() string { return "a rung" }

type stepShape struct {
	yamlfile.Placed
	ID          yamlfile.Text                `yaml:"id" jsonschema:"required,pattern=^[a-z][a-z0-9_]*$" jsonschema_description:"Its name, unique in the rung; later steps read its outputs as steps.ID.OUTPUT."`
	Action      yamlfile.Text                `yaml:"action" jsonschema:"required" jsonschema_description:"An action that an adapter declares."`
	Target      yamlfile.Text                `yaml:"target" jsonschema:"required" jsonschema_description:"The subject that is acted upon."`
	Host        yamlfile.Text                `yaml:"host" jsonschema_description:"The host whose agent acts. Left out: the host that the target runs on, or the target itself if it is a host."`
	Group       yamlfile.Text                `yaml:"group" jsonschema_description:"The quorum group that counts the target's vote."`
	With        yamlfile.Map[yamlfile.Value] `yaml:"with" jsonschema_description:"The action's parameters."`
	When        yamlfile.Expr                `yaml:"when" jsonschema_description:"CEL giving a bool. Known to be false: the step is skipped."`
	Requires    []yamlfile.Expr              `yaml:"requires" jsonschema_description:"CEL preconditions, asked again right before the step."`
	Pin         []pinShape                   `yaml:"pin" jsonschema_description:"Facts that must still be what they were when the plan was made."`
	Look        []lookShape                  `yaml:"look" jsonschema_description:"What is asked afresh before the guards decide."`
	Fresh       yamlfile.Duration            `yaml:"fresh" jsonschema_description:"The oldest fact that the guards may decide on. Left out: 5s."`
	Claims      []claimShape                 `yaml:"claims" jsonschema_description:"What the step takes away while it runs."`
	Expect      yamlfile.Expr                `yaml:"expect" jsonschema_description:"CEL giving a bool: what must be observed after the step."`
	Within      yamlfile.Duration            `yaml:"within" jsonschema_description:"By when it must be observed."`
	Hold        yamlfile.Duration            `yaml:"hold" jsonschema_description:"For how long it must stay so."`
	ForwardOnly yamlfile.Text                `yaml:"forward_only" jsonschema_description:"Why there is no way back. Required where the action cannot undo."`
	SafePoint   yamlfile.Bool                `yaml:"safe_point" jsonschema_description:"After this step a frozen plan may rest."`
}

func (stepShape) Noun() string { return "a step" }

type pinShape struct {
	yamlfile.Placed
	Subject yamlfile.Text `yaml:"subject" jsonschema_description:"Left out: the target."`
	Fact    yamlfile.Text `yaml:"fact" jsonschema:"required"`
}

func (pinShape) Noun() string { return "a pin" }

// FromText reads the short form, a fact of the target.
func (p *pinShape) FromText(t yamlfile.Text) { p.Fact = t }

type lookShape struct {
	yamlfile.Placed
	Subject yamlfile.Text `yaml:"subject" jsonschema_description:"Left out: the target."`
	Probe   yamlfile.Text `yaml:"probe" jsonschema:"required"`
	Host    yamlfile.Text `yaml:"host" jsonschema_description:"Only from this host. Left out: wherever it can be observed."`
}

func (lookShape) Noun() string { return "a look" }

type claimShape struct {
	yamlfile.Placed
	What   yamlfile.Text `yaml:"what" jsonschema:"required,enum=votes,enum=replicas,enum=capacity,enum=reachability"`
	Of     yamlfile.Text `yaml:"of" jsonschema_description:"The quorum group, replica set or failure domain. Left out: the step's group."`
	Member yamlfile.Text `yaml:"member" jsonschema_description:"Which part of it. Left out: the target."`
}

func (claimShape) Noun() string { return "a claim" }
