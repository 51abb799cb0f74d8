package faultmachine_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/faultmachine"
	"fettle/internal/machine/machinetest"
	"fettle/internal/machine/memmachine"
	"fettle/internal/machine/units"
)

var good = []string{
	"files.write /etc/x: ENOSPC",
	"services.start etcd.service: hang",
	"files.*: EIO after 3",
	"*: EPERM",
	"filesystems.usage /nfs/**: delay 2s times 5",
	"services.stop etcd.service: lost after 1 times 1",
	`files.read "/a b: c": EACCES`,
	`files.read "/\"x": unsupported`,
	"commands.run journalctl: delay 1m0.5s",
}

func TestRuleText(t *testing.T) {
	for _, text := range good {
		r, err := faultmachine.Parse(text)
		if err != nil || r.String() != text {
			t.Errorf("%s: reads back %q, %v", text, r, err)
		}
	}
	for text, hint := range map[string]string{
		"":                                    "for example",
		"files.write /x":                      "effect",
		"files.rite /x: EIO":                  "files.write",
		"files.write /x:":                     "hang",
		"files.write /x: EWHAT":               "EIO",
		"files.write /x: EIO after":           "after N",
		"files.write /x: EIO after 0":         "above 0",
		"files.write /x: EIO after 1 after 2": "each once",
		"files.write /x: delay":               "50ms",
		"files.write /x: delay -1s":           "50ms",
		"files.write [a: EIO":                 "path.Match",
		`files.write "/x: EIO`:                "closed",
		`files.write "": EIO`:                 "bad target",
		"files.write /x /y: EIO":              `":"`,
	} {
		if r, err := faultmachine.Parse(text); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v, %v; want an error with %q", text, r, err, hint)
		}
	}
	rules, err := faultmachine.ParseRules("# two\n\n" + good[0] + "\n  " + good[1] + "\n")
	if err != nil || len(rules) != 2 {
		t.Errorf("%v, %v", rules, err)
	}
	if _, err := faultmachine.ParseRules("\nx"); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("%v, want line 2 named", err)
	}
}

func FuzzRule(f *testing.F) {
	for _, text := range good {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := faultmachine.Parse(text)
		if err != nil {
			return
		}
		again, err := faultmachine.Parse(r.String())
		if err != nil || again != r {
			t.Fatalf("%q is %+v, printed %q, which is %+v, %v", text, r, r, again, err)
		}
	})
}

// Without rules it is the machine behind it.
func TestTransparent(t *testing.T) {
	machinetest.RunFiles(t, func(t *testing.T) (machine.Files, string) {
		f := faultmachine.New(memmachine.New(memmachine.Options{}).Ports()).Ports().Files
		if err := f.MkdirAll(t.Context(), "/tmp/x", 0o755); err != nil {
			t.Fatal(err)
		}
		return f, "/tmp/x"
	})
}

func rules(t *testing.T, m *faultmachine.Machine, text string) {
	t.Helper()
	r, err := faultmachine.ParseRules(text)
	if err != nil {
		t.Fatal(err)
	}
	m.Set(r...)
}

func TestEffects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memmachine.New(memmachine.Options{})
		mem.Define(units.Definition{Unit: machine.Unit{Name: "a.service"}}, memmachine.Behaviour{})
		m := faultmachine.New(mem.Ports())
		p := m.Ports()
		ctx := t.Context()

		rules(t, m, "files.write /x: ENOSPC after 1 times 2\nfiles.stat /d/**: unsupported")
		for i, want := range []error{nil, syscall.ENOSPC, syscall.ENOSPC, nil} {
			if err := p.Files.WriteFile(ctx, "/x", nil, 0o600); !errors.Is(err, want) {
				t.Errorf("write %d: %v, want %v", i, err, want)
			}
		}
		if err := p.Files.WriteFile(ctx, "/y", nil, 0o600); err != nil {
			t.Errorf("another path: %v", err)
		}
		if _, err := p.Files.Stat(ctx, "/d/e/f"); fettle.ClassOf(err) != fettle.Unsupported {
			t.Errorf("%v, want not supported", err)
		}
		if fired := m.Fired(); fired[0] != 2 || fired[1] != 1 {
			t.Errorf("fired %v", fired)
		}

		rules(t, m, "services.start *: lost")
		if _, err := p.Services.Start(ctx, "a.service"); !errors.Is(err, machine.ErrLost) {
			t.Errorf("lost: %v", err)
		}
		if u, _ := p.Services.Unit(ctx, "a.service"); u.ActiveState != "active" {
			t.Errorf("an answer was lost, but the unit is %s", u.ActiveState)
		}

		rules(t, m, "services.stop a.service: hang\nfilesystems.usage /: delay 3s")
		late, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		start := time.Now()
		if _, err := p.Services.Stop(late, "a.service"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
			t.Errorf("hang: %v after %v", err, time.Since(start))
		}
		if u, _ := p.Services.Unit(ctx, "a.service"); u.ActiveState != "active" {
			t.Errorf("a hung stop stopped the unit")
		}
		start = time.Now()
		if _, err := p.Filesystems.Usage(ctx, "/"); err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("delay: %v after %v", err, time.Since(start))
		}
		remove := m.Add(faultmachine.Rule{Op: "processes.list", Effect: faultmachine.Effect{Errno: syscall.EIO}})
		if _, err := p.Processes.List(ctx); !errors.Is(err, syscall.EIO) {
			t.Errorf("added: %v", err)
		}
		remove()
		if _, err := p.Processes.List(ctx); err != nil {
			t.Errorf("removed: %v", err)
		}
	})
}

func TestStreams(t *testing.T) {
	m := faultmachine.New(memmachine.New(memmachine.Options{}).Ports())
	rules(t, m, "file.write /a: ENOSPC after 1\nfile.sync /a: EIO\nfile.read /a: EIO after 1")
	f := m.Ports().Files
	w, err := f.Create(t.Context(), "/a", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write([]byte("one")); n != 3 || err != nil {
		t.Error(n, err)
	}
	if n, err := w.Write([]byte("two")); n != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Error(n, err)
	}
	if err := w.Sync(); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	r, err := f.Open(t.Context(), "/a")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if string(got) != "one" || !errors.Is(err, syscall.EIO) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memmachine.New(memmachine.Options{})
		mem.Define(units.Definition{Unit: machine.Unit{Name: "a.service"}}, memmachine.Behaviour{})
		m := faultmachine.New(mem.Ports())
		rules(t, m, "services.watch a.service: lost after 1 times 1\nservices.watch a.service: EIO after 3")
		var seen []string
		ended := make(chan error, 1)
		go func() {
			ended <- m.Ports().Services.Watch(t.Context(), func(u machine.Unit) { seen = append(seen, u.ActiveState) })
		}()
		synctest.Wait()
		if _, err := m.Ports().Services.Start(t.Context(), "a.service"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := m.Ports().Services.Stop(t.Context(), "a.service"); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, syscall.EIO) {
			t.Errorf("watch ended with %v, want EIO", err)
		}
		// inactive, (activating is dropped), activating with its process, active; then the end.
		if want := "inactive activating active"; strings.Join(seen, " ") != want {
			t.Errorf("told %v, want %s", seen, want)
		}
	})
}
