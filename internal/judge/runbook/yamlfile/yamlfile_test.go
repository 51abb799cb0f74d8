package yamlfile

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type shelf struct {
	Placed
	Name   Text       `yaml:"name" jsonschema:"required,pattern=^[a-z]+$"`
	Rule   Expr       `yaml:"rule"`
	Rules  []Expr     `yaml:"rules"`
	Wait   Duration   `yaml:"wait"`
	Count  Int        `yaml:"count" jsonschema:"minimum=1"`
	Open   Bool       `yaml:"open"`
	Vars   Map[Expr]  `yaml:"vars"`
	With   Map[Value] `yaml:"with"`
	Level  Text       `yaml:"level" jsonschema:"enum=low,enum=high"`
	Boards []board    `yaml:"boards" jsonschema:"required"`
	Spare  *board     `yaml:"spare"`
}

func (shelf) Noun() string { return "a shelf" }

type board struct {
	Placed
	Wood Text `yaml:"wood" jsonschema:"required"`
}

func (board) Noun() string       { return "a board" }
func (b *board) FromText(t Text) { b.Wood = t }

func TestDecode(t *testing.T) {
	src := `
name: tall # a comment
rule: true
rules: [1, "a: b", 'it''s']
wait: 1m30s
count: 3
open: false
vars:
  z: cause
  a: |
    one &&
      two
with: {n: -5, b: true, s: "x", l: [a, b]}
level: high
boards:
  - oak
  - wood: ash
spare: {wood: elm}
`
	var s shelf
	report, parsed := Decode("shelf.yaml", []byte(src), &s)
	if err := report.Err(); err != nil || !parsed {
		t.Fatalf("parsed %v: %v", parsed, err)
	}
	got := fmt.Sprint(s.Name.Value, s.Name.At, s.Rule.Value, s.Rules[0].Value, s.Rules[1].Value, s.Rules[2].Value, s.Wait.Value, s.Count.Value, s.Open,
		s.Vars[0].Key.Value, s.Vars[1].Key.Value, s.Vars[1].Value.Value, s.Level.Value, s.Boards[0].Wood.Value, s.Boards[1].At, s.Boards[1].Wood.Value, s.Spare.Wood.Value)
	want := fmt.Sprint("tall", At{2, 7}, "true", "1", "a: b", "it's", 90*time.Second, 3, Bool{false, At{7, 7}},
		"z", "a", "one &&\n  two", "high", "oak", At{17, 5}, "ash", "elm")
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var plain []any
	for _, e := range s.With {
		plain = append(plain, e.Key.Value, e.Value.Plain)
	}
	if d := cmp.Diff([]any{"n", int64(-5), "b", true, "s", "x", "l", []string{"a", "b"}}, plain); d != "" {
		t.Error(d)
	}
}

// Everything that is wrong is reported at once, each at its place.
func TestDecodeReportsAll(t *testing.T) {
	src := `name: Tall
naem: x
rule:
rules: one
wait: soon
count: 0
count: 2
open: "yes"
with: {f: 1.5}
level: hihg
boards:
  - {wod: oak}
  - 5
  - wood: ""
`
	var s shelf
	report, _ := Decode("shelf.yaml", []byte(src), &s)
	var e *Error
	if !errors.As(report.Err(), &e) {
		t.Fatal("no error")
	}
	var got []string
	for _, p := range e.Problems {
		got = append(got, fmt.Sprintf("%d:%d %s (%s)", p.Line, p.Column, p.Text, p.Hint))
	}
	want := []string{
		`1:7 name cannot be "Tall" (it must match ^[a-z]+$)`,
		`2:1 unknown key "naem" of a shelf (did you mean "name"?)`,
		`3:1 rule of a shelf has no value (give it a value or leave the key out)`,
		`4:8 rules: want a list, found text (begin each entry with '- ', or write [a, b])`,
		`5:7 wait: "soon" is not a length of time (a number with a unit, for example 500ms, 10s, 2m or 1h)`,
		`6:8 count is 0; it must be at least 1 ()`,
		`7:1 a shelf: key "count" is there twice (the first is on line 6; keep one)`,
		`8:7 open: want true or false, found text ()`,
		`9:11 f: want text, a whole number, true, false or a list of texts, found the number 1.5 ()`,
		`10:8 level cannot be "hihg" (did you mean "high"?)`,
		`12:5 a board needs wood ()`,
		`12:6 unknown key "wod" of a board (did you mean "wood"?)`,
		`13:5 a board: want a mapping, found the number 5 ()`,
		`14:11 wood is empty (give it a value or leave the key out)`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestExcerpt(t *testing.T) {
	var s shelf
	report, _ := Decode("a/shelf.yaml", []byte("name: x\nboards:\n  - wud: y\n"), &s)
	want := `a/shelf.yaml:3:5: unknown key "wud" of a board
    3 |   - wud: y
            ^
    hint: did you mean "wood"?
a/shelf.yaml:3:5: a board needs wood
    3 |   - wud: y
            ^`
	if got := report.Err().Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What YAML has and we do not, and what is no YAML, is refused with a place.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct{ src, want string }{
		"anchor":           {"name: &a x\nboards: [*a]\n", "1:7: anchors"},
		"merge key":        {"name: x\n<<: {a: b}\n", "2:1: anchors"},
		"tag":              {"name: !!str x\n", "1:7: tags"},
		"second document":  {"name: x\nboards: [a]\n---\nname: y\n", "4:1: a second document"},
		"empty":            {"", "1:1: the file is empty"},
		"only a comment":   {"# nothing\n", "1:1: the file is empty"},
		"a list":           {"- a\n- b\n", "1:1: a shelf: want a mapping, found a list"},
		"not closed":       {"name: [x\n", "not YAML"},
		"mapping in plain": {"name: a: b\n", "1:7: not YAML"},
		"not UTF-8":        {"name: x\nb\xff", "2:2: the file is not UTF-8 text"},
		"control":          {"name: x\nb: \x00\n", "2:4: the file holds the control character U+0000"},
		"carriage return":  {"name: x\rb: y\n", "1:8: the file holds the control character U+000D"},
		"too large":        {"name: " + strings.Repeat("x", MaxBytes), "1:1: the file has"},
		"deep flow":        {strings.Repeat("[\n", 5000), "nested deeper"},
		"deep block":       {strings.Repeat("- ", 5000) + "x\n", "nested deeper"},
		"too many words":   {strings.Repeat("a: 1\n", 20_000), "words and marks"},
		"explicit key":     {"? name\n: x\n", "the '? key' form"},
	} {
		t.Run(name, func(t *testing.T) {
			var s shelf
			report, _ := Decode("f", []byte(c.src), &s)
			if err := report.Err(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

// An offset in a text is found again in the file, however the text is written.
func TestPlace(t *testing.T) {
	for name, c := range map[string]struct {
		src  string
		find string
		want At
	}{
		"plain":            {"name: x\nrule: one && two\n", "two", At{2, 14}},
		"double quoted":    {"rule: \"one && two\"\n", "two", At{1, 15}},
		"single quoted":    {"rule: 'one && two'\n", "two", At{1, 15}},
		"literal":          {"rule: |\n    one &&\n    two\n", "two", At{3, 5}},
		"literal indented": {"rule: |\n  one &&\n    two\n", "two", At{3, 5}},
		"folded":           {"rule: >-\n  one &&\n  two\n", "two", At{3, 3}},
		"plain over lines": {"rule: one\n  && two\n", "two", At{2, 6}},
		"not ASCII":        {"rule: ää == two\n", "two", At{1, 13}},
		"escape":           {"rule: \"a\\tb two\"\n", "two", At{1, 7}}, // where it begins: the best that can be told
		"first":            {"rule: two\n", "two", At{1, 7}},
	} {
		t.Run(name, func(t *testing.T) {
			var s shelf
			Decode("f", []byte(c.src), &s)
			offset := strings.Index(s.Rule.Value, c.find)
			if offset < 0 {
				t.Fatalf("no %q in %q", c.find, s.Rule.Value)
			}
			if got := s.Rule.Place(offset); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestNearest(t *testing.T) {
	known := []string{"target", "host", "group", "with"}
	for word, want := range map[string]string{"taget": "target", "hots": "host", "wiht": "with", "zebra": "", "target": "target"} {
		if got := Nearest(word, known); got != want {
			t.Errorf("%s: got %q, want %q", word, got, want)
		}
	}
}

// Whatever the bytes: no panic, and either a decoded file or a problem that has
// a place in it.
func FuzzDecode(f *testing.F) {
	f.Add("name: x\nboards: [oak, {wood: ash}]\nvars: {a: 1}\n")
	f.Add("name: |\n  x\n\n  y\nrule: >-\n a\n  b\n")
	f.Add("? a\n: b\n- c\n")
	f.Add("a: &x [*x]\n<<: *x\n!!a b: c\n---\n...\n%YAML 1.2\n")
	f.Add("name: \"\\u00\nwith: {l: [a, 'b', 1], n: 0x10, o: 0b1, z: 99999999999999999999}\nwait: 1h\ncount: 1_0\n")
	f.Add(strings.Repeat("[{", 40))
	f.Add("\t- a\r\nb: \xff")
	f.Fuzz(func(t *testing.T, src string) {
		var s shelf
		report, parsed := Decode("f.yaml", []byte(src), &s)
		err := report.Err()
		if err == nil && !parsed {
			t.Fatal("neither decoded nor refused")
		}
		var e *Error
		if err != nil && (!errors.As(err, &e) || len(e.Problems) == 0) {
			t.Fatalf("an error of another kind: %v", err)
		}
		if e != nil {
			lines := strings.Count(strings.ReplaceAll(src, "\r\n", "\n"), "\n") + 1
			for _, p := range e.Problems {
				if p.Line < 1 || p.Line > lines || p.Column < 1 || p.Text == "" {
					t.Fatalf("a problem without a place: %+v", p)
				}
			}
		}
		for i := range s.Rule.Value {
			s.Rule.Place(i)
		}
	})
}
