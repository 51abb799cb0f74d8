package firewall

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// bootUnit loads the persisted ruleset at boot.
const bootUnit = "nftables.service"

// Adapter implements machine.Adapter.
type Adapter struct{}

// Catalogue implements machine.Adapter.
func (Adapter) Catalogue() fettle.Catalogue { return Catalogue() }

// Discover implements machine.Adapter: a persisted ruleset that every boot loads is
// what somebody means to be in force.
func (Adapter) Discover(ctx context.Context, m machine.Machine) ([]machine.Found, error) {
	_, err := m.Files.Stat(ctx, defaultFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	u, err := m.Services.Unit(ctx, bootUnit)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fettle.ErrNotSupported) {
		return nil, nil // the manager knows of no such unit: nothing says what a boot loads
	}
	if err != nil {
		return nil, err
	}
	if u.UnitFileState != "enabled" {
		return nil, nil
	}
	return []machine.Found{{
		Name: "nftables", Config: []byte("# loaded at every boot by " + bootUnit + "\nfile: " + defaultFile + "\n"),
		Why: bootUnit + " is enabled and " + defaultFile + " is there",
	}}, nil
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

	mu sync.Mutex
	by string // who made the last change that was told
}

func (i *instance) Probes() []fettle.Probe     { return []fettle.Probe{looker{i}} }
func (i *instance) Watchers() []fettle.Watcher { return []fettle.Watcher{watcher{i}} }

func (i *instance) Actions() map[string]fettle.Action {
	return map[string]fettle.Action{"firewall.restore": restore{i}}
}

func (i *instance) Faults() map[string]fettle.Fault {
	return map[string]fettle.Fault{"firewall.drop": drop{i}}
}

func (i *instance) Close() error { return nil }

func (i *instance) subject() fettle.Subject {
	return fettle.NewSubject(KindFirewall, i.m.Identity.Host.Name(), "nftables")
}

func (i *instance) mine(s fettle.Subject) bool { return s == i.subject() }
