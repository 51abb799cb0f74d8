package systemd

import (
	"context"
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// Adapter implements machine.Adapter.
type Adapter struct{}

// Catalogue implements machine.Adapter.
func (Adapter) Catalogue() fettle.Catalogue { return Catalogue() }

// Discover implements machine.Adapter: where there is a service manager, the
// zero configuration is right.
func (Adapter) Discover(ctx context.Context, m machine.Machine) ([]machine.Found, error) {
	if _, err := m.Services.Units(ctx); err != nil {
		return nil, err
	}
	return []machine.Found{{Name: "services", Config: []byte("# every service that is enabled or was active since boot\nunits: [\"*.service\"]\n"), Why: "this machine has a service manager"}}, nil
}

// Open implements machine.Adapter.
func (Adapter) Open(_ context.Context, m machine.Machine, config []byte) (fettle.Instance, error) {
	c, err := ParseConfig(config)
	if err != nil {
		return nil, err
	}
	return &instance{config: c, m: m, starts: newStarts()}, nil
}

type instance struct {
	config Config
	m      machine.Machine
	starts *starts
}

func (i *instance) Probes() []fettle.Probe {
	list := []fettle.Probe{unitLooker{i}}
	if len(i.config.Health) > 0 {
		list = append(list, healthLooker{i})
	}
	return list
}

func (i *instance) Watchers() []fettle.Watcher { return []fettle.Watcher{unitWatcher{i}} }

func (i *instance) Actions() map[string]fettle.Action {
	return map[string]fettle.Action{
		"systemd.start":        start{i},
		"systemd.stop":         stop{i},
		"systemd.restart":      restart{i},
		"systemd.reset_failed": resetFailed{i},
		"systemd.reload":       reload{i},
	}
}

func (i *instance) Faults() map[string]fettle.Fault {
	return map[string]fettle.Fault{"systemd.kill": kill{i}, "systemd.freeze": freeze{i}}
}

func (i *instance) Close() error { return nil }

func (i *instance) subject(unit string) fettle.Subject {
	return fettle.NewSubject(fettle.KindUnit, i.m.Identity.Host.Name(), unit)
}

// relevant reports whether a unit is worth a subject of its own: hundreds of
// units of a machine are loaded only because something mentions them.
func (i *instance) relevant(u machine.Unit) bool {
	switch {
	case !i.config.wants(u.Name) || u.LoadState == "not-found":
		return slices.Contains(i.config.ShouldRun, u.Name)
	case u.ActiveState != "inactive":
		return true
	}
	return i.enabled(u) || !u.StateChanged.IsZero() || u.LoadState == "masked" && !u.StateChanged.IsZero()
}

// enabled reports whether a unit should run.
func (i *instance) enabled(u machine.Unit) bool {
	return u.UnitFileState == "enabled" || u.UnitFileState == "enabled-runtime" || slices.Contains(i.config.ShouldRun, u.Name)
}

// observe turns the manager's view of a unit into an observation.
func (i *instance) observe(u machine.Unit, now time.Time) fettle.Observation {
	s := i.subject(u.Name)
	o := fettle.Observation{
		Subject: s, Host: i.m.Identity.Host, Probe: unitProbe, Asked: now,
		Facts: fettle.Facts{
			"load_state":          u.LoadState,
			"active_state":        u.ActiveState,
			"sub_state":           u.SubState,
			"unit_file_state":     u.UnitFileState,
			"result":              u.Result,
			"main_pid":            int64(u.MainPID),
			"exec_status":         int64(u.ExecMainStatus),
			"n_restarts":          int64(u.NRestarts),
			"restart":             u.Restart,
			"invocation_id":       u.InvocationID,
			"needs_daemon_reload": u.NeedsDaemonReload,
			"enabled":             i.enabled(u),
			"was_active":          !u.StateChanged.IsZero(),
			"stopped_by":          u.StoppedBy,
			"starts_10m":          i.starts.count(u.Name, u.InvocationID, u.StateChanged, now),
		},
		Edges: []fettle.Edge{{From: s, Rel: fettle.RunsOn, To: i.m.Identity.Host}},
	}
	for _, w := range u.Wants {
		if at, ok := mountPoint(w); ok {
			o.Edges = append(o.Edges, fettle.Edge{From: s, Rel: fettle.Uses, To: fettle.NewSubject(fettle.KindFilesystem, i.m.Identity.Host.Name(), at)})
		} else if i.config.wants(w) {
			o.Edges = append(o.Edges, fettle.Edge{From: s, Rel: fettle.Uses, To: i.subject(w)})
		}
	}
	return o
}
