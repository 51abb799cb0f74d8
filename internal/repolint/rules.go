package repolint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Finding is one breach of a rule. Line is 0 where the whole file is meant.
type Finding struct {
	Path string
	Line int
	Text string

	// Key is what a line of exceptions.txt names to excuse this finding: a path,
	// or path:Function. Empty for rules that know no exception.
	Key string
}

func (f Finding) String() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s", f.Path, f.Text)
	}
	return fmt.Sprintf("%s:%d: %s", f.Path, f.Line, f.Text)
}

// Rule is one thing that must be true of the whole tree.
type Rule struct {
	Name  string
	Check func(*Tree) []Finding
	Todo  string // what whoever broke it should do, in a sentence or two

	// Excusable rules give findings with a Key, and exceptions.txt may excuse
	// them one by one, with a reason. All others hold without exception.
	Excusable bool
}

// Rules lists every rule, in the order in which the design names them. The list
// is explicit so that a rule cannot be there without a reader seeing it.
func Rules() []Rule {
	return []Rule{
		{Name: "imports", Check: Imports, Todo: "Move the code to a room that may have this import, or pass what is needed through a port. " +
			"The table is internal/repolint/rooms.go; changing it is a design decision and belongs in docs/design."},
		{Name: "no-exec", Check: NoExec, Todo: "Run commands through the ports of internal/machine, so that they have a deadline, are recorded and can be faked."},
		{Name: "judge-pure", Check: JudgePure, Todo: "The judge gives the same answer for the same input, bit for bit: take time, facts and text as parameters."},
		{Name: "judge-map-order", Check: JudgeMapOrder, Todo: "Write `for _, k := range slices.Sorted(maps.Keys(m))`. Where the order truly cannot show in the result, " +
			"say why on the line above: `// any order: the counts are summed`."},
		{Name: "package-doc", Check: PackageDoc, Todo: "Write in doc.go what the package is, what it is not, and its invariants; begin with its name, two sentences at least."},
		{Name: "package-name", Check: PackageName, Todo: "Name the package after the one job that it has."},
		{Name: "no-init", Check: NoInit, Todo: "Make the list explicit and pass it in: init() runs in an order that nobody chose, and its state is shared between tests."},
		{Name: "no-sleep", Check: NoSleep, Excusable: true, Todo: "Wait for the event itself (a channel, a watch, a line of output under a deadline), or use testing/synctest."},
		{Name: "no-skip", Check: NoSkip, Excusable: true, Todo: "A missing system is red, not green: have .ci/run install it, put the test behind the lab build tag, or build what it needs."},
		{Name: "log-and-return", Check: LogAndReturn, Todo: "Wrap the error with what was being done to which subject and return it; only whoever handles it writes it down."},
		{Name: "file-size", Check: FileSize, Excusable: true, Todo: "Split the file by idea. A table of facts may be long: then say so in internal/repolint/exceptions.txt."},
		{Name: "doc-links", Check: DocLinks, Todo: "Point the link at something that exists, or take it out."},
		{Name: "doc-line-numbers", Check: DocLineNumbers, Todo: "Cite a name (a function, a test, a heading): line numbers are wrong after the next commit."},
		{Name: "required-files", Check: RequiredFiles, Todo: "Write the file; readers and scripts count on it."},
		{Name: "forbidden", Check: Forbidden, Todo: "Take the text out; internal/repolint/forbidden.go says what is wrong with it."},
		{Name: "invariants", Check: Invariants, Todo: "Name, in the row of the invariant, the tests that try to get round it: | S1 | what it says | `TestName` |."},
	}
}

// Run gives a rule's findings in tree, sorted, without those that exceptions.txt
// excuses. Exceptions that excuse nothing are findings too.
func Run(rule Rule, tree *Tree) []Finding {
	found := rule.Check(tree)
	excused, wrong := exceptionsFor(rule, tree)
	kept := wrong
	used := map[string]bool{}
	for _, f := range found {
		if _, ok := excused[f.Key]; ok && f.Key != "" {
			used[f.Key] = true
			continue
		}
		kept = append(kept, f)
	}
	for key, line := range excused {
		if !used[key] {
			kept = append(kept, Finding{Path: exceptionsFile, Line: line, Text: fmt.Sprintf("nothing to excuse at %s any more: delete this line", key)})
		}
	}
	slices.SortFunc(kept, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), strings.Compare(a.Text, b.Text))
	})
	return kept
}

// exceptionsFile holds every exception to an excusable rule, one a line:
//
//	rule path[:Function] reason in words
const exceptionsFile = "internal/repolint/exceptions.txt"

// exceptionsFor reads the exceptions of one rule: key to line number. A line
// that names an unknown rule is reported once, under the first rule.
func exceptionsFor(rule Rule, tree *Tree) (excused map[string]int, wrong []Finding) {
	excused = map[string]int{}
	file, ok := tree.text(exceptionsFile)
	if !ok {
		return excused, nil
	}
	rules := Rules()
	number := 0
	for line := range strings.Lines(file.Content) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		bad := func(text string) { wrong = append(wrong, Finding{Path: exceptionsFile, Line: number, Text: text}) }
		fields := strings.Fields(line)
		known := slices.IndexFunc(rules, func(r Rule) bool { return r.Name == fields[0] && r.Excusable })
		switch {
		case known < 0 && rule.Name == rules[0].Name:
			bad(fmt.Sprintf("%q is not a rule that knows exceptions", fields[0]))
		case fields[0] != rule.Name:
		case len(fields) < 5:
			bad("want: rule path[:Function] and a reason of at least three words")
		default:
			excused[fields[1]] = number
		}
	}
	return excused, wrong
}
