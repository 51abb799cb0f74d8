package clock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// Adapter implements machine.Adapter.
type Adapter struct{}

// Config is the adapter's configuration. The zero value asks the chronyd of this
// machine by the chronyc of its standard directories.
type Config struct {
	// Chronyc is the program that asks; "": chronyc.
	Chronyc string `yaml:"chronyc"`
}

// ParseConfig reads YAML, strictly. The error has line, column and excerpt.
func ParseConfig(src []byte) (Config, error) {
	var c Config
	if len(src) > 0 {
		if err := yaml.UnmarshalWithOptions(src, &c, yaml.Strict()); err != nil {
			return Config{}, fmt.Errorf("clock configuration: %w", err)
		}
	}
	if c.Chronyc == "" {
		c.Chronyc = "chronyc"
	}
	if c.Chronyc != "chronyc" && !strings.HasPrefix(c.Chronyc, "/") {
		return Config{}, fmt.Errorf("clock configuration: chronyc: %q is not an absolute path", c.Chronyc)
	}
	return c, nil
}

// Catalogue implements machine.Adapter.
func (Adapter) Catalogue() fettle.Catalogue { return Catalogue() }

// Discover implements machine.Adapter: it is for machines on which chronyd runs.
func (Adapter) Discover(ctx context.Context, m machine.Machine) ([]machine.Found, error) {
	list, err := m.Services.Units(ctx, "chrony.service", "chronyd.service")
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(u machine.Unit) bool { return u.ActiveState == "active" })
	if i < 0 {
		return nil, nil
	}
	return []machine.Found{{Name: "clock", Config: []byte("# as the chronyd of this machine sees it\nchronyc: chronyc\n"), Why: list[i].Name + " runs"}}, nil
}

// Open implements machine.Adapter.
func (Adapter) Open(_ context.Context, m machine.Machine, config []byte) (fettle.Instance, error) {
	c, err := ParseConfig(config)
	if err != nil {
		return nil, err
	}
	return &instance{config: c, m: m}, nil
}

type instance struct {
	config Config
	m      machine.Machine
}

func (i *instance) Probes() []fettle.Probe            { return []fettle.Probe{trackingLooker{i}, sourceLooker{i}} }
func (i *instance) Watchers() []fettle.Watcher        { return nil }
func (i *instance) Actions() map[string]fettle.Action { return nil }
func (i *instance) Faults() map[string]fettle.Fault   { return nil }
func (i *instance) Close() error                      { return nil }

// ask runs chronyc for one report. It ends with ctx.
func (i *instance) ask(ctx context.Context, report string) ([]byte, error) {
	out, err := i.m.Commands.Run(ctx, machine.Command{Path: i.config.Chronyc, Args: []string{"-c", "-n", report}, Limit: 64 << 10})
	switch {
	case err != nil:
		return nil, err
	case out.Truncated:
		return nil, fmt.Errorf("chronyc %s: it said more than is read", report)
	case out.Exit != 0:
		return nil, fmt.Errorf("chronyc %s: exit %d: %w", report, out.Exit, errNoDaemon)
	}
	return out.Stdout, nil
}

// errNoDaemon: chronyc says on its standard output why, in prose.
var errNoDaemon = errors.New("chronyd does not answer its command port (systemctl status chrony)")

// unknown is an observation that could not be made, and why.
func unknown(s fettle.Subject, err error) fettle.Observation {
	o := fettle.Observation{Subject: s, Reason: fettle.Failed, Detail: err.Error()}
	switch {
	case errors.Is(err, errNoDaemon):
		o.Reason = fettle.Unreachable
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		o.Reason = fettle.TimedOut
	case errors.Is(err, fs.ErrPermission):
		o.Reason = fettle.PermissionDenied
	case errors.Is(err, fs.ErrNotExist):
		o.Reason = fettle.NotSupported
	}
	return o
}

func specOf(name string) fettle.ProbeSpec {
	for _, p := range Catalogue().Probes {
		if p.Name == name {
			return p
		}
	}
	return fettle.ProbeSpec{}
}

type trackingLooker struct{ *instance }

// Spec implements fettle.Probe.
func (trackingLooker) Spec() fettle.ProbeSpec { return specOf(trackingProbe) }

// Observe implements fettle.Probe.
func (l trackingLooker) Observe(ctx context.Context, subjects ...fettle.Subject) []fettle.Observation {
	self := l.m.Identity.Host
	if len(subjects) > 0 && !slices.Contains(subjects, self) {
		return nil
	}
	text, err := l.ask(ctx, "tracking")
	if err != nil {
		return []fettle.Observation{unknown(self, err)}
	}
	t, err := parseTracking(text)
	if err != nil {
		return []fettle.Observation{unknown(self, err)}
	}
	return []fettle.Observation{{Subject: self, Facts: fettle.Facts{
		"synchronised": t.synced, "source": t.source, "stratum": t.stratum, "offset_us": t.offsetUs,
	}}}
}

type sourceLooker struct{ *instance }

// Spec implements fettle.Probe.
func (sourceLooker) Spec() fettle.ProbeSpec { return specOf(sourceProbe) }

// Observe implements fettle.Probe. A source that is asked for and not used here is
// left out: this machine has nothing to say of it.
func (l sourceLooker) Observe(ctx context.Context, subjects ...fettle.Subject) []fettle.Observation {
	text, err := l.ask(ctx, "sources")
	var list []source
	if err == nil {
		list, err = parseSources(text)
	}
	var out []fettle.Observation
	if err != nil {
		for _, s := range subjects {
			out = append(out, unknown(s, err))
		}
		return out
	}
	for _, s := range list {
		subject := fettle.NewSubject(fettle.KindTimeSource, s.address)
		if len(subjects) > 0 && !slices.Contains(subjects, subject) {
			continue
		}
		out = append(out, fettle.Observation{
			Subject: subject, Facts: fettle.Facts{"state": s.state, "reach": s.reach, "stratum": s.stratum, "offset_us": s.offsetUs},
			Edges: []fettle.Edge{{From: l.m.Identity.Host, Rel: fettle.Uses, To: subject}},
		})
	}
	return out
}
