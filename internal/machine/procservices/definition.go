package procservices

import (
	"fmt"
	"path/filepath"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/units"
)

// Definition is a service, as its unit file would say it.
type Definition struct {
	Name string // "etcd1.service"
	Argv []string
	// EnvFile is read at each start, as EnvironmentFile= (see
	// machine.ParseEnvironment); with a leading "-" it may be missing.
	EnvFile string
	Env     []string // KEY=VALUE, overrides the file
	Dir     string   // working directory; "": "/"
	Ready   Ready
	Reload  int    // the signal that makes it reread its configuration; 0: it cannot
	LogFile string // output is appended here too; "": only the last lines are kept

	StartTimeout, StopTimeout time.Duration // 0: 90 s
	UnitFileState             string        // "": enabled
	Wants, WantedBy           []string
}

// Ready says when a service that was started is ready. The zero value: as soon
// as its program runs (Type=exec).
type Ready struct {
	TCP    string // when this address accepts a connection
	Notify bool   // when it says READY=1 to $NOTIFY_SOCKET (sd_notify(3))
}

// Define adds a service, inactive. Of one that is there it changes what the next
// start does.
func (s *Services) Define(d Definition) error {
	switch {
	case filepath.Ext(d.Name) != ".service" || filepath.Base(d.Name) != d.Name:
		return fettle.Refuse("services.define", "", "name it as systemd would, for example etcd1.service", "bad unit name %q", d.Name)
	case len(d.Argv) == 0 || !filepath.IsAbs(d.Argv[0]):
		return fettle.Refuse("services.define", "", "give the program's absolute path", "%s: no program to run in %q", d.Name, d.Argv)
	case d.Ready.TCP != "" && d.Ready.Notify:
		return fettle.Refuse("services.define", "", "choose one way to tell that it is ready", "%s: two ways to be ready", d.Name)
	}
	if d.Dir == "" {
		d.Dir = "/"
	}
	if d.UnitFileState == "" {
		d.UnitFileState = "enabled"
	}
	s.mu.Lock()
	s.definitions[d.Name] = d
	if s.logs[d.Name] == nil {
		s.logs[d.Name] = &ring{}
	}
	s.mu.Unlock()
	s.engine.Define(units.Definition{
		Unit: machine.Unit{
			Name: d.Name, UnitFileState: d.UnitFileState, Restart: "no", Wants: d.Wants, WantedBy: d.WantedBy,
		},
		StartTimeout: d.StartTimeout, StopTimeout: d.StopTimeout, CanReload: d.Reload != 0,
	})
	return nil
}

// Mask makes a service refuse to start, as systemctl mask does.
func (s *Services) Mask(name string) error {
	s.mu.Lock()
	d, ok := s.definitions[name]
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("mask %s: no such unit", name)
	}
	s.engine.Define(units.Definition{Unit: machine.Unit{
		Name: d.Name, LoadState: "masked", UnitFileState: "masked", Restart: "no",
	}, StartTimeout: d.StartTimeout, StopTimeout: d.StopTimeout})
	return nil
}
