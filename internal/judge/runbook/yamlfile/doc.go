// Package yamlfile reads small YAML files that people write (runbooks, their
// tests, policies) strictly, into structs whose leaves remember where they
// stood, and reports everything that is wrong with a file at once, each with
// file:line:column, an excerpt and a hint.
//
// It is not a general YAML decoder: there is one document a file, no anchors,
// aliases, merge keys, tags or directives, at most MaxBytes and MaxDepth, and
// every key must be one that the struct names. So what a person wrote and what
// is acted upon cannot differ.
//
// The struct is the one source of a file's shape. Its tags are those from which
// the JSON Schema for editors is generated too (github.com/invopop/jsonschema),
// so that the two cannot disagree:
//
//	yaml:"name"                        the key; "-" is not read
//	jsonschema:"required,enum=a,enum=b,pattern=^x$,minimum=1"
//	jsonschema_description:"…"         for people, here unused
//
// Invariants: Decode does not panic and its answer depends on nothing but its
// arguments; a Report that is OK means that every key was understood.
package yamlfile
