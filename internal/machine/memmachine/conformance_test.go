package memmachine_test

import (
	"syscall"
	"testing"
	"time"

	"fettle/internal/machine"
	"fettle/internal/machine/machinetest"
	"fettle/internal/machine/memmachine"
	"fettle/internal/machine/units"
)

func TestServices(t *testing.T) {
	machinetest.RunServices(t, func(t *testing.T) machinetest.ServicesUnderTest {
		m := memmachine.New(memmachine.Options{})
		define := func(name string, d units.Definition, b memmachine.Behaviour) string {
			d.Unit.Name = name + ".service"
			d.Unit.UnitFileState, d.Unit.Restart = "enabled", "no"
			m.Define(d, b)
			return d.Unit.Name
		}
		return machinetest.ServicesUnderTest{
			Services:   m.Ports().Services,
			Steady:     define("steady", units.Definition{CanReload: true}, memmachine.Behaviour{Says: []string{"steady began"}}),
			Failing:    define("failing", units.Definition{}, memmachine.Behaviour{ExitNow: true, ExitStatus: 3}),
			Brief:      define("brief", units.Definition{}, memmachine.Behaviour{ExitNow: true}),
			NoProgram:  define("noprogram", units.Definition{}, memmachine.Behaviour{NoProgram: true}),
			NeverReady: define("neverready", units.Definition{}, memmachine.Behaviour{NeverReady: true}),
			Stubborn:   define("stubborn", units.Definition{StopTimeout: time.Millisecond}, memmachine.Behaviour{IgnoreTerm: true}),
			Plain:      define("plain", units.Definition{}, memmachine.Behaviour{}),
			Masked:     define("masked", units.Definition{Unit: machine.Unit{LoadState: "masked"}}, memmachine.Behaviour{}),
			Crash:      func(_ *testing.T, u machine.Unit) { m.Crash(u.Name, syscall.SIGKILL) },
			StopAsPerson: func(t *testing.T, name string) {
				if err := m.StopAsPerson(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

func TestFiles(t *testing.T) {
	machinetest.RunFiles(t, func(t *testing.T) (machine.Files, string) {
		m := memmachine.New(memmachine.Options{})
		f := m.Ports().Files
		if err := f.MkdirAll(t.Context(), "/tmp/x", 0o755); err != nil {
			t.Fatal(err)
		}
		return f, "/tmp/x"
	})
}
