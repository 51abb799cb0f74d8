package runbooks_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"fettle/internal/judge/runbook"
)

// excerpt matches a fenced block that says which file it is from.
var excerpt = regexp.MustCompile("(?s)<!-- from (\\S+) -->\n```[a-z]*\n(.*?)```")

// TestExcerpts: what the guides show of a file is in that file. A line of three
// dots stands for lines that were left out.
func TestExcerpts(t *testing.T) {
	for _, doc := range []string{"../docs/runbooks.md", "../docs/adapters.md"} {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		found := excerpt.FindAllStringSubmatch(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s shows nothing of any file", doc)
		}
		for _, f := range found {
			src, err := os.ReadFile(filepath.Join("..", f[1]))
			if err != nil {
				t.Errorf("%s: %v", doc, err)
				continue
			}
			rest := string(src)
			for part := range strings.SplitSeq(f[2], "…\n") {
				part = strings.TrimRight(part, " \t") // the dots may be indented
				at := strings.Index(rest, part)
				if at < 0 {
					t.Errorf("%s shows of %s what is not there, or not in this order:\n%s", doc, f[1], part)
					break
				}
				rest = rest[at+len(part):]
			}
		}
	}
}

// TestEveryFieldIsExplained: the guide names every field of runbooks and their
// tests.
func TestEveryFieldIsExplained(t *testing.T) {
	text, err := os.ReadFile("../docs/runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, schema := range [][]byte{runbook.Schema(), runbook.TestFileSchema()} {
		var v any
		if err := json.Unmarshal(schema, &v); err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		properties(v, names)
		if len(names) < 10 {
			t.Fatalf("the schema has hardly any fields: %v", names)
		}
		for name := range names {
			// As a word within `code`: alone, or in a list of fields.
			if !regexp.MustCompile("`[^`\n]*\\b" + name + "\\b[^`\n]*`").Match(text) {
				t.Errorf("docs/runbooks.md does not speak of the field %s", name)
			}
		}
	}
}

// properties collects the names of all fields of a JSON Schema.
func properties(v any, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		if p, ok := v["properties"].(map[string]any); ok {
			for name := range p {
				into[name] = true
			}
		}
		for _, x := range v {
			properties(x, into)
		}
	case []any:
		for _, x := range v {
			properties(x, into)
		}
	}
}
