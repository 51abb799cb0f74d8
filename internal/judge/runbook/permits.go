package runbook

import (
	"path"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/runbook/yamlfile"
)

// What holds where a grant of the policy does not say: as often as a subject is
// acted upon with a server there, and on one host no more than a person could follow.
const (
	grantPerSubject = 3
	grantPerHost    = 10
	grantWindow     = time.Hour
	permitLife      = 24 * time.Hour
)

type grantShape struct {
	yamlfile.Placed
	Action     yamlfile.Text     `yaml:"action" jsonschema:"required" jsonschema_description:"Pattern over action names. Only what gives is ever done alone: on its own host, reversible, of low risk, taking nothing."`
	Subject    yamlfile.Text     `yaml:"subject" jsonschema:"required" jsonschema_description:"Pattern over the subjects that are acted upon; * is any text."`
	Hosts      yamlfile.Text     `yaml:"hosts" jsonschema_description:"Pattern over the names of the hosts that it is for. Left out: all."`
	PerSubject yamlfile.Int      `yaml:"per_subject" jsonschema:"minimum=1" jsonschema_description:"Steps on one subject within the window, whoever ordered them. Left out: 3."`
	PerHost    yamlfile.Int      `yaml:"per_host" jsonschema:"minimum=1" jsonschema_description:"Steps of one host under this grant within the window. Left out: 10."`
	Window     yamlfile.Duration `yaml:"window" jsonschema_description:"At most a week. Left out: 1h."`
}

func (grantShape) Noun() string { return "a permit" }

// grants is what the permits of a policy file mean.
func (s policyShape) grants(r *yamlfile.Report) []fettle.Grant {
	if s.Permits == nil {
		return nil
	}
	list := []fettle.Grant{} // none is not the default
	for _, p := range s.Permits {
		g := fettle.Grant{Action: p.Action.Value, Subject: p.Subject.Value, Hosts: "*", PerSubject: grantPerSubject, PerHost: grantPerHost, Window: grantWindow}
		if p.Hosts.Set() {
			g.Hosts = p.Hosts.Value
		}
		if p.PerSubject.Set() {
			g.PerSubject = p.PerSubject.Value
		}
		if p.PerHost.Set() {
			g.PerHost = p.PerHost.Value
		}
		if p.Window.Set() {
			g.Window = p.Window.Value
		}
		for _, t := range []yamlfile.Text{p.Action, p.Subject, p.Hosts} {
			if _, err := path.Match(t.Value, ""); err != nil {
				r.Add(t.At, "* is any text, ? one character, [a-z] a class; \\ takes the next character as it is", "the pattern %q is malformed", t.Value)
			}
		}
		if g.Window <= 0 || g.Window > fettle.MaxPermitWindow {
			r.Add(p.Window.At, "for example 1h", "the window is %v; it must be more than nothing and at most %v", g.Window, fettle.MaxPermitWindow)
		}
		list = append(list, g)
	}
	return list
}

// life is how long the policy file has permits hold.
func (s policyShape) life(r *yamlfile.Report) time.Duration {
	if d := s.PermitLife; d.Set() && (d.Value < time.Minute || d.Value > fettle.MaxPermitLife) {
		r.Add(d.At, "for example 24h", "permit_life is %v; it must be at least a minute and at most %v", d.Value, fettle.MaxPermitLife)
	}
	return s.PermitLife.Value
}

// DefaultPermits are what agents may do alone where the policy says nothing of it:
// start services that failed. A server of Fettle's own has a grant to itself and
// comes first: it is what ends being alone, and neither uses up the others' rate nor
// waits for it.
func DefaultPermits() []fettle.Grant {
	return []fettle.Grant{
		{Action: "*.start", Subject: "unit:*/fettle-*.service", Hosts: "*", PerSubject: 6, PerHost: grantPerHost, Window: grantWindow},
		{Action: "*.start", Subject: "unit:*", Hosts: "*", PerSubject: grantPerSubject, PerHost: grantPerHost, Window: grantWindow},
	}
}

// Permits returns what a policy lets agents do alone, and for how long at a time.
func Permits(p fettle.Policy) ([]fettle.Grant, time.Duration) {
	life := p.PermitLife
	if life == 0 {
		life = permitLife
	}
	if p.Permits == nil {
		return DefaultPermits(), life
	}
	return p.Permits, life
}
