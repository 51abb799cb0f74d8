package repolint

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// RequiredFiles checks that what readers and scripts count on is there.
func RequiredFiles(t *Tree) []Finding {
	var found []Finding
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "LICENSE", "Makefile", ".golangci.yml", ".ci/run", invariantsFile} {
		if _, ok := t.text(name); !ok {
			found = append(found, Finding{Path: name, Text: "is missing"})
		}
	}
	return found
}

// link matches a Markdown link's target, inline or as a reference.
var link = regexp.MustCompile(`\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)|^\[[^\]]+\]:\s+(\S+)`)

// DocLinks checks that every link inside the repository leads somewhere, to the
// heading where one is named.
func DocLinks(t *Tree) []Finding {
	var found []Finding
	for _, doc := range t.markdown() {
		eachLine(doc, func(number int, line string) {
			for _, m := range link.FindAllStringSubmatch(withoutCode(line), -1) {
				if why := t.brokenLink(doc, m[1]+m[2]); why != "" {
					found = append(found, Finding{Path: doc.Path, Line: number, Text: why})
				}
			}
		})
	}
	return found
}

// brokenLink says why a link in doc leads nowhere, or "". Links to other sites
// are taken at their word.
func (t *Tree) brokenLink(doc Text, target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return fmt.Sprintf("the link %q is not one: %v", target, err)
	}
	if u.Scheme != "" || u.Host != "" {
		return ""
	}
	if strings.HasPrefix(u.Path, "/") {
		return fmt.Sprintf("the link %q is absolute: it works in no checkout", target)
	}
	name := doc.Path
	if u.Path != "" {
		name = path.Join(path.Dir(doc.Path), u.Path)
	}
	if !t.has(name) {
		return fmt.Sprintf("the link %q leads to %s, which is not there", target, name)
	}
	to, isText := t.text(name)
	if u.Fragment == "" || !isText || !strings.HasSuffix(name, ".md") {
		return ""
	}
	if !anchors(to)[u.Fragment] {
		return fmt.Sprintf("the link %q names a heading that %s does not have", target, name)
	}
	return ""
}

// anchors are the fragments of a document's headings, as the usual renderers
// make them: lower case, no punctuation, spaces as hyphens, repeats numbered.
func anchors(doc Text) map[string]bool {
	all := map[string]bool{}
	eachLine(doc, func(_ int, line string) {
		text := strings.TrimLeft(line, "#")
		if text == line || !strings.HasPrefix(text, " ") {
			return
		}
		var b strings.Builder
		for _, r := range strings.ToLower(strings.TrimSpace(text)) {
			switch {
			case r == ' ':
				b.WriteByte('-')
			case r == '-', r == '_', r >= 'a' && r <= 'z', r >= '0' && r <= '9', r > 127:
				b.WriteRune(r)
			}
		}
		slug := b.String()
		for n := 1; all[slug]; n++ {
			slug = fmt.Sprintf("%s-%d", b.String(), n)
		}
		all[slug] = true
	})
	return all
}

// lineCitation matches a place in source given by its number.
var lineCitation = regexp.MustCompile(`\b[\w/-]+\.(go|ya?ml|proto|sh|md):\d+|#L\d+|\b[Ll]ines? \d+`)

// DocLineNumbers finds documents that cite source by line number. Fenced blocks
// are left alone: they show what a program prints.
func DocLineNumbers(t *Tree) []Finding {
	var found []Finding
	for _, doc := range t.markdown() {
		eachLine(doc, func(number int, line string) {
			if cited := lineCitation.FindString(line); cited != "" {
				found = append(found, Finding{Path: doc.Path, Line: number, Text: fmt.Sprintf("cites %q", cited)})
			}
		})
	}
	return found
}

// markdown lists the documents that people read.
func (t *Tree) markdown() []Text {
	var docs []Text
	for _, f := range t.Texts {
		if strings.HasSuffix(f.Path, ".md") && !strings.Contains("/"+f.Path, "/testdata/") {
			docs = append(docs, f)
		}
	}
	return docs
}

// eachLine calls visit with every line, counted from 1, outside fenced blocks.
func eachLine(doc Text, visit func(number int, line string)) {
	number, fence := 0, ""
	for line := range strings.Lines(doc.Content) {
		number++
		line = strings.TrimRight(line, "\r\n")
		mark := strings.TrimLeft(line, " ")
		for _, f := range []string{"```", "~~~"} {
			switch {
			case fence == "" && strings.HasPrefix(mark, f):
				fence = f
			case fence == f && strings.HasPrefix(mark, f):
				fence = ""
				line = "" // the closing mark itself
			}
		}
		if fence == "" {
			visit(number, line)
		}
	}
}

var codeSpan = regexp.MustCompile("`[^`]*`")

// withoutCode blanks code spans, whose brackets are no links.
func withoutCode(line string) string { return codeSpan.ReplaceAllString(line, "") }
