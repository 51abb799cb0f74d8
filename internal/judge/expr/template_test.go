package expr_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
)

func TestTemplateValues(t *testing.T) {
	env := newEnv(t)
	for _, tc := range []struct {
		src  string
		want fettle.Value
	}{
		{"", ""},
		{"plain", "plain"},
		{"${with.n}", int64(2)},
		{"${fact(cause, 'alarms')}", []string{"x", "y"}},
		{"n=${with.n}, ${steps.add.ok}: ${fact(cause, 'alarms')}", "n=2, true: x, y"},
		{" ${with.n}", " 2"},
		{"${'}' + '{' + \"}\"}", "}{}"},
		{"${'it\\'s }'}", "it's }"},
		{"${r'\\'}${1}", "\\1"},
		{"${'''a'}'''}", "a'}"},
		{"$${not} $ {x} $", "${not} $ {x} $"},
		{"${1 // a } in a comment\n}", int64(1)},
		{"ü${'ü'}", "üü"},
	} {
		t.Run(tc.src, func(t *testing.T) {
			tpl, err := env.Template(tc.src)
			if err != nil {
				t.Fatal(err)
			}
			got, err := tpl.Eval(aScope())
			if err != nil || !fettle.EqualValue(got, tc.want) {
				t.Errorf("got %#v (%v), want %#v", got, err, tc.want)
			}
		})
	}
}

func TestTemplateErrorsAreInTheTemplatesPositions(t *testing.T) {
	env := newEnv(t)
	for _, tc := range []struct {
		src  string
		want string
	}{
		{"ab ${cuase}", "1:6:"},
		{"ü\nü ${1 +\n cuase} ${nope}", "3:2:"},
		{"ü\nü ${1 +\n cuase} ${nope}", "3:11:"},
		{"open ${1", "1:6: ${ without its }"},
		{"${'never closed}", "1:1: ${ without its }"},
		{"${}", "1:3: empty expression"},
		{"${quorum(group)}", "1:3:"},
	} {
		_, err := env.Template(tc.src)
		mustContain(t, issues(t, err), tc.want)
	}
}

func TestTemplateNeedsEverythingKnown(t *testing.T) {
	tpl, err := newEnv(t).Template("x ${steps.later.id}")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := tpl.Eval(aScope()); err == nil || v != nil || !strings.Contains(err.Error(), "${steps.later.id}") {
		t.Errorf("got %v, %v", v, err)
	}
}

func TestTemplateRefs(t *testing.T) {
	env := newEnv(t)
	tpl, err := env.Template("${steps.add.id} ${steps['set-aside'].path} ${steps.add.id}")
	if err != nil {
		t.Fatal(err)
	}
	want := []expr.StepRef{{Step: "add", Output: "id"}, {Step: "set-aside", Output: "path"}}
	if !slices.Equal(tpl.Refs(), want) || tpl.Type() != expr.String {
		t.Errorf("refs %v, type %v", tpl.Refs(), tpl.Type())
	}
	if _, late := tpl.Late(); late {
		t.Error("a template of several parts is called late")
	}
	for src, want := range map[string]bool{"${steps.add.id}": true, "${has(steps.add.id)}": false, "${steps.add.id + 'x'}": false, "x": false, " ${steps.add.id}": false} {
		tpl, err := env.Template(src)
		if err != nil {
			t.Fatal(err)
		}
		if _, late := tpl.Late(); late != want {
			t.Errorf("%s: late %v", src, late)
		}
	}
	if text, ok := must(env.Template("a $${b}")).Constant(); !ok || text != "a ${b}" {
		t.Errorf("constant %q, %v", text, ok)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// checkIssues fails when an error is not an *expr.Error with positions that lie
// in the source.
func checkIssues(t *testing.T, src string, err error) {
	if err == nil {
		return
	}
	var e *expr.Error
	if !errors.As(err, &e) || len(e.Issues) == 0 {
		t.Fatalf("%q: error without issues: %v", src, err)
	}
	lines := strings.Split(src, "\n")
	for _, i := range e.Issues {
		if i.Text == "" || i.Line < 1 || i.Column < 1 || i.Line > len(lines) || i.Column > utf8.RuneCountInString(lines[i.Line-1])+1 {
			t.Errorf("%q: issue %+v lies outside", src, i)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		"self.lag_ms > 1", "a.b.c", "with['x']", "steps['a']['b']", "steps", "x ? y : z", "[1,2].map(x, x)", "'\\", "r'''", "{1:2}",
		"fact(cause, 'nope')", "a\n+\n\tb", "\x00", "ü + ö", "1e9", "0x", "quorum(group).members.exists(m, m.id == '')", "?.x", "a.`b`", "@x", "true || \r\n nope",
		strings.Repeat("(", 200), strings.Repeat("!", 300) + "true", "has(1)", "has(self)", "[1].all(cause, true)",
	} {
		f.Add(seed)
	}
	env := newEnv(f)
	scope := aScope()
	f.Fuzz(func(t *testing.T, src string) {
		p, err := env.Compile(src, expr.Any)
		checkIssues(t, src, err)
		if err == nil {
			v1, tri1, err1 := p.Eval(scope)
			v2, tri2, err2 := p.Eval(scope)
			if !fettle.EqualValue(v1, v2) || tri1 != tri2 || (err1 == nil) != (err2 == nil) || (tri1 == fettle.Unknown) != (err1 != nil) {
				t.Errorf("%q: %v %v %v, then %v %v %v", src, v1, tri1, err1, v2, tri2, err2)
			}
		}
		r, err := env.Rule(memberSpec(src), src)
		checkIssues(t, src, err)
		if err == nil {
			in := expr.RuleInput{Self: fettle.Facts{"healthy": true}, Observers: 1}
			if a, b := r.Eval(in), r.Eval(in); a != b {
				t.Errorf("%q: %v, then %v", src, a, b)
			}
		}
	})
}

func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{"", "x", "${", "${}", "$${", "${'}'}", "${1}${2}", "a\n${b\n}c", "${//\n1}", "${r'\\'}", "${\"\\\"}\"}", "${{}}", "ü${ü}"} {
		f.Add(seed)
	}
	env := newEnv(f)
	scope := aScope()
	f.Fuzz(func(t *testing.T, src string) {
		tpl, err := env.Template(src)
		checkIssues(t, src, err)
		if err != nil {
			return
		}
		if v, err := tpl.Eval(scope); err == nil && !expr.Any.Matches(v) {
			t.Errorf("%q: value %#v", src, v)
		}
	})
}
