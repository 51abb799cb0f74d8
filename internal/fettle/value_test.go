package fettle_test

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"fettle/internal/fettle"
)

func TestFactsThroughJSON(t *testing.T) {
	f := fettle.Facts{
		"most": int64(math.MaxInt64), "least": int64(math.MinInt64), "beyond_float": int64(1<<53 + 1), "zero": int64(0),
		"yes": true, "no": false, "text": "a\x00b\nü", "empty": "", "list": []string{"b", "a", ""}, "none": []string{},
	}
	data, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var g fettle.Facts
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	if !f.Equal(g) || !reflect.DeepEqual(f, g) {
		t.Errorf("read back\n%#v, want\n%#v", g, f)
	}
	if n, ok := g.Int("beyond_float"); !ok || n != 1<<53+1 {
		t.Errorf("an integer that no float holds is read back as %d", n)
	}
}

func TestFactsRefused(t *testing.T) {
	for text, says := range map[string]string{
		`{"a": 1.5}`:                  "fact a: 1.5 is not an integer",
		`{"a": 1e3}`:                  "fact a: 1e3 is not an integer",
		`{"a": 1.0}`:                  "fact a: 1.0 is not an integer",
		`{"a": 9223372036854775808}`:  "fact a: 9223372036854775808 is not an integer",
		`{"a": null}`:                 "fact a: type <nil>",
		`{"a": {"b": 1}}`:             "fact a: type map",
		`{"a": [1]}`:                  "fact a: list element of type json.Number",
		`{"a": ["x", null]}`:          "fact a: list element of type <nil>",
		`{"ok": 1, "z": [], "b": []}`: "",
		`[]`:                          "facts: ",
		`"text"`:                      "facts: ",
		`{"a": 1, "a": `:              "",
	} {
		f := fettle.Facts{"before": true}
		err := f.UnmarshalJSON([]byte(text))
		switch {
		case says == "" && strings.HasSuffix(text, "}"):
			if err != nil {
				t.Errorf("%s: %v", text, err)
			}
		case err == nil || !strings.Contains(err.Error(), says):
			t.Errorf("%s: want an error with %q, got %v", text, says, err)
		case !f.Equal(fettle.Facts{"before": true}):
			t.Errorf("%s was refused, and changed the facts to %v", text, f)
		}
	}
	var none fettle.Facts
	if err := json.Unmarshal([]byte("null"), &none); err != nil || none != nil {
		t.Errorf("null facts: %v %v", none, err)
	}
}

func TestFactsValidate(t *testing.T) {
	if err := (fettle.Facts{"a": int64(1), "b": "x", "c": true, "d": []string{"y"}}).Validate(); err != nil {
		t.Error(err)
	}
	for _, v := range []any{1, int32(1), 1.0, nil, []int{1}, []any{"x"}, map[string]string{}} {
		err := fettle.Facts{"a_good": "x", "bad": v}.Validate()
		if err == nil || !strings.Contains(err.Error(), "fact bad") {
			t.Errorf("%T passes as a fact's value: %v", v, err)
		}
	}
}

func TestFactsEqual(t *testing.T) {
	a := fettle.Facts{"n": int64(1), "l": []string{"x"}}
	for _, b := range []fettle.Facts{
		{"n": int64(2), "l": []string{"x"}},
		{"n": "1", "l": []string{"x"}},
		{"n": int64(1), "l": []string{"x", "y"}},
		{"n": int64(1), "l": "x"},
		{"n": int64(1)},
		{"n": int64(1), "l": []string{"x"}, "m": false},
		{"n": []string{"1"}, "l": []string{"x"}},
		nil,
	} {
		if a.Equal(b) || b.Equal(a) {
			t.Errorf("%v and %v are taken for equal", a, b)
		}
	}
	c := a.Clone()
	if !a.Equal(c) {
		t.Errorf("the copy of %v is %v", a, c)
	}
	l, _ := c.List("l")
	l[0] = "changed"
	c["n"] = int64(9)
	if !a.Equal(fettle.Facts{"n": int64(1), "l": []string{"x"}}) {
		t.Errorf("the original changed with its copy: %v", a)
	}
	if fettle.Facts(nil).Clone() != nil {
		t.Error("the copy of no facts is something")
	}
}

func TestFactsOfAnotherType(t *testing.T) {
	f := fettle.Facts{"n": int64(1), "s": "1", "b": true, "l": []string{"1"}}
	for name := range f {
		_, isInt := f.Int(name)
		_, isStr := f.Str(name)
		_, isBool := f.Bool(name)
		_, isList := f.List(name)
		if isInt != (name == "n") || isStr != (name == "s") || isBool != (name == "b") || isList != (name == "l") {
			t.Errorf("fact %s is taken for int %v, text %v, bool %v, list %v", name, isInt, isStr, isBool, isList)
		}
	}
	if _, ok := f.Int("absent"); ok {
		t.Error("an absent fact is there")
	}
	for v, want := range map[any]fettle.FactType{int64(1): fettle.IntFact, "x": fettle.StringFact, true: fettle.BoolFact, 1: "", 1.5: "", nil: ""} {
		if got := fettle.TypeOf(v); got != want {
			t.Errorf("TypeOf(%T) = %q, want %q", v, got, want)
		}
	}
	if got := fettle.TypeOf([]string{}); got != fettle.ListFact {
		t.Errorf("TypeOf([]string) = %q", got)
	}
}

// FuzzFactsJSON: what is read is valid, and is the same after it was written and
// read again.
func FuzzFactsJSON(f *testing.F) {
	for _, s := range []string{`{}`, `null`, `{"a":1,"b":"x","c":true,"d":["y"]}`, `{"a":1.5}`, `{"a":9223372036854775807}`, `{"a":-0}`, `{"a":[[]]}`, `{"a":1,"a":2}`, `{"\ud800":"\ud800"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var a, b fettle.Facts
		if json.Unmarshal(data, &a) != nil {
			return
		}
		if err := a.Validate(); err != nil {
			t.Fatalf("%s was read, and is not valid: %v", data, err)
		}
		again, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(again, &b); err != nil || !a.Equal(b) {
			t.Fatalf("%s, written as %s, is read as %v: %v", data, again, b, err)
		}
	})
}

// TestGenerationThroughJSON: a plan that comes out of a store pins what was
// pinned, type and value.
func TestGenerationThroughJSON(t *testing.T) {
	for _, v := range []fettle.Value{int64(1<<53 + 1), "1", true, []string{"a"}} {
		g := fettle.Generation{Subject: "unit:h1/x", Fact: "f", Value: v}
		data, err := json.Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		var back fettle.Generation
		if err := json.Unmarshal(data, &back); err != nil || !fettle.EqualValue(back.Value, v) || back.Subject != g.Subject || back.Fact != g.Fact {
			t.Errorf("%#v is read back as %#v: %v", g, back, err)
		}
	}
	for _, text := range []string{`{"subject":"unit:h1/x","fact":"f","value":1.5}`, `{"subject":"unit:h1/x","fact":"f","value":null}`, `{"subject":"unit:h1/x","fact":"f"}`, `{"value":{"a":1}}`, `{"value":1},"x":{"a":1}`} {
		var g fettle.Generation
		if err := json.Unmarshal([]byte(text), &g); err == nil {
			t.Errorf("%s is read as %#v", text, g)
		}
	}
}
