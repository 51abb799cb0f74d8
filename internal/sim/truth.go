package sim

import (
	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	judged "fettle/internal/judge/world"
)

// truth is everything as every host sees it now, as facts for expressions.
func (w *world) truth() *judged.World {
	now := w.e.now()
	view := judged.New()
	for _, h := range w.hosts {
		if !h.on {
			continue
		}
		for _, o := range h.sights(now) {
			o.Host, o.Asked = h.subject(), now
			view.Observe(o)
		}
	}
	return view
}

// checkS7Preconditions: they hold in truth, where it has been long enough as it is.
func (a asked) checkS7Preconditions() {
	if a.undo() || len(a.step.Requires) == 0 || len(a.s.w.cut) > 0 || !quiet(a.since, a.s.lastChange(a.step)) {
		return
	}
	view := a.s.w.truth()
	for _, src := range a.step.Requires {
		prog, err := a.s.lib.env.Compile(src, expr.Bool)
		if err != nil {
			a.breaks("S7", "its precondition %s cannot be read: %v", src, err)
			continue
		}
		says, _ := prog.Bool(expr.Scope{
			View: view, Cause: a.record.Cause.Subject, Target: a.step.Target, Host: a.step.Host, Group: a.step.Group, With: a.step.Params,
		})
		if says == fettle.No {
			a.breaks("S7", "its precondition does not hold: %s", src)
		}
	}
}
