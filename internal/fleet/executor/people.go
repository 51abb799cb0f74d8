package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"fettle/internal/fleet/fanout"
	"fettle/internal/fleet/pki"
	"fettle/internal/judge/runbook/yamlfile"
)

// maxRunFile bounds the list of who may run what.
const maxRunFile = 64 << 10

// RunPolicy is who may run what on this machine, and as which account. The zero
// RunPolicy lets nobody run anything.
type RunPolicy struct {
	rules []runRule
}

// runFile is the file of a RunPolicy.
type runFile struct {
	Allow []runRule `yaml:"allow" jsonschema:"required"`
}

// Noun implements yamlfile.Noun.
func (runFile) Noun() string { return "a list of who may run commands" }

// runRule lets some people run some commands.
type runRule struct {
	yamlfile.Placed
	Roles    []yamlfile.Text   `yaml:"roles"`    // whoever has at least one of these
	People   []yamlfile.Text   `yaml:"people"`   // names of certificates
	Commands [][]yamlfile.Expr `yaml:"commands"` // how the command begins, word by word
	Any      yamlfile.Bool     `yaml:"any"`      // every command
	As       yamlfile.Text     `yaml:"as" jsonschema:"required"`
}

// Noun implements yamlfile.Noun.
func (runRule) Noun() string { return "a rule" }

// ParseRunPolicy reads the list of who may run what:
//
//	allow:
//	  - roles: [operator]
//	    commands: [[uptime], [systemctl, status]]   # begin so
//	    as: nobody
//	  - people: [ann]
//	    any: true
//	    as: root
//
// The first rule that fits decides as which account. An error names every mistake,
// with line and column.
func ParseRunPolicy(file string, src []byte) (RunPolicy, error) {
	var f runFile
	report, parsed := yamlfile.Decode(file, src, &f)
	if !parsed {
		return RunPolicy{}, report.Err()
	}
	for _, r := range f.Allow {
		if len(r.Roles)+len(r.People) == 0 {
			report.Add(r.At, "roles: [operator], or people: [ann]", "the rule does not say who")
		}
		if (len(r.Commands) > 0) == r.Any.Value {
			report.Add(r.At, "commands: [[uptime]], or any: true", "the rule does not say which commands, or says it twice")
		}
		for _, role := range r.Roles {
			if !slices.Contains(runRoles(), pki.Role(role.Value)) {
				report.Add(role.At, fmt.Sprintf("one of %v", runRoles()), "%q is no role that may run commands", role.Value)
			}
		}
		for _, words := range r.Commands {
			if len(words) == 0 {
				report.Add(r.At, "any: true is every command", "a command without a word")
			}
		}
	}
	if err := report.Err(); err != nil {
		return RunPolicy{}, err
	}
	return RunPolicy{rules: f.Allow}, nil
}

// runRoles are the roles that the server lets through at all.
func runRoles() []pki.Role { return []pki.Role{pki.RoleOperator, pki.RoleApprover, pki.RoleAdmin} }

// As says as which account somebody may run a command, "" when not at all.
func (p RunPolicy) As(person string, role pki.Role, argv []string) string {
	for _, r := range p.rules {
		who := slices.ContainsFunc(r.People, func(t yamlfile.Text) bool { return t.Value == person }) ||
			slices.ContainsFunc(r.Roles, func(t yamlfile.Text) bool { return role.Includes(pki.Role(t.Value)) })
		what := r.Any.Value || slices.ContainsFunc(r.Commands, func(words []yamlfile.Expr) bool {
			return len(words) <= len(argv) && slices.EqualFunc(words, argv[:len(words)], func(w yamlfile.Expr, arg string) bool { return w.Value == arg })
		})
		if who && what {
			return r.As.Value
		}
	}
	return ""
}

// mayRun asks the machine's own list, which is read anew with every command: as
// which account somebody may run it, or why not.
func mayRun(file, person string, role pki.Role, argv []string) (string, error) {
	if file == "" {
		return "", fanout.Refuse("", "this host runs no commands of people")
	}
	src, err := ReadGuarded(file, maxRunFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fanout.Refuse(fmt.Sprintf("to allow some, write %s on the host (see the guide)", file), "this host runs no commands of people: there is no %s", file)
	}
	var p RunPolicy
	if err == nil {
		p, err = ParseRunPolicy(file, src)
	}
	if err != nil {
		return "", fanout.Refuse("correct the file on the host", "this host runs no commands of people, since its list of who may is of no use: %w", err)
	}
	as := p.As(person, role, argv)
	if as == "" {
		return "", fanout.Refuse(fmt.Sprintf("its list is %s on the host", file), "this host does not let %s (%s) run this", person, role)
	}
	return as, nil
}
