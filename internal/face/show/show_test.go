package show_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"fettle/internal/face/show"
	"fettle/internal/fettle"
)

var update = flag.Bool("update", false, "write the golden files anew")

// marks makes colour readable in golden files.
var marks = strings.NewReplacer("\x1b[31m", "‹red:", "\x1b[32m", "‹green:", "\x1b[33m", "‹yellow:", "\x1b[1m", "‹bold:", "\x1b[2m", "‹dim:", "\x1b[0m", "›")

var escapes = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// texts is what is written with and without colour.
func texts(t *testing.T, write func(*show.Printer)) (plain, coloured string) {
	t.Helper()
	for _, out := range []struct {
		color bool
		to    *string
	}{{false, &plain}, {true, &coloured}} {
		var b bytes.Buffer
		p := &show.Printer{W: &b, Color: out.color}
		write(p)
		if err := p.Err(); err != nil {
			t.Fatal(err)
		}
		*out.to = b.String()
	}
	return plain, coloured
}

// TestGolden: what people read, and that it says the same without colour, keeps
// to 80 columns, and ends no line in blanks.
func TestGolden(t *testing.T) {
	for name, write := range map[string]func(*show.Printer){
		"plan":         func(p *show.Printer) { p.Plan(plan()) },
		"verdicts":     func(p *show.Printer) { p.Verdicts(verdicts(), true) },
		"verdicts-few": func(p *show.Printer) { p.Verdicts(verdicts(), false) },
		"condition":    func(p *show.Printer) { p.Condition(condition(), fettle.Critical) },
		"flapping": func(p *show.Printer) {
			c := condition()
			c.Flapping, c.Title = true, ""
			p.Condition(c, fettle.Warning)
			p.Condition(c, fettle.Notice)
		},
		"diagnosis": func(p *show.Printer) { p.Diagnosis(diagnosis()) },
		"incident":  func(p *show.Printer) { p.Incident(story()) },
		"explain":   func(p *show.Printer) { p.Explain(story()) },
		"states": func(p *show.Printer) {
			for _, s := range []fettle.IncidentState{fettle.Open, fettle.Proposed, fettle.Held, fettle.Escalated, fettle.Resolved, fettle.Closed} {
				in := fettle.Incident{ID: "id", Opened: at(0), State: s, Cause: key("systemd.unit_failed", "unit:h1/a.service")}
				if s.Ended() {
					in.Ended = at(90 * time.Second)
				}
				p.IncidentLine(in)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			plain, coloured := texts(t, write)
			if d := cmp.Diff(plain, escapes.ReplaceAllString(coloured, "")); d != "" {
				t.Errorf("colour changes what is said:\n%s", d)
			}
			golden(t, name, plain)
			golden(t, name+".colour", marks.Replace(coloured))
			for line := range strings.Lines(plain) {
				line = strings.TrimSuffix(line, "\n")
				if n := utf8.RuneCountInString(line); n > 80 {
					t.Errorf("%d columns: %s", n, line)
				}
				if strings.TrimRight(line, " ") != line {
					t.Errorf("ends in blanks: %q", line)
				}
			}
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got; go test -update accepts it):\n%s", file, d)
	}
}

func TestText(t *testing.T) {
	long := "/var/lib/" + strings.Repeat("x", 90) + "/data"
	for _, c := range []struct {
		name, first, text string
		want              []string
	}{
		{"short", "a  ", "b c", []string{"a  b c"}},
		{"nothing to say", "a", "", []string{"a"}},
		{"line ends and tabs are blanks", "", "a\nb\t c", []string{"a b c"}},
		{"wrapped at the width", "x ", "0123456 01234567 0", []string{"x 0123456", "  01234567", "  0"}},
		{"exactly the width", "", "01234 6789 a", []string{"01234 6789", "a"}},
		{"a long word stays whole", "x ", "see " + long + " now", []string{"x see", "  " + long, "  now"}},
		{"a long word alone", "", long, []string{long}},
		{"characters are counted, not bytes", "µ ", "−−−−−− äöü ✓", []string{"µ −−−−−−", "  äöü ✓"}},
		{"colour has no width", "\x1b[31mab\x1b[0m ", "\x1b[2mcdef gh\x1b[0m i", []string{"\x1b[31mab\x1b[0m \x1b[2mcdef gh\x1b[0m", "   i"}},
	} {
		var b bytes.Buffer
		(&show.Printer{W: &b, Width: 10}).Text(c.first, c.text)
		if d := cmp.Diff(strings.Join(c.want, "\n")+"\n", b.String()); d != "" {
			t.Errorf("%s:\n%s", c.name, d)
		}
	}
}

// FuzzText: no word is lost, no line begun for nothing, and nothing that steers a
// terminal is let through.
func FuzzText(f *testing.F) {
	f.Add("  cause ", "etcd.data_lost on etcd-member:main/e1", 20)
	f.Add("", "ä\u0301 ✓ \x1b]0;owned\x07 \xff\x00", 1)
	f.Add("\x1b[31mx\x1b[0m", "\x1b[2mdim words here\x1b[0m", 3)
	f.Add("a ", "b  c\u00a0d e", 2)
	f.Add("\x1b[", "m \x1b[31", 0)
	f.Fuzz(func(t *testing.T, first, text string, width int) {
		var b bytes.Buffer
		p := &show.Printer{W: &b, Width: width}
		p.Text(first, text)
		out := b.String()
		if !utf8.ValidString(out) {
			t.Fatalf("%q is not UTF-8", out)
		}
		if rest := strings.Map(keepControl, escapes.ReplaceAllString(out, "")); rest != "" {
			t.Fatalf("%q reaches the terminal", rest)
		}
		squeezed := func(s string) string { return strings.Join(strings.Fields(s), "") }
		if said := first + text; utf8.ValidString(said) && !strings.ContainsFunc(said, unicode.IsControl) && squeezed(out) != squeezed(said) {
			t.Fatalf("%q became %q", said, out)
		}
		words := len(strings.Fields(text))
		if n := strings.Count(out, "\n"); n > 1+words+strings.Count(first, "\n") {
			t.Fatalf("%d words on %d lines:\n%s", words, n, out)
		}
	})
}

func keepControl(r rune) rune {
	if r == '\n' || r == '\t' || r >= 0x20 && r < 0x7f || r > 0x9f {
		return -1
	}
	return r
}

func TestHostileNames(t *testing.T) {
	var b bytes.Buffer
	p := &show.Printer{W: &b, Color: true}
	p.Line("%s", p.Red("a\x1b[2Jb\rc\x07\x9bd\x1b]8;;http://x\x1b\\e"))
	if want := "\x1b[31ma?[2Jb?c?�d?]8;;http://x?\\e\x1b[0m\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

type full struct{ left int }

var errFull = errors.New("no space left")

func (f *full) Write(b []byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

// TestErrorsOfTheWriterAreKept: output that could not be written is reported.
func TestErrorsOfTheWriterAreKept(t *testing.T) {
	p := &show.Printer{W: &full{left: 3}}
	p.Incident(story())
	if !errors.Is(p.Err(), errFull) {
		t.Errorf("got %v", p.Err())
	}
}

func TestTook(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 µs", 999 * time.Microsecond: "999 µs", 1500 * time.Microsecond: "1.5 ms", 42 * time.Millisecond: "42 ms", 999 * time.Millisecond: "999 ms",
		time.Second: "1.0 s", 59900 * time.Millisecond: "59.9 s", time.Minute: "1m0s", 90*time.Minute + 400*time.Millisecond: "1h30m0s", -3 * time.Second: "−3.0 s",
	} {
		if got := show.Took(d); got != want {
			t.Errorf("Took(%s) = %q, want %q", d, got, want)
		}
	}
}

// TestColourOnlyOnATerminal: a file, a pipe and /dev/null get none, and nobody
// does who set NO_COLOR.
func TestColourOnlyOnATerminal(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	for f, want := range map[*os.File]bool{terminal: true, null: false, read: false, write: false, file: false} {
		if got := show.For(f).Color; got != want {
			t.Errorf("%s: colour %v, want %v", f.Name(), got, want)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if show.For(file).Color {
		t.Error("a closed file gets colour")
	}
	t.Setenv("NO_COLOR", "1")
	if show.For(terminal).Color {
		t.Error("colour in spite of NO_COLOR")
	}
}
