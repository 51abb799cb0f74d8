package firewall_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"fettle/internal/adapter/adaptertest"
	"fettle/internal/adapter/firewall"
	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
	"fettle/internal/machine/units"
	"fettle/runbooks"
)

func TestAdapter(t *testing.T) {
	var h *host // of the question that is being asked
	fresh := func(t *testing.T) adaptertest.Rig {
		h = newHost(t)
		return h.rig()
	}
	adaptertest.Run(t, adaptertest.Suite{
		New:   fresh,
		Books: adaptertest.Books(runbooks.FS(), firewall.Adapter{}),
		Actions: []adaptertest.ActionCase{{
			Action: "firewall.restore", Target: subject,
			Prepare: func(_ context.Context, t *testing.T, _ adaptertest.Rig) []fettle.Generation {
				h.kernel.change(t, byHand)
				h.kernel.loads = 0
				o := look(t, h.open(t, ""))
				return []fettle.Generation{
					{Subject: subject, Fact: "live_hash", Value: o.Facts["live_hash"]},
					{Subject: subject, Fact: "persisted_hash", Value: o.Facts["persisted_hash"]},
				}
			},
			Times: func(context.Context) int { return h.kernel.loads },
		}},
		Faults: []adaptertest.FaultCase{{Fault: "firewall.drop", Target: subject, Params: fettle.Facts{"port": int64(2380)}}},
		Hang: func(t *testing.T) (adaptertest.Rig, []fettle.Look) {
			r := fresh(t)
			h.kernel.hung = true
			return r, []fettle.Look{{Subject: subject, Probe: "firewall.ruleset"}}
		},
		ReadOnly: func(t *testing.T) adaptertest.Rig {
			r := fresh(t)
			h.kernel.change(t, byHand)
			h.kernel.denied = true
			return r
		},
	})
}

// TestSees: what is in force is compared with what the file would put in force.
func TestSees(t *testing.T) {
	for _, c := range []struct {
		name, change, file    string
		differs, mendable     bool
		added, missing, alien []string
	}{
		{name: "as it is", mendable: true},
		{name: "a rule by hand", change: byHand, differs: true, mendable: true, added: []string{"inet filter input: tcp dport 2380 drop"}},
		{name: "everything flushed", change: "flush ruleset", differs: true, mendable: true, missing: []string{
			"inet filter input: ct state established,related accept", `inet filter input: iif "lo" accept`,
			"inet filter input: tcp dport { 22, 2380 } accept", "inet filter input: type filter hook input priority filter; policy drop;",
		}},
		{name: "a table of somebody's", change: "table ip mine {\n\tchain c {\n\t\ttype filter hook input priority 0; policy accept;\n\t\ttcp dport 1 drop\n\t}\n}\n",
			differs: true, mendable: true, added: []string{"ip mine c: tcp dport 1 drop", "ip mine c: type filter hook input priority 0; policy accept;"}},
		{name: "a table of somebody's, and a file that speaks of its own", file: strings.Replace(persisted, "flush ruleset\n", "", 1),
			change:  "table ip mine {\n\tchain c {\n\t\ttype filter hook input priority 0; policy accept;\n\t\ttcp dport 1 drop\n\t}\n}\n",
			differs: true, added: []string{"ip mine c: tcp dport 1 drop", "ip mine c: type filter hook input priority 0; policy accept;"}, alien: []string{"ip mine"}},
		{name: "a table that only counts", change: "table ip mine {\n\tchain c {\n\t\ttype filter hook input priority 0; policy accept;\n\t\tcounter log prefix \"drop \"\n\t}\n}\n", mendable: true},
		{name: "a table of Docker's", change: "table ip docker-x {\n\tchain c {\n\t\tdrop\n\t}\n}\n", mendable: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			if c.file != "" {
				h.Put(file, []byte(c.file), 0o600)
			}
			if c.change != "" {
				h.kernel.change(t, c.change)
			}
			o := look(t, h.open(t, ""))
			differs, _ := o.Facts.Bool("differs")
			mendable, _ := o.Facts.Bool("mendable")
			added, _ := o.Facts.List("added")
			missing, _ := o.Facts.List("missing")
			alien, _ := o.Facts.List("foreign")
			if !o.Known() || differs != c.differs || mendable != c.mendable || !slices.Equal(added, c.added) || !slices.Equal(missing, c.missing) || !slices.Equal(alien, c.alien) {
				t.Errorf("%+v", o)
			}
		})
	}
}

// TestUnknown: a file that cannot be loaded says nothing.
func TestUnknown(t *testing.T) {
	h := newHost(t)
	h.Put(file, []byte("nonsense\n"), 0o600)
	if o := look(t, h.open(t, "")); o.Reason != fettle.Failed || !strings.Contains(o.Detail, "syntax error") {
		t.Errorf("%+v", o)
	}
	if o := look(t, h.open(t, "file: /etc/none.nft\n")); o.Reason != fettle.Failed {
		t.Errorf("%+v", o)
	}
}

// TestTouchesWhatItMay: a table that the file does not speak of stays, and one that
// is ignored stays even where the file flushes everything.
func TestTouchesWhatItMay(t *testing.T) {
	mine := "table ip mine {\n\tchain c {\n\t\tdrop\n\t}\n}\n"
	for _, c := range []struct{ name, config, file string }{
		{"not spoken of", "", strings.Replace(persisted, "flush ruleset\n", "", 1)},
		{"ignored", "ignore: [\"ip m*\"]\n", persisted},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			h.Put(file, []byte(c.file), 0o600)
			h.kernel.change(t, byHand)
			h.kernel.change(t, mine)
			in := h.open(t, c.config)
			d := fettle.Dispatch{Key: "k", Step: fettle.Step{Action: "firewall.restore", Target: subject}}
			if _, err := in.Actions()["firewall.restore"].Apply(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			if now := h.kernel.is(); !strings.Contains(now, mine) || strings.Contains(now, "dport 2380 drop") {
				t.Errorf("in force is %s", now)
			}
		})
	}
}

// TestPutBack: what is armed puts back exactly what was there, whatever was done
// since, and as often as it is run.
func TestPutBack(t *testing.T) {
	h := newHost(t)
	h.kernel.change(t, byHand)
	before := h.kernel.is()
	restore := h.open(t, "").Actions()["firewall.restore"].(fettle.Armable)
	d := fettle.Dispatch{Key: "k", Step: fettle.Step{Action: "firewall.restore", Target: subject}}
	back, err := restore.Before(t.Context(), d)
	if err != nil || back.Program != "nft" || !slices.Equal(back.Args, []string{"-f", "-"}) {
		t.Fatal(back, err)
	}
	if h.kernel.is() != before {
		t.Error("asking changed something")
	}
	for range 2 {
		if _, err := restore.Apply(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			h.kernel.change(t, back.Stdin)
			if now := h.kernel.is(); now != before {
				t.Errorf("put back:\n%s\nwant\n%s", now, before)
			}
		}
	}
}

// TestChangedSince: what was approved is what is done.
func TestChangedSince(t *testing.T) {
	h := newHost(t)
	h.kernel.change(t, byHand)
	in := h.open(t, "")
	d := fettle.Dispatch{Key: "k", Step: fettle.Step{Action: "firewall.restore", Target: subject,
		Generations: []fettle.Generation{{Subject: subject, Fact: "persisted_hash", Value: look(t, in).Facts["persisted_hash"]}}}}
	h.Put(file, []byte(strings.Replace(persisted, "22, ", "", 1)), 0o600)
	before := h.kernel.is()
	if _, err := in.Actions()["firewall.restore"].Apply(t.Context(), d); fettle.ClassOf(err) != fettle.Refused || h.kernel.is() != before {
		t.Error(err)
	}
}

// TestCannotPutBack: rules that nft lists and does not take keep the rest from being
// touched.
func TestCannotPutBack(t *testing.T) {
	h := newHost(t)
	h.kernel.change(t, "table inet filter\ndelete table inet filter\ntable inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n\t\txt match \"recent\" drop\n\t}\n}\n")
	d := fettle.Dispatch{Key: "k", Step: fettle.Step{Action: "firewall.restore", Target: subject}}
	if _, err := h.open(t, "").Actions()["firewall.restore"].(fettle.Armable).Before(t.Context(), d); fettle.ClassOf(err) != fettle.Refused {
		t.Error(err)
	}
}

// TestTold: the kernel tells who changed it.
func TestTold(t *testing.T) {
	h := newHost(t)
	in := h.open(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan fettle.Observation, 16)
	ended := make(chan error, 1)
	go func() { ended <- in.Watchers()[0].Watch(ctx, func(o fettle.Observation) { seen <- o }) }()
	if o := <-seen; o.Facts["differs"] != false || o.Facts["changed_by"] != "unknown" {
		t.Errorf("first %+v", o)
	}
	h.kernel.change(t, byHand)
	if o := <-seen; o.Facts["differs"] != true || o.Facts["changed_by"] != "nft (process 42)" {
		t.Errorf("then %+v", o)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	m := h.Ports()
	m.Rulesets = nil
	in, err := firewall.Adapter{}.Open(t.Context(), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Watchers()[0].Watch(t.Context(), nil); !errors.Is(err, fettle.ErrNotSupported) {
		t.Error(err)
	}
}

// TestDiscover: what every boot loads is meant.
func TestDiscover(t *testing.T) {
	h := newHost(t)
	h.Define(units.Definition{Unit: machine.Unit{Name: "nftables.service", UnitFileState: "disabled"}}, memmachine.Behaviour{})
	if found, err := (firewall.Adapter{}).Discover(t.Context(), h.ports()); err != nil || len(found) != 0 {
		t.Errorf("%v, %v", found, err)
	}
	h.Define(units.Definition{Unit: machine.Unit{Name: "nftables.service", UnitFileState: "enabled"}}, memmachine.Behaviour{})
	found, err := firewall.Adapter{}.Discover(t.Context(), h.ports())
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	if c, err := firewall.ParseConfig(found[0].Config); err != nil || c.File != file {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestConfig(t *testing.T) {
	for _, bad := range []string{"file: nft.conf", "file: '/etc/\"x'", "ignore: ['[']", "files: x", "file: /etc/*.nft"} {
		if c, err := firewall.ParseConfig([]byte(bad)); err == nil {
			t.Errorf("%s is %+v", bad, c)
		}
	}
}

var update = flag.Bool("update", false, "rewrite README.md")

// TestREADME: the README says what the catalogue says.
func TestREADME(t *testing.T) {
	sample, err := os.ReadFile("testdata/sample.yaml")
	if err != nil {
		t.Fatal(err)
	}
	adaptertest.CheckREADME(t, firewall.Adapter{}, memmachine.New(memmachine.Options{}).Ports(), sample, *update)
}
