package yamlfile

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// MaxBytes is the largest file that is read. The longest runbook that a
	// person can still review is a hundredth of it.
	MaxBytes = 1 << 20

	// MaxDepth bounds nesting. The parser is recursive and takes time in the
	// square of the depth; no file of ours is nested deeper than ten.
	MaxDepth = 64

	// MaxTokens bounds the words, marks and line ends of a file: the parser
	// takes time in the square of the keys of one mapping (measured: 200,000 keys
	// take minutes, 16,000 one second). The longest file of ours has a tenth.
	MaxTokens = 50_000
)

// parse returns the root node of the one document in src, or reports why there
// is none.
func parse(src []byte, r *Report) ast.Node {
	switch {
	case len(src) > MaxBytes:
		r.Add(At{1, 1}, "split it into several files", "the file has %d bytes; at most %d are read", len(src), MaxBytes)
		return nil
	case !utf8.Valid(src):
		r.Add(placeOf(string(src), invalid(src)), "save it as UTF-8", "the file is not UTF-8 text")
		return nil
	}
	text := strings.ReplaceAll(string(src), "\r\n", "\n")
	if i := strings.IndexFunc(text, control); i >= 0 {
		r.Add(placeOf(text, i), "in quoted text write \\r, \\0 or \\x07", "the file holds the control character %U", text[i])
		return nil
	}
	doc, err := parseTokens(text, r)
	if err != nil {
		var y yaml.Error
		at := At{1, 1}
		text := err.Error()
		if errors.As(err, &y) {
			text = y.GetMessage()
			if tk := y.GetToken(); tk != nil {
				at = tokenAt(tk)
			}
		}
		r.Add(at, "text with ': ', ' #', '{' or '[' in it needs quotes", "not YAML: %s", text)
		return nil
	}
	return doc
}

// parseTokens guards the parser with what its tokens show, and against itself:
// a panic in it is a bad file, not the end of the process.
func parseTokens(src string, r *Report) (root ast.Node, err error) {
	defer func() {
		if p := recover(); p != nil {
			root, err = nil, fmt.Errorf("the YAML parser gave up: %v", p)
		}
	}()
	tokens := lexer.Tokenize(src)
	if len(tokens) > MaxTokens {
		r.Add(tokenAt(tokens[MaxTokens]), "split it into several files", "the file has %d words and marks; at most %d are read", len(tokens), MaxTokens)
		return nil, nil
	}
	if !admissible(tokens, r) {
		return nil, nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, err
	}
	var body ast.Node
	for _, d := range file.Docs {
		if d.Body == nil {
			continue
		}
		if body != nil {
			r.Add(nodeAt(d.Body), "put it into a file of its own", "a second document; a file holds one")
			return nil, nil
		}
		body = d.Body
	}
	if body == nil {
		r.Add(At{1, 1}, "", "the file is empty")
	}
	return body, nil
}

// admissible refuses what YAML has and we do not, before the parser sees it.
func admissible(tokens token.Tokens, r *Report) bool {
	flow, line, entries := 0, 0, 0
	fine := true
	refuse := func(tk *token.Token, hint, format string, args ...any) {
		fine = false
		r.Add(tokenAt(tk), hint, format, args...)
	}
	for _, tk := range tokens {
		if tk.Position.Line != line {
			line, entries = tk.Position.Line, 0
		}
		switch tk.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			refuse(tk, "write it out; for shared values use vars", "anchors, aliases and merge keys are not read")
		case token.TagType:
			refuse(tk, "leave it out: every key has its one type", "tags are not read")
		case token.DirectiveType:
			refuse(tk, "leave it out", "directives are not read")
		case token.InvalidType:
			refuse(tk, "", "not YAML: %s", tk.Error)
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType:
			entries++
		}
		// Block nesting on lines of their own needs deep columns, which is
		// bounded by the square root of the size; on one line it does not.
		if flow > MaxDepth || entries > MaxDepth || (tk.Position.Column > 8*MaxDepth && entries > 0 && tk.Type == token.SequenceEntryType) {
			refuse(tk, "", "nested deeper than %d", MaxDepth)
			return false
		}
	}
	return fine
}

// control tells the characters that YAML does not permit, and the lone carriage
// return, which it takes for the end of a line and editors do not.
func control(c rune) bool { return c < ' ' && c != '\n' && c != '\t' || c == 0x7f }

// invalid is the offset of the first byte that is not UTF-8.
func invalid(src []byte) int {
	at := 0
	for at < len(src) {
		c, n := utf8.DecodeRune(src[at:])
		if c == utf8.RuneError && n == 1 {
			return at
		}
		at += n
	}
	return at
}

func placeOf(text string, offset int) At {
	before := text[:offset]
	line := strings.LastIndexByte(before, '\n') + 1
	return At{1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[line:])}
}

func tokenAt(tk *token.Token) At {
	if tk == nil || tk.Position == nil {
		return At{1, 1}
	}
	return At{max(tk.Position.Line, 1), max(tk.Position.Column, 1)}
}

// nodeAt is where a node begins; a block mapping begins at its first key, not
// at the colon that its token is.
func nodeAt(n ast.Node) At {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return nodeAt(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return nodeAt(n.Key)
	}
	return tokenAt(n.GetToken())
}
