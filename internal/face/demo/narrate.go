package demo

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"fettle/internal/face/show"
	"fettle/internal/fettle"
)

// say writes a line for people.
func (d *player) say(format string, args ...any) {
	if d.o.Printer != nil {
		d.o.Printer.Text("", fmt.Sprintf(format, args...))
	}
}

func (d *player) writer() io.Writer {
	if d.o.Printer == nil {
		return io.Discard
	}
	return d.o.Printer.W
}

func (d *player) intro(policy fettle.Policy) {
	p := d.o.Printer
	if p == nil {
		return
	}
	p.Line("\n%s", p.Bold("The policy file"))
	for line := range strings.Lines(Policy) {
		p.Line("  %s", p.Dim(strings.TrimRight(line, "\n")))
	}
	p.Text("", fmt.Sprintf("Three agents and a server run in this process, over mutual TLS on loopback; %d clients write and read all the time. The policy's hash, which every decision carries, is %.12s.", writers, policy.Hash))
}

func (d *player) curtain(sc scene) {
	p := d.o.Printer
	if p == nil {
		return
	}
	p.Line("\n%s", p.Bold("── "+sc.name+" "+strings.Repeat("─", max(0, 74-len(sc.name)))))
	p.Text("", sc.says)
}

// narrate prints what happens as it happens.
func (d *player) narrate(ctx context.Context) error {
	for {
		list, more := d.watch.take()
		for _, n := range list {
			d.tell(n)
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// settle lets the narrator finish its sentence.
func (d *player) settle(ctx context.Context) { _ = pause(ctx, 100*time.Millisecond) }

func (d *player) tell(n news) {
	p := d.o.Printer
	if p == nil {
		return
	}
	p.Event(n.incident.Opened, n.event)
	switch n.event.Kind {
	case fettle.EvPlanned:
		if n.incident.Plan != nil {
			p.Plan(*n.incident.Plan)
		}
	case fettle.EvIntent:
		for _, v := range n.event.Verdicts {
			if v.Arithmetic != "" && v.Invariant == "S2" {
				p.Text("                      ", p.Dim(v.Invariant+": "+v.Arithmetic))
			}
		}
	case fettle.EvRefused, fettle.EvAsked:
		for _, v := range n.event.Verdicts {
			if !v.Allow {
				p.Verdicts([]fettle.Verdict{v}, true)
			}
		}
	}
}

// Table writes the results.
func Table(p *show.Printer, r Report) {
	p.Line("\n%s", p.Bold(fmt.Sprintf("%-27s %-8s %-21s %-8s %s", "fault", "seen in", "cause", "mended", "writes lost")))
	for _, x := range r.Results {
		mended := "refused"
		if x.Outcome == "mended" {
			mended = show.Took(x.Mended)
		}
		if x.Outcome == "failed" {
			mended = p.Red(fmt.Sprintf("%-8s", "FAILED"))
		}
		lost := "–"
		if x.Writes > 0 {
			lost = fmt.Sprintf("%d of %d", x.Lost, x.Writes)
		}
		p.Line("%-27s %-8s %-21s %-8s %s", x.Fault, show.Took(x.Seen), x.Cause, mended, lost)
		if x.Wrong != "" {
			p.Text("  ", p.Red(x.Wrong))
		}
	}
	p.Line("took %s", show.Took(r.Took))
	if r.Recorded != "" {
		p.Line("recorded in %s; `fettle replay %s` takes every decision again", r.Recorded, r.Recorded)
	}
	if r.Dir != "" {
		p.Line("everything is left in %s", r.Dir)
	}
}
