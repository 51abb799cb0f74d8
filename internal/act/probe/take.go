package probe

import (
	"context"
	"fmt"
	"time"

	"fettle/internal/fettle"
)

// take completes and checks what a probe returned, passes it on, and returns it.
func (a *asker) take(c *call, subjects []fettle.Subject, asked time.Time, out answered) []fettle.Observation {
	now := a.r.o.Clock.Now()
	about := subjects
	if len(about) == 0 {
		about = a.knows()
	}
	var list []fettle.Observation
	var defect error
	if out.panic != nil {
		defect = fmt.Errorf("panic: %v", out.panic)
		for _, s := range about {
			list = append(list, unknown(a.spec, a.r.o.Host, s, fettle.Failed, "defect of the probe: "+defect.Error(), asked, now))
		}
	}
	said := map[fettle.Subject]bool{}
	for _, o := range out.list {
		_, seen := a.r.sink.get(o.Subject, a.spec.Name)
		o, err := checked(a.spec, a.r.o.Host, o, asked, now, seen)
		if err != nil {
			defect = err
		}
		if o.Subject != "" {
			list = append(list, o)
			said[o.Subject] = true
		}
	}
	for _, s := range subjects {
		if out.panic == nil && !said[s] {
			list = append(list, unknown(a.spec, a.r.o.Host, s, fettle.Failed, "the probe said nothing about it", asked, now))
		}
	}
	a.r.setDefect(a, a.spec.Name, defect != nil)
	impatient := context.Cause(c.ctx) != nil
	for i, o := range list {
		if impatient && !o.Known() {
			continue // it was cut short by us: that says nothing about the subject
		}
		a.note(o)
		list[i] = a.r.sink.accept(o)
	}
	return list
}

// note keeps track of what the probe knows.
func (a *asker) note(o fettle.Observation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case o.Gone:
		delete(a.known, o.Subject)
	case o.Known():
		a.known[o.Subject] = true
	}
}
