package show

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"fettle/internal/fleet/fanout"
)

// maxLine is how much of a line without an end is held back.
const maxLine = 64 << 10

// Fanout writes what a command says on many hosts as it comes, each line with its
// host before it: what the command wrote to its standard output to Out, all else
// to Err. It is not safe for several goroutines.
type Fanout struct {
	Out, Err *Printer
	open     map[string][]byte // host and stream: a line that has not ended
}

// Add writes one event.
func (f *Fanout) Add(e fanout.Event) {
	if f.open == nil {
		f.open = map[string][]byte{}
	}
	switch e.Kind {
	case fanout.Output:
		f.output(e)
	case fanout.Clipped:
		f.Err.Line("%s: %s", e.Host, f.Err.Yellow(e.Why))
	case fanout.Quiet:
		f.Err.Line("%s: %s", e.Host, f.Err.Yellow(e.Why))
	case fanout.Answers:
		f.Err.Line("%s: answers again", e.Host)
	case fanout.Ended:
		for _, stream := range []fanout.Stream{fanout.Stdout, fanout.Stderr} {
			key := e.Host + " " + string(stream)
			if rest := f.open[key]; len(rest) > 0 {
				f.line(e.Host, stream, rest)
			}
			delete(f.open, key)
		}
		if e.Result.Outcome != fanout.Succeeded && e.Result.Outcome != fanout.Skipped {
			f.Err.Line("%s: %s", e.Host, f.Err.Red(ending(e.Result.Outcome, e.Result.Exit, e.Result.Signal, e.Result.Why)))
		}
	}
}

func (f *Fanout) output(e fanout.Event) {
	key := e.Host + " " + string(e.Stream)
	rest := append(f.open[key], e.Data...)
	for {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			break
		}
		f.line(e.Host, e.Stream, rest[:end])
		rest = rest[end+1:]
	}
	if len(rest) > maxLine {
		f.line(e.Host, e.Stream, rest)
		rest = nil
	}
	f.open[key] = bytes.Clone(rest)
}

func (f *Fanout) line(host string, stream fanout.Stream, text []byte) {
	p := f.Out
	if stream == fanout.Stderr {
		p = f.Err
	}
	p.Line("%s %s", p.Dim(host+":"), foreign(text))
}

// foreign is output of another machine: no code of a terminal in it is ours.
func foreign(text []byte) string {
	return strings.ReplaceAll(string(bytes.TrimSuffix(text, []byte("\r"))), "\x1b", "?")
}

// ending says in words how a command ended.
func ending(o fanout.Outcome, exit int, signal, why string) string {
	switch o {
	case fanout.Failed:
		return fmt.Sprintf("failed: exit status %d", exit)
	case fanout.Signalled:
		return "ended by SIG" + strings.TrimPrefix(signal, "SIG")
	case fanout.Succeeded:
		return string(o)
	}
	if why == "" {
		return string(o)
	}
	return string(o) + ": " + why
}

// FanoutGroups writes each output once, under the hosts that gave it.
func (p *Printer) FanoutGroups(groups []fanout.Group) {
	for i, g := range groups {
		if i > 0 {
			p.Line("")
		}
		head := p.Bold(fanout.Fold(g.Hosts))
		if n := len(g.Hosts); n > 1 {
			head += fmt.Sprintf(" (%d)", n)
		}
		if g.Outcome != fanout.Succeeded {
			head += " " + p.Red(ending(g.Outcome, g.Exit, g.Signal, g.Why))
		}
		p.Line("%s", head)
		for _, text := range [][]byte{g.Stdout, g.Stderr} {
			for line := range bytes.Lines(text) {
				p.Line("%s", foreign(bytes.TrimSuffix(line, []byte("\n"))))
			}
		}
		if g.Clipped {
			p.Line("%s", p.Yellow("(cut: the rest of the output was thrown away)"))
		}
		if g.Hint != "" {
			p.Text("hint: ", g.Hint)
		}
	}
}

// FanoutSummary writes how many ended how, and, where failures are wanted, which
// hosts did not succeed and why, those alike on one line.
func (p *Printer) FanoutSummary(sum fanout.Summary, groups []fanout.Group, failures bool) {
	var counts []string
	for _, o := range fanout.Outcomes() {
		if n := sum.Counts[o]; n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, o))
		}
	}
	noun := "hosts"
	if sum.Hosts == 1 {
		noun = "host"
	}
	p.Line("%d %s in %s: %s", sum.Hosts, noun, Took(sum.Took.Round(time.Millisecond)), strings.Join(counts, ", "))
	if sum.Stopped != "" {
		p.Text("  stopped: ", sum.Stopped)
	}
	if !failures {
		return
	}
	for _, g := range byFailure(groups) {
		p.Text("  "+p.Red(ending(g.Outcome, g.Exit, g.Signal, g.Why))+": ", fanout.Fold(g.Hosts))
		if g.Hint != "" {
			p.Text("    hint: ", g.Hint)
		}
	}
}

// byFailure joins groups that did not succeed in the same way, whatever they
// wrote.
func byFailure(groups []fanout.Group) []fanout.Group {
	var out []fanout.Group
	for _, g := range groups {
		if g.Outcome == fanout.Succeeded {
			continue
		}
		same := slices.IndexFunc(out, func(o fanout.Group) bool {
			return o.Outcome == g.Outcome && o.Exit == g.Exit && o.Signal == g.Signal && o.Why == g.Why
		})
		if same < 0 {
			g.Hosts = slices.Clone(g.Hosts)
			out = append(out, g)
			continue
		}
		out[same].Hosts = append(out[same].Hosts, g.Hosts...)
	}
	return out
}
