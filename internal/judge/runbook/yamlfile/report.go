package yamlfile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a file.
type Problem struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Text   string `json:"text"`
	Hint   string `json:"hint,omitempty"` // what to do next
	Source string `json:"source"`         // the line it is about, with a mark below the column
}

// String returns the problem as a person reads it, over several lines.
func (p Problem) String() string {
	s := fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Text)
	if p.Source != "" {
		s += "\n" + p.Source
	}
	if p.Hint != "" {
		s += "\n    hint: " + p.Hint
	}
	return s
}

// Error is everything that is wrong with a file, sorted by place.
type Error struct {
	Problems []Problem
}

// Error returns all problems.
func (e *Error) Error() string {
	var lines []string
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// Report collects the problems of one file.
type Report struct {
	file     string
	lines    []string
	problems []Problem
	seen     map[Problem]bool
}

// NewReport begins a report on a file with this content.
func NewReport(file string, src []byte) *Report {
	return &Report{file: file, seen: map[Problem]bool{}, lines: strings.Split(strings.ReplaceAll(string(src), "\r\n", "\n"), "\n")}
}

// Add reports a problem at a place. hint may be empty.
func (r *Report) Add(at At, hint, format string, args ...any) {
	at.Line = min(max(at.Line, 1), len(r.lines))
	at.Column = max(at.Column, 1)
	p := Problem{File: r.file, Line: at.Line, Column: at.Column, Text: fmt.Sprintf(format, args...), Hint: hint, Source: r.excerpt(at)}
	if !r.seen[p] {
		r.seen[p] = true
		r.problems = append(r.problems, p)
	}
}

// excerptWidth bounds the quoted line: a minified file must not fill a screen.
const excerptWidth = 160

func (r *Report) excerpt(at At) string {
	line := []rune(strings.ToValidUTF8(r.lines[at.Line-1], "\uFFFD"))
	mark := at.Column
	if cut := mark - excerptWidth/2; len(line) > excerptWidth && cut > 0 {
		line, mark = line[min(cut, len(line)):], mark-cut
	}
	if len(line) > excerptWidth {
		line = line[:excerptWidth]
	}
	for i, c := range line {
		if c == '\t' || c < ' ' {
			line[i] = ' '
		}
	}
	number := fmt.Sprintf("%5d | ", at.Line)
	return number + strings.TrimRight(string(line), " ") + "\n" + strings.Repeat(" ", len(number)+min(mark, len(line)+1)-1) + "^"
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return len(r.problems) == 0 }

// Err returns an *Error with all problems, or nil.
func (r *Report) Err() error {
	if r.OK() {
		return nil
	}
	list := slices.Clone(r.problems)
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column)
	})
	return &Error{Problems: list}
}

// Nearest returns the known word that was probably meant, or "". known may be
// in any order; of equally near words the first in the alphabet wins.
func Nearest(word string, known []string) string {
	best, least := "", max(2, len(word)/3)+1
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := distance(word, k); d < least && d < len(k) {
			best, least = k, d
		}
	}
	return best
}

// DidYouMean is a hint made of Nearest: a question, or the list of what is
// known when nothing is near and the list is short.
func DidYouMean(word string, known []string) string {
	if near := Nearest(word, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if len(known) == 0 {
		return ""
	}
	const few = 30
	list := slices.Compact(slices.Sorted(slices.Values(known)))
	if len(list) > few {
		return fmt.Sprintf("known are %s and %d more", strings.Join(list[:few], ", "), len(list)-few)
	}
	return "known: " + strings.Join(list, ", ")
}

// distance is Levenshtein's: insertions, deletions and substitutions.
func distance(a, b string) int {
	const longest = 100 // names are short; a long text is no misspelt name
	if len(a) > longest || len(b) > longest {
		return longest
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d++
			}
			diagonal = row[j+1]
			row[j+1] = min(d, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
