package systemd

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

func spec(name string) fettle.ProbeSpec {
	for _, p := range probes() {
		if p.Name == name {
			return p
		}
	}
	return fettle.ProbeSpec{}
}

// unitLooker asks the manager for units.
type unitLooker struct{ *instance }

func (p unitLooker) Spec() fettle.ProbeSpec { return spec(unitProbe) }

// Observe implements fettle.Probe.
func (p unitLooker) Observe(ctx context.Context, subjects ...fettle.Subject) []fettle.Observation {
	if len(subjects) > 0 {
		out := make([]fettle.Observation, 0, len(subjects))
		for _, s := range subjects {
			out = append(out, p.one(ctx, s))
		}
		return out
	}
	asked := p.m.Clock.Now()
	units, err := p.m.Services.Units(ctx, p.config.Units...)
	if err != nil {
		// What was seen before cannot be seen now: that is unknown, not gone.
		var out []fettle.Observation
		for _, name := range p.starts.known() {
			out = append(out, fettle.Observation{Subject: p.subject(name), Asked: asked, Reason: reason(err), Detail: err.Error()})
		}
		return out
	}
	var out []fettle.Observation
	have := map[string]bool{}
	for _, u := range units {
		have[u.Name] = true
		if p.relevant(u) {
			out = append(out, p.observe(u, asked))
		}
	}
	for _, name := range p.config.ShouldRun {
		if !have[name] {
			out = append(out, p.one(ctx, p.subject(name)))
		}
	}
	return out
}

func (p unitLooker) one(ctx context.Context, s fettle.Subject) fettle.Observation {
	asked := p.m.Clock.Now()
	if s.Root() != p.m.Identity.Host.Name() || s.Kind() != fettle.KindUnit {
		return fettle.Observation{Subject: s, Asked: asked, Reason: fettle.NotSupported, Detail: "not a unit of this machine"}
	}
	u, err := p.m.Services.Unit(ctx, s.Name())
	if err != nil {
		return fettle.Observation{Subject: s, Asked: asked, Reason: reason(err), Detail: err.Error()}
	}
	return p.observe(u, asked)
}

func reason(err error) fettle.Reason {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fettle.PermissionDenied
	case errors.Is(err, context.DeadlineExceeded):
		return fettle.TimedOut
	case errors.Is(err, fettle.ErrNotSupported):
		return fettle.NotSupported
	}
	return fettle.Failed
}

// unitWatcher passes on what the manager tells.
type unitWatcher struct{ *instance }

func (w unitWatcher) Spec() fettle.ProbeSpec { return spec(unitProbe) }

// Watch implements fettle.Watcher.
func (w unitWatcher) Watch(ctx context.Context, emit func(fettle.Observation)) error {
	known := map[string]bool{}
	return w.m.Services.Watch(ctx, func(u machine.Unit) {
		if !known[u.Name] && !w.relevant(u) || w.passing(ctx, u) {
			return
		}
		known[u.Name] = true
		emit(w.observe(u, w.m.Clock.Now()))
	}, append(append([]string(nil), w.config.Units...), w.config.ShouldRun...)...)
}

// passing reports whether a unit that is told to be down is on its way up again
// by its own restart policy: systemd shows it as failed for an instant before it
// shows that it will restart it (service_enter_dead in its source). It does both
// before it answers anybody, so asking it once more tells; what the unit became
// is told next. To start it in that instant would use up its start limit.
func (w unitWatcher) passing(ctx context.Context, u machine.Unit) bool {
	if down(u) && u.Restart != "no" && u.Restart != "" {
		now, err := w.m.Services.Unit(ctx, u.Name)
		return err == nil && !down(now)
	}
	return false
}

func down(u machine.Unit) bool { return u.ActiveState == "failed" || u.ActiveState == "inactive" }

// healthLooker asks the configured addresses.
type healthLooker struct{ *instance }

func (p healthLooker) Spec() fettle.ProbeSpec { return spec(healthProbe) }

// answerWithin bounds one question: a healthy service on the same machine
// answers in milliseconds, one that is merely busy within a second.
const answerWithin = 2 * time.Second

// Observe implements fettle.Probe.
func (p healthLooker) Observe(ctx context.Context, subjects ...fettle.Subject) []fettle.Observation {
	var out []fettle.Observation
	for _, h := range p.config.Health {
		s := p.subject(h.Unit)
		if len(subjects) > 0 && !has(subjects, s) {
			continue
		}
		asked := p.m.Clock.Now()
		ok := h.ask(ctx)
		if ctx.Err() != nil {
			out = append(out, fettle.Observation{Subject: s, Asked: asked, Reason: fettle.TimedOut})
			continue
		}
		took := p.m.Clock.Now().Sub(asked)
		out = append(out, fettle.Observation{Subject: s, Asked: asked, Took: took, Facts: fettle.Facts{"answers": ok, "latency_ms": took.Milliseconds()}})
	}
	return out
}

func has(list []fettle.Subject, s fettle.Subject) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// ask reports whether the address answers in time.
func (h Health) ask(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if h.TCP != "" {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", h.TCP)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.HTTP, nil)
	if err != nil {
		return false
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode < http.StatusInternalServerError
}
