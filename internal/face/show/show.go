// Package show writes Fettle's words for people to read: conditions, diagnoses,
// plans, guard arithmetic and stories, in 80 columns, with colour only where it
// is wanted. What programs read is the vocabulary's own JSON, not this.
//
// It decides nothing and leaves nothing out: what a story holds is shown. Names
// and texts come from machines that may be ill or hostile: a control character in
// them is shown as a question mark and never reaches the terminal.
package show

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"fettle/internal/fettle"
)

// Printer writes to one place. The zero Width is 80 columns. Errors of the
// writer are kept and returned by Err: output that could not be written is
// reported once, at the end.
type Printer struct {
	W     io.Writer
	Width int
	Color bool
	err   error
}

// For returns a printer for a file, with colour when it is a terminal and
// NO_COLOR is not set (no-color.org).
func For(f *os.File) *Printer {
	return &Printer{W: f, Color: IsTerminal(f) && os.Getenv("NO_COLOR") == ""}
}

// IsTerminal reports whether a file is a terminal: whether it has the settings of
// one (termios(3)), which /dev/null has not.
func IsTerminal(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	terminal := false
	err = raw.Control(func(fd uintptr) {
		_, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		terminal = err == nil
	})
	return err == nil && terminal
}

// Err returns the first error of writing.
func (p *Printer) Err() error { return p.err }

// Line writes one line, or as many as the text has.
func (p *Printer) Line(format string, args ...any) {
	if p.err == nil {
		_, p.err = io.WriteString(p.W, harmless(fmt.Sprintf(format, args...))+"\n")
	}
}

// harmless keeps our own colours, line ends and tabs, and no other control
// character: a file's name could else write anything on the terminal.
func harmless(s string) string {
	var b strings.Builder
	for s != "" {
		if code := ours.FindString(s); code != "" {
			b.WriteString(code)
			s = s[len(code):]
			continue
		}
		r, n := utf8.DecodeRuneInString(s)
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			r = '?'
		}
		b.WriteRune(r)
		s = s[n:]
	}
	return b.String()
}

// ours are the codes that paint writes.
var ours = regexp.MustCompile(`^\x1b\[(0|1|2|31|32|33)m`)

func (p *Printer) width() int {
	if p.Width > 0 {
		return p.Width
	}
	return 80
}

// Text writes text wrapped to the width, the first line after first, the others
// indented by as many blanks. A word that is longer than a line stays whole, so
// that a path or a command can be copied.
func (p *Printer) Text(first, text string) {
	indent := strings.Repeat(" ", utf8.RuneCountInString(strip(first)))
	line, n := first, len(indent)
	empty := true
	for _, word := range strings.Fields(text) {
		w := utf8.RuneCountInString(strip(word))
		if !empty && n+1+w > p.width() {
			p.Line("%s", line)
			line, n, empty = indent, len(indent), true
		}
		if !empty {
			line += " "
			n++
		}
		line += word
		n += w
		empty = false
	}
	p.Line("%s", line)
}

// strip removes colour.
func strip(s string) string {
	var b strings.Builder
	in := false
	for _, r := range s {
		switch {
		case r == '\x1b':
			in = true
		case in && r == 'm':
			in = false
		case !in:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// The colours: red is bad, yellow asks for attention, green is good, dim is
// detail. Nothing is said by colour alone.
func (p *Printer) paint(code, s string) string {
	if !p.Color || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// Red marks what is bad.
func (p *Printer) Red(s string) string { return p.paint("31", s) }

// Green marks what is good.
func (p *Printer) Green(s string) string { return p.paint("32", s) }

// Yellow marks what asks for attention.
func (p *Printer) Yellow(s string) string { return p.paint("33", s) }

// Bold marks a heading.
func (p *Printer) Bold(s string) string { return p.paint("1", s) }

// Dim marks detail.
func (p *Printer) Dim(s string) string { return p.paint("2", s) }

// Severity returns a word for a severity, coloured.
func (p *Printer) Severity(s fettle.Severity) string {
	switch s {
	case fettle.Critical:
		return p.Red("CRITICAL")
	case fettle.Warning:
		return p.Yellow("WARNING ")
	default:
		return p.Dim("notice  ")
	}
}

// Took writes a duration in the unit that fits, with two or three digits.
func Took(d time.Duration) string {
	switch {
	case d < 0:
		return "−" + Took(-d)
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
