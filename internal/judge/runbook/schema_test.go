package runbook

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	generate "github.com/invopop/jsonschema"
	validate "github.com/santhosh-tekuri/jsonschema/v6"

	"fettle/internal/judge/runbook/pretend"
	"fettle/internal/judge/runbook/yamlfile"
)

// kindsOfFile are the files that have a schema: an example of the shape, and
// what it says in an editor.
func kindsOfFile() map[string]struct {
	shape any
	title string
} {
	return map[string]struct {
		shape any
		title string
	}{
		"runbook":      {bookShape{}, "A runbook: a ladder of repairs for one cause"},
		"runbook_test": {testShape{}, "A test of a runbook: what must follow from what is observed"},
		"policy":       {policyShape{}, "The policy: how far repairs may go by themselves"},
	}
}

// leaf is the schema of what is decoded as a whole.
func leaf(t reflect.Type, r *generate.Reflector) *generate.Schema {
	text := &generate.Schema{Type: "string", Pattern: `\S`}
	scalar := &generate.Schema{OneOf: []*generate.Schema{text, {Type: "boolean"}, {Type: "integer"}}}
	list := &generate.Schema{Type: "array", Items: &generate.Schema{Type: "string"}}
	switch t {
	case reflect.TypeFor[yamlfile.Text]():
		return text
	case reflect.TypeFor[yamlfile.Expr]():
		return scalar
	case reflect.TypeFor[yamlfile.Int]():
		return &generate.Schema{Type: "integer"}
	case reflect.TypeFor[yamlfile.Bool]():
		return &generate.Schema{Type: "boolean"}
	case reflect.TypeFor[yamlfile.Duration]():
		return &generate.Schema{OneOf: []*generate.Schema{{Type: "string", Pattern: `^(0|([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+)$`}, {Type: "integer", Maximum: "0", Minimum: "0"}}}
	case reflect.TypeFor[yamlfile.Value]():
		return &generate.Schema{OneOf: []*generate.Schema{{Type: "string"}, {Type: "boolean"}, {Type: "integer"}, list}}
	}
	if strings.HasPrefix(t.Name(), "Map[") {
		return &generate.Schema{Type: "object", AdditionalProperties: leaf(t.Elem().Field(1).Type, r)}
	}
	return nil
}

func generated(t *testing.T, name string) []byte {
	t.Helper()
	kind := kindsOfFile()[name]
	r := &generate.Reflector{
		FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, ExpandedStruct: true, Anonymous: true,
		Namer: func(t reflect.Type) string { return strings.TrimSuffix(t.Name(), "Shape") },
	}
	r.Mapper = func(t reflect.Type) *generate.Schema { return leaf(t, r) }
	s := r.Reflect(kind.shape)
	s.Title = kind.title
	// any order: each definition is changed by itself
	for def, shape := range map[string]any{"pin": &pinShape{}, "wantStep": &wantStepShape{}} {
		if _, ok := shape.(yamlfile.FromText); !ok {
			t.Fatalf("%s has no short form", def)
		}
		if long := s.Definitions[def]; long != nil {
			s.Definitions[def] = &generate.Schema{OneOf: []*generate.Schema{{Type: "string"}, long}}
		}
	}
	fillRequired(s)
	// any order: each definition is changed by itself
	for _, def := range s.Definitions {
		fillRequired(def)
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

// fillRequired says that a list that is required has an entry: the decoder says
// so too.
func fillRequired(s *generate.Schema) {
	one := uint64(1)
	for _, name := range s.Required {
		if p, ok := s.Properties.Get(name); ok && p.Type == "array" {
			p.MinItems = &one
		}
	}
}

// The embedded schemas are those of the shapes that files are decoded into.
func TestSchemasAreCurrent(t *testing.T) {
	for name := range kindsOfFile() {
		golden(t, "schema/"+name+".schema.json", string(generated(t, name)))
	}
	if !bytes.Equal(Schema(), generated(t, "runbook")) || !bytes.Equal(TestFileSchema(), generated(t, "runbook_test")) || !bytes.Equal(PolicySchema(), generated(t, "policy")) {
		t.Error("the functions return other schemas; if the files were just rewritten, run the test again")
	}
}

func compileSchema(t *testing.T, text []byte) *validate.Schema {
	t.Helper()
	doc, err := validate.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := validate.NewCompiler()
	if err := c.AddResource("fettle.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("fettle.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func asJSON(t *testing.T, src []byte) any {
	t.Helper()
	text, err := yaml.YAMLToJSON(src)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := validate.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// Editor and program agree: every example is valid by both, and a mistake of
// shape is one to both.
func TestSchemasValidate(t *testing.T) {
	runbooks, tests, policies := compileSchema(t, Schema()), compileSchema(t, TestFileSchema()), compileSchema(t, PolicySchema())
	count := 0
	examples := func(pattern string, s *validate.Schema, skip string) {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if skip != "" && strings.HasSuffix(file, skip) {
				continue
			}
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			count++
			if err := s.Validate(asJSON(t, src)); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
	examples("testdata/good/*/*.yaml", runbooks, "_test.yaml")
	examples("testdata/good/*/*_test.yaml", tests, "")
	examples("testdata/policy/*.yaml", policies, "")
	examples("../../../runbooks/*/*.yaml", runbooks, "_test.yaml")
	examples("../../../runbooks/*/*_test.yaml", tests, "")
	if count < 4 {
		t.Errorf("only %d examples were found", count)
	}

	env := ring(t)
	good, err := os.ReadFile("testdata/good/ring/data_lost.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string][2]string{
		"unknown key":     {"\ndoc: >", "\nowner: me\ndoc: >"},
		"missing key":     {"\nfor: ring.data_lost", ""},
		"wrong type":      {"safe_point: true", "safe_point: maybe"},
		"wrong claim":     {"what: votes", "what: sleep"},
		"wrong duration":  {"within: 10s", "within: soon"},
		"no steps":        {"    steps:\n      - id: wipe\n        action: ring.wipe\n        target: ${cause}\n        forward_only: a person signed for it\n", "    steps: []\n"},
		"runbook's name":  {"runbook: ring.data_lost", "runbook: Ring"},
		"a number as id":  {"- id: remove", "- id: 5"},
		"pin without key": {"pin: [member_id, {subject: \"${vars.group}\", fact: leader}]", "pin: [{}]"},
	} {
		src := strings.Replace(string(good), change[0], change[1], 1)
		if src == string(good) {
			t.Fatalf("%s: nothing changed", what)
		}
		if _, err := Parse("f.yaml", []byte(src), env, pretend.Catalogues()); err == nil {
			t.Errorf("%s: the program takes it", what)
		}
		if runbooks.Validate(asJSON(t, []byte(src))) == nil {
			t.Errorf("%s: the schema takes it", what)
		}
	}
}
