package runbook

import (
	"embed"
	"fmt"
)

// The schemas are generated from the shapes by a test, which fails when they are
// not current, so that the generator is no part of the product.
//
//go:embed schema/*.json
var schemas embed.FS

// Schema returns the JSON Schema of runbook files, for editors.
func Schema() []byte { return schema("runbook") }

// TestFileSchema returns the JSON Schema of runbook test files.
func TestFileSchema() []byte { return schema("runbook_test") }

// PolicySchema returns the JSON Schema of the policy file.
func PolicySchema() []byte { return schema("policy") }

func schema(name string) []byte {
	text, err := schemas.ReadFile("schema/" + name + ".schema.json")
	if err != nil {
		panic(fmt.Sprintf("a schema is not embedded: %v", err)) // the build is broken
	}
	return text
}
