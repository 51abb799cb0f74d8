package fanout

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxNames bounds what a pattern may be expanded to.
const maxNames = 100_000

// maxDigits is how long a number in a name may be to be counted with; a longer
// one is text.
const maxDigits = 9

// nameChars are the characters of a host's name besides letters and digits: those
// of DNS names, of addresses (also IPv6 with a zone) and of host identities.
const nameChars = "-._:%"

// CheckName says what is wrong with a host's name, nil when nothing is. It begins
// with a letter or a digit, so that it is neither an option nor a selector's sign.
func CheckName(name string) error {
	letter := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
	}
	if name == "" {
		return fmt.Errorf("a host's name is empty")
	}
	if len(name) > 253 { // RFC 1035
		return fmt.Errorf("a host's name is longer than 253 characters: %.40q…", name)
	}
	for i := range len(name) {
		if !letter(name[i]) && (i == 0 && name[i] != ':' || !strings.Contains(nameChars, name[i:i+1])) {
			return fmt.Errorf("a host cannot be named %q: letters, digits and %s, the first a letter or digit", name, nameChars)
		}
	}
	return nil
}

// Expand gives the names that a pattern stands for, in its order: "web[1-3,7]" is
// web1 web2 web3 web7, and "[01-10]" keeps its zeros. A pattern without brackets
// stands for itself.
func Expand(pattern string) ([]string, error) {
	names := []string{""}
	add := func(ends []string) error {
		if len(names)*len(ends) > maxNames {
			return fmt.Errorf("%q stands for more than %d names", pattern, maxNames)
		}
		var next []string
		for _, n := range names {
			for _, e := range ends {
				next = append(next, n+e)
			}
		}
		names = next
		return nil
	}
	rest := pattern
	for {
		text, after, more := strings.Cut(rest, "[")
		if strings.Contains(text, "]") {
			return nil, fmt.Errorf("%q has a ] without a [", pattern)
		}
		if err := add([]string{text}); err != nil {
			return nil, err
		}
		if !more {
			return names, nil
		}
		inside, after, closed := strings.Cut(after, "]")
		if !closed {
			return nil, fmt.Errorf("%q has a [ without a ]", pattern)
		}
		numbers, err := expandSet(inside)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", pattern, err)
		}
		if err := add(numbers); err != nil {
			return nil, err
		}
		rest = after
	}
}

// expandSet expands what is between brackets: numbers and ranges of them.
func expandSet(set string) ([]string, error) {
	var out []string
	for part := range strings.SplitSeq(set, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, errA := number(from)
		b, errB := number(to)
		padded := len(from) > 1 && from[0] == '0' || len(to) > 1 && to[0] == '0'
		switch {
		case errA != nil || errB != nil:
			return nil, fmt.Errorf("[%s] is no set of numbers: write [1-3,7]", set)
		case a > b:
			return nil, fmt.Errorf("[%s] goes backwards: write [%s-%s]", part, to, from)
		case padded && len(from) != len(to):
			return nil, fmt.Errorf("[%s] does not say how many digits: write both ends with the same number of them", part)
		case b-a >= maxNames || len(out)+b-a >= maxNames:
			return nil, fmt.Errorf("[%s] stands for more than %d names", part, maxNames)
		}
		width := 0
		if padded {
			width = len(from)
		}
		for n := a; n <= b; n++ {
			out = append(out, fmt.Sprintf("%0*d", width, n))
		}
	}
	return out, nil
}

func number(s string) (int, error) {
	if s == "" || len(s) > maxDigits || strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.Atoi(s)
}

// Fold writes names as short as they go, sorted: "db1,web[1-12,14]". Names that
// CheckName accepts are found again with Unfold; numbers in several places fold
// too: "r[1-2]n[1-3]".
func Fold(names []string) string {
	var all []shape
	for _, n := range slices.Compact(slices.Sorted(slices.Values(names))) {
		all = append(all, shapeOf(n))
	}
	most := 0
	for _, s := range all {
		most = max(most, len(s.sets))
	}
	// From the last number to the first: r1n1 and r1n2 become r1n[1-2] before r1 and
	// r2 are compared.
	for at := most - 1; at >= 0; at-- {
		all = merge(all, at)
	}
	slices.SortFunc(all, compareShapes)
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = s.String()
	}
	return strings.Join(out, ",")
}

// Unfold is the inverse of Fold: names and patterns with commas between them.
func Unfold(folded string) ([]string, error) {
	var out []string
	for _, term := range splitTerms(folded) {
		names, err := Expand(term)
		if err != nil {
			return nil, err
		}
		if len(out)+len(names) > maxNames {
			return nil, fmt.Errorf("%.40q stands for more than %d names", folded, maxNames)
		}
		out = append(out, names...)
	}
	return out, nil
}

// splitTerms splits at commas and blanks outside of brackets.
func splitTerms(s string) []string {
	depth := 0
	return strings.FieldsFunc(s, func(r rune) bool {
		switch r {
		case '[':
			depth++
		case ']':
			depth--
		case ',', ' ', '\t', '\n':
			return depth <= 0
		}
		return false
	})
}

// shape is one or more names that differ in numbers only: texts[0] sets[0]
// texts[1] … texts[len(sets)].
type shape struct {
	texts []string
	sets  [][]numeral
}

// numeral is a number as it is written: width 0 without zeros before it.
type numeral struct{ value, width int }

func (n numeral) String() string { return fmt.Sprintf("%0*d", n.width, n.value) }

func shapeOf(name string) shape {
	var s shape
	text, rest := "", name
	for rest != "" {
		begin := strings.IndexAny(rest, "0123456789")
		if begin < 0 {
			text += rest
			break
		}
		end := begin
		for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
			end++
		}
		digits := rest[begin:end]
		text += rest[:begin]
		rest = rest[end:]
		value, err := number(digits)
		if err != nil {
			text += digits
			continue
		}
		n := numeral{value: value}
		if len(digits) > 1 && digits[0] == '0' {
			n.width = len(digits)
		}
		s.texts, s.sets = append(s.texts, text), append(s.sets, []numeral{n})
		text = ""
	}
	s.texts = append(s.texts, text)
	return s
}

// merge joins the shapes that are equal but for their set at one place.
func merge(all []shape, at int) []shape {
	first := map[string]int{}
	var out []shape
	for _, s := range all {
		if len(s.sets) <= at {
			out = append(out, s)
			continue
		}
		key := s.without(at)
		if i, ok := first[key]; ok {
			out[i].sets[at] = append(out[i].sets[at], s.sets[at]...)
			continue
		}
		first[key] = len(out)
		out = append(out, s)
	}
	return out
}

// without names the shape without one of its sets.
func (s shape) without(at int) string {
	var b strings.Builder
	for i, text := range s.texts {
		fmt.Fprintf(&b, "%q", text)
		if i < len(s.sets) && i != at {
			fmt.Fprintf(&b, "%v", s.sets[i])
		}
	}
	return b.String()
}

func (s shape) String() string {
	var b strings.Builder
	for i, text := range s.texts {
		b.WriteString(text)
		if i < len(s.sets) {
			b.WriteString(writeSet(s.sets[i]))
		}
	}
	return b.String()
}

// writeSet writes numbers as ranges. Those without zeros before them stand apart
// from those of a fixed width, but 10 after 09 is of width 2.
func writeSet(set []numeral) string {
	widths := map[int]bool{}
	for _, n := range set {
		widths[n.width] = true
	}
	for i, n := range set {
		if digits := len(strconv.Itoa(n.value)); n.width == 0 && digits > 1 && widths[digits] {
			set[i].width = digits
		}
	}
	slices.SortFunc(set, func(a, b numeral) int { return cmp.Or(cmp.Compare(a.width, b.width), cmp.Compare(a.value, b.value)) })
	if len(set) == 1 {
		return set[0].String()
	}
	var parts []string
	for i := 0; i < len(set); {
		j := i
		for j+1 < len(set) && set[j+1].width == set[i].width && set[j+1].value == set[j].value+1 {
			j++
		}
		switch j - i {
		case 0:
			parts = append(parts, set[i].String())
		default:
			parts = append(parts, set[i].String()+"-"+set[j].String())
		}
		i = j + 1
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// compareShapes sorts as people count: web2 before web10.
func compareShapes(a, b shape) int {
	for i := range min(len(a.texts), len(b.texts)) {
		if c := strings.Compare(a.texts[i], b.texts[i]); c != 0 {
			return c
		}
		if i < len(a.sets) && i < len(b.sets) {
			x, y := a.sets[i][0], b.sets[i][0]
			if c := cmp.Or(cmp.Compare(x.value, y.value), cmp.Compare(x.width, y.width)); c != 0 {
				return c
			}
		}
	}
	return cmp.Compare(len(a.texts), len(b.texts))
}

// CompareNames sorts as people count: web2 before web10.
func CompareNames(a, b string) int {
	return cmp.Or(compareShapes(shapeOf(a), shapeOf(b)), strings.Compare(a, b))
}
