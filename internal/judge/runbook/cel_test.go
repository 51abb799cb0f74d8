package runbook

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
)

func TestInline(t *testing.T) {
	vars := fettle.Facts{"g": "ring:r", "n": int64(-3), "b": true, "l": []string{"a", `"\`}, "q": "it's \"x\"\n\t\\ \x01 ä"}
	for src, want := range map[string]string{
		"vars.g":                         `"ring:r"`,
		"quorum(vars.g).voters > vars.n": `quorum("ring:r").voters > (-3)`,
		"vars . g == vars.\n g":          `"ring:r" == "ring:r"`,
		"vars.b || vars.l.size() > 0":    `true || ["a", "\"\\"].size() > 0`,
		"'vars.g' + \"vars.g\"":          "'vars.g' + \"vars.g\"",
		`r'\' + vars.g`:                  `r'\' + "ring:r"`,
		`'''vars.g ' vars.g''' + vars.g`: `'''vars.g ' vars.g''' + "ring:r"`,
		"x.vars.g && vars2.g && _vars.g": "x.vars.g && vars2.g && _vars.g",
		"vars.g // vars.g\n + vars.g":    "\"ring:r\" // vars.g\n + \"ring:r\"",
		"vars.g.startsWith('r')":         `"ring:r".startsWith('r')`,
		"vars.g('x')":                    "vars.g('x')",
		"1e5 + vars.n":                   "1e5 + (-3)",
	} {
		if got, missing := Inline(src, vars); got != want || missing != "" {
			t.Errorf("%s\n got %s (missing %q)\nwant %s", src, got, missing, want)
		}
	}
	if got, missing := Inline("vars.g == vars.none", vars); missing != "none" {
		t.Errorf("got %s, missing %q", got, missing)
	}
}

// With its variables replaced an expression says the same.
func TestInlineKeepsTheMeaning(t *testing.T) {
	env := ring(t)
	rapid.Check(t, func(t *rapid.T) {
		vars := fettle.Facts{
			"s": rapid.String().Draw(t, "s"), "n": rapid.Int64().Draw(t, "n"), "b": rapid.Bool().Draw(t, "b"),
			"l": rapid.SliceOfN(rapid.String(), 0, 3).Draw(t, "l"),
		}
		for _, name := range []string{"s", "n", "b", "l"} {
			src, missing := Inline("vars."+name, vars)
			if missing != "" {
				t.Fatal(missing)
			}
			p, err := env.Compile(src, expr.Any)
			if err != nil {
				t.Fatalf("%s does not compile: %v", src, err)
			}
			got, _, err := p.Eval(expr.Scope{})
			if err != nil || !fettle.EqualValue(got, vars[name]) {
				t.Fatalf("%s is %#v (%v), want %#v", src, got, err, vars[name])
			}
		}
	})
}

// What is checked inside ${…} is exactly what is compiled there.
func TestHoles(t *testing.T) {
	for src, want := range map[string][]string{
		"no":                           nil,
		"${cause}":                     {"cause"},
		"a ${b} c ${d}":                {"b", "d"},
		"$${cause} ${x}":               {"x"},
		"${{'a': 1}['a']} ${'}'}":      {"{'a': 1}['a']", "'}'"},
		"${'\\'}' + r'\\'} ${\"$${\"}": {"'\\'}' + r'\\'", "\"$${\""},
		"${a // }\n}":                  {"a // }\n"},
		"${open":                       nil,
	} {
		var got []string
		for _, h := range holes(src) {
			got = append(got, src[h.begin:h.end])
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: got %q, want %q", src, got, want)
		}
	}
}
