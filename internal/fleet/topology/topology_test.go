package topology

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	generate "github.com/invopop/jsonschema"
	validate "github.com/santhosh-tekuri/jsonschema/v6"

	"fettle/internal/fettle"
	"fettle/internal/judge/runbook/yamlfile"
)

var update = flag.Bool("update", false, "write what comes out into the files of testdata and schema")

func read(t testing.TB, file string) []byte {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := read(t, file); !bytes.Equal(got, want) {
		t.Errorf("%s: got:\n%s\nwant:\n%s\n(go test -update rewrites the file)", file, got, want)
	}
}

// The last entry that matches a host and says something decides, for each thing by
// itself.
func TestOf(t *testing.T) {
	top, err := Parse("full.yaml", read(t, "testdata/full.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for label, want := range map[string]Place{
		"db-1":    {Zone: "east", Rack: "r1", Switches: []string{"s1"}, Power: []string{"feed-a"}},
		"web-07":  {Zone: "east", Rack: "r1", Switches: []string{"s1"}, Power: []string{"feed-a"}},
		"web-21":  {Zone: "east", Rack: "r2", Switches: []string{"s2a", "s2b"}, Power: []string{"feed-a", "feed-b"}},
		"web-31":  {Zone: "east", Rack: "r3", Switches: []string{"s3"}, Power: []string{"feed-a"}},
		"west-1":  {Zone: "west", Power: []string{"feed-a"}},
		"unknown": {Power: []string{"feed-a"}},
	} {
		if got := top.Of(label); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", label, got, want)
		}
	}
	if !(Topology{}).Of("web-21").Empty() {
		t.Error("the zero topology places a host")
	}
}

// A host's failure domain is the smallest that is known; a rack's name is its zone's.
func TestEdges(t *testing.T) {
	const h = fettle.Subject("host:h1")
	for _, c := range []struct {
		place Place
		want  []fettle.Edge
	}{
		{Place{Zone: "e", Rack: "r1", Switches: []string{"s"}, Power: []string{"p"}}, []fettle.Edge{
			{From: h, Rel: fettle.In, To: "rack:e/r1"}, {From: "rack:e/r1", Rel: fettle.In, To: "zone:e"},
			{From: h, Rel: fettle.Uses, To: "switch:s"}, {From: h, Rel: fettle.Uses, To: "power:p"},
		}},
		{Place{Rack: "r1"}, []fettle.Edge{{From: h, Rel: fettle.In, To: "rack:r1"}}},
		{Place{Zone: "e"}, []fettle.Edge{{From: h, Rel: fettle.In, To: "zone:e"}}},
		{Place{}, nil},
	} {
		if got := c.place.Edges(h); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.place, got, c.want)
		}
	}
}

// Everything that is wrong is said at once, with its line and what to do.
func TestBad(t *testing.T) {
	_, err := Parse("t.yaml", read(t, "testdata/bad.yaml"))
	if err == nil {
		t.Fatal("it was taken")
	}
	golden(t, "testdata/bad.txt", []byte(err.Error()+"\n"))
	if _, err := Parse("t.yaml", nil); err == nil {
		t.Error("an empty file was taken: it places nobody, and nobody would notice")
	}
}

// leaf is the schema of what is decoded as a whole.
func leaf(t reflect.Type) *generate.Schema {
	if t == reflect.TypeFor[yamlfile.Text]() {
		return &generate.Schema{Type: "string", Pattern: `\S`}
	}
	return nil
}

// The embedded schema is that of the shape, and editor and program agree.
func TestSchema(t *testing.T) {
	r := &generate.Reflector{
		FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, ExpandedStruct: true, Anonymous: true, Mapper: leaf,
		Namer: func(t reflect.Type) string { return strings.TrimSuffix(t.Name(), "Shape") },
	}
	s := r.Reflect(fileShape{})
	s.Title = "The topology: where hosts stand"
	one := uint64(1)
	for _, of := range append([]*generate.Schema{s}, s.Definitions["hosts"]) {
		for _, name := range of.Required {
			if p, ok := of.Properties.Get(name); ok && p.Type == "array" {
				p.MinItems = &one
			}
		}
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "schema/topology.schema.json", append(text, '\n'))
	if *update {
		return // what is embedded is from before
	}
	doc, err := validate.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := validate.NewCompiler()
	if err := c.AddResource("fettle.json", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("fettle.json")
	if err != nil {
		t.Fatal(err)
	}
	good := string(read(t, "testdata/full.yaml"))
	for what, src := range map[string]string{
		"good": good, "unknown key": good + "racks: []\n", "no match": "hosts:\n  - {rack: r1}\n",
		"empty match": "hosts:\n  - {match: [], rack: r1}\n", "a number": "hosts:\n  - {match: [a], rack: 7}\n", "nothing": "hosts: []\n",
	} {
		js, err := yaml.YAMLToJSON([]byte(src))
		if err != nil {
			t.Fatal(err)
		}
		value, err := validate.UnmarshalJSON(bytes.NewReader(js))
		if err != nil {
			t.Fatal(err)
		}
		_, byProgram := Parse("t.yaml", []byte(src))
		if byEditor := compiled.Validate(value); (byEditor == nil) != (what == "good") || (byProgram == nil) != (what == "good") {
			t.Errorf("%s: the editor says %v, the program %v", what, byEditor, byProgram)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, file := range []string{"testdata/full.yaml", "testdata/bad.yaml"} {
		f.Add(read(f, file), "web-21")
	}
	f.Add([]byte("hosts:\n  - {match: ['[a-', \"*\"], rack: r}\n"), "a")
	f.Fuzz(func(t *testing.T, src []byte, label string) {
		top, err := Parse("f.yaml", src)
		if err != nil {
			if top.entries != nil {
				t.Error("a file with mistakes places hosts")
			}
			return
		}
		p := top.Of(label)
		for _, s := range p.Shared() {
			if _, err := fettle.ParseSubject(string(s)); err != nil {
				t.Errorf("%+v: %v", p, err)
			}
		}
		if again := top.Of(label); fmt.Sprint(again) != fmt.Sprint(p) {
			t.Errorf("%s stands at %v and at %v", label, p, again)
		}
	})
}
