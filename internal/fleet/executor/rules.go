package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"sync"

	"fettle/internal/fettle"
	"fettle/internal/judge/runbook/yamlfile"
)

// maxRules bounds the file of a host's rules, in bytes.
const maxRules = 64 << 10

// Rules is what may be done on a host. The zero Rules is the default: everything that
// its adapters can do, and what takes something away or is not of low risk only with
// a person's approval.
type Rules struct {
	allow, approved, never []string
	none                   bool // nothing is allowed: the rules could not be read
	free                   bool // nobody wrote rules, and none are wanted
}

// rulesFile is the file of Rules.
type rulesFile struct {
	Allow    []yamlfile.Text `yaml:"allow"`
	Approved []yamlfile.Text `yaml:"approved"`
	Never    []yamlfile.Text `yaml:"never"`
}

// Noun implements yamlfile.Noun.
func (rulesFile) Noun() string { return "a host's list of actions" }

// ParseRules reads what may be done on a host:
//
//	allow: ["systemd.*"]            # without a person
//	approved: ["etcd.member_*"]     # with a person's signed approval
//	never: ["filesystem.vacuum"]
//
// by names or patterns of path.Match. What is in never is not done; then what is in
// approved needs an approval; then what is in allow needs none. Where allow is there,
// what none of them names is not done; where it is not, that goes as without a file.
// An error names every mistake, with line and column.
func ParseRules(file string, src []byte) (Rules, error) {
	var f rulesFile
	report, parsed := yamlfile.Decode(file, src, &f)
	if !parsed {
		return Rules{none: true}, report.Err()
	}
	var r Rules
	for _, l := range []struct {
		from []yamlfile.Text
		into *[]string
	}{{f.Allow, &r.allow}, {f.Approved, &r.approved}, {f.Never, &r.never}} {
		for _, t := range l.from {
			if _, err := path.Match(t.Value, ""); err != nil || t.Value == "" {
				report.Add(t.At, "* is any text, ? one character, [a-z] a class", "the pattern %q is malformed", t.Value)
			}
			*l.into = append(*l.into, t.Value)
		}
	}
	if err := report.Err(); err != nil {
		return Rules{none: true}, err
	}
	return r, nil
}

func named(patterns []string, action string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, action)
		return ok && err == nil
	})
}

// Allows reports whether an action may be done at all.
func (r Rules) Allows(action string) bool {
	switch {
	case r.none, named(r.never, action):
		return false
	case r.free, len(r.allow) == 0:
		return true
	}
	return named(r.allow, action) || named(r.approved, action)
}

// NeedsPerson reports whether an action needs a person's signed approval. Without a
// rule it does where every plan that has it asks by default (judge/runbook's
// DefaultLevel): it takes something away, or is not of low risk.
func (r Rules) NeedsPerson(spec fettle.ActionSpec) bool {
	switch {
	case r.free:
		return false
	case named(r.approved, spec.Name):
		return true
	case named(r.allow, spec.Name):
		return false
	}
	return len(spec.Takes) > 0 || spec.Risk != fettle.LowRisk
}

// ruling is the rules as the file has them at present.
type ruling struct {
	file string // "": everything is allowed
	log  *slog.Logger

	mu    sync.Mutex
	rules Rules
	said  string // what is wrong with the file, as the log was told last
}

// look reads the file anew. It is small, and read before each order, so that what an
// administrator writes holds from then on.
func (r *ruling) look() {
	rules, err := r.read()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rules = rules
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != r.said && text != "" {
		r.log.Error("nothing is done on this host, since its list of actions is of no use", "file", r.file, "error", err)
	}
	r.said = text
}

func (r *ruling) read() (Rules, error) {
	if r.file == "" {
		return Rules{free: true}, nil
	}
	src, err := ReadGuarded(r.file, maxRules)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(r.file); errors.Is(err, fs.ErrNotExist) { // and not a link to nowhere
			return Rules{}, nil
		}
	}
	if err != nil {
		return Rules{none: true}, fmt.Errorf("read the host's list of actions: %w", err)
	}
	return ParseRules(r.file, src)
}

func (r *ruling) now() Rules {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rules
}
