package adaptertest

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// README writes an adapter's README.md from its catalogue and a sample of its
// configuration, so that it cannot say anything else than what holds.
func README(c fettle.Catalogue, sampleConfig []byte) string {
	p := &page{}
	p.line("# %s", c.Adapter)
	p.line("<!-- Written from the catalogue by `go test ./internal/adapter/%s -run TestREADME -update`. -->", c.Adapter)
	p.text("%s", c.Doc)
	p.text("Tested with %s.", c.Versions)
	p.line("## Subjects")
	for _, k := range c.Kinds {
		p.item("`%s`: %s.", k.Kind, strings.TrimSuffix(k.Doc, "."))
	}
	p.end()
	p.line("## What it sees")
	for _, s := range c.Probes {
		p.probe(s)
	}
	p.line("## What can be wrong")
	for _, s := range c.Conditions {
		p.condition(s)
	}
	p.line("## What it can do")
	for _, s := range c.Actions {
		p.action(s)
	}
	if len(c.Faults) > 0 {
		p.line("## What it can break, for drills and tests")
		for _, f := range c.Faults {
			p.item("`%s`, on a %s, raises `%s`. %s", f.Name, f.Target, f.Raises, sentence(f.Doc))
			p.params("Parameter", f.Params)
		}
		p.end()
	}
	p.line("## Configuration")
	p.text("None is needed where `fettle` finds the system by itself. Otherwise, in YAML:")
	p.line("```yaml\n%s\n```", strings.TrimSpace(string(sampleConfig)))
	return strings.TrimRight(p.String(), "\n") + "\n"
}

// CheckREADME compares README.md of the package under test with what README
// writes from the adapter and its sample configuration, and asks whether the
// adapter takes that sample. With update it rewrites the file.
func CheckREADME(t *testing.T, a machine.Adapter, m machine.Machine, sampleConfig []byte, update bool) {
	t.Helper()
	in, err := a.Open(t.Context(), m, sampleConfig)
	if err != nil {
		t.Fatalf("the sample configuration does not open: %v", err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	want := README(a.Catalogue(), sampleConfig)
	if update {
		if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatalf("%v; run the test again with -update", err)
	}
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("README.md is not what the catalogue says (-catalogue +file); run the test again with -update:\n%s", d)
	}
}

// page is Markdown in the making.
type page struct{ bytes.Buffer }

// wrapAt is how long a line of prose may be.
const wrapAt = 100

// line writes a paragraph as it is.
func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n\n", args...) }

// text writes a wrapped paragraph.
func (p *page) text(format string, args ...any) {
	p.WriteString(wrap(fmt.Sprintf(format, args...), "", "") + "\n\n")
}

// item writes a wrapped item of a list, which end ends.
func (p *page) item(format string, args ...any) {
	p.WriteString(wrap(fmt.Sprintf(format, args...), "- ", "  ") + "\n")
}

func (p *page) end() { p.WriteString("\n") }

// wrap breaks text at blanks, but not within `code`.
func wrap(text, first, rest string) string {
	var b strings.Builder
	b.WriteString(first)
	at := len([]rune(first))
	empty := true
	for _, word := range words(text) {
		n := len([]rune(word))
		switch {
		case empty:
		case at+1+n > wrapAt:
			b.WriteString("\n" + rest)
			at = len([]rune(rest))
		default:
			b.WriteString(" ")
			at++
		}
		b.WriteString(word)
		at += n
		empty = false
	}
	return b.String()
}

// words divides at blanks outside of backticks.
func words(text string) []string {
	var out []string
	var word strings.Builder
	code := false
	for _, r := range text {
		if r == '`' {
			code = !code
		}
		if !code && (r == ' ' || r == '\n') {
			if word.Len() > 0 {
				out = append(out, word.String())
				word.Reset()
			}
			continue
		}
		word.WriteRune(r)
	}
	if word.Len() > 0 {
		out = append(out, word.String())
	}
	return out
}

// sentence ends text with a full stop.
func sentence(text string) string {
	text = strings.TrimSpace(text)
	if text == "" || strings.HasSuffix(text, ".") || strings.HasSuffix(text, "?") {
		return text
	}
	return text + "."
}

// span writes a duration as short as it goes: 5s, 1m, 2h.
func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
