package agent

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
)

// childDir names, in the environment of a process of this test, the folder of the
// agent that it is to be.
const childDir = "FETTLE_TEST_AGENT_DIR"

// child is an agent until it is killed.
func child(dir string) {
	fail := func(err error) {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	id, err := pki.LoadIdentity(dir, pki.RoleAgent)
	if err != nil {
		fail(err)
	}
	a, err := New(hotOptions(dir, id, 95))
	if err != nil {
		fail(err)
	}
	fail(a.Run(context.Background()))
}

// hotOptions are those of an agent with one lamp as hot as this.
func hotOptions(dir string, id *pki.Identity, heat int64) Options {
	return Options{
		Server: "127.0.0.1:1", Identity: id, StateDir: dir, Rediscover: 10 * time.Millisecond,
		Machine:  memmachine.New(memmachine.Options{Host: "h1"}).Ports(),
		Adapters: []machine.Adapter{&lamp{found: found("hall"), heat: func() int64 { return heat }}},
	}
}

var hot = fettle.ConditionKey{Code: "lamp.hot", Subject: "lamp:h1/hall"}

// judged starts an agent and returns how hot it finds the lamp, once it has looked.
func judged(t *testing.T, o Options) fettle.Condition {
	t.Helper()
	a, stop := start(t, o)
	defer stop()
	settled(t, a, 1)
	a.picture.mu.Lock()
	defer a.picture.mu.Unlock()
	c, _ := a.picture.world.Condition(hot)
	return c
}

// TestKilledBetweenTheRules: an agent that is killed while a condition is raised,
// and finds it between its raise and its clear rule when it is back, still has it
// raised, since the same time. Without what it kept it calls it clear, which is what
// makes this test need it.
func TestKilledBetweenTheRules(t *testing.T) {
	dir := t.TempDir()
	ca, err := pki.Init(filepath.Join(t.TempDir(), "pki"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	id, err := ca.Mint(pki.RoleAgent, "h1", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := id.Save(dir); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), os.Args[0])
	c.Env = append(os.Environ(), childDir+"="+dir)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var kept []fettle.Condition
	wait(t, "it is kept as raised", func() bool {
		data, err := os.ReadFile(filepath.Join(dir, memoryName))
		if err != nil {
			return false
		}
		r, err := parseRemembered(data)
		if err != nil {
			t.Errorf("what is kept: %v", err)
		}
		kept = nil
		for _, c := range r.Raised {
			if c.ConditionKey == hot {
				kept = append(kept, c)
			}
		}
		return len(kept) == 1
	})
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil || stderr.Len() > 0 {
		t.Fatalf("the child ended by itself: %v %s", err, stderr.String())
	}
	for range 2 { // a second restart must not lose what the first one found
		got := judged(t, hotOptions(dir, id, 85))
		if got.State != fettle.Yes || !got.Since.Equal(kept[0].Since) || !got.FirstSeen.Equal(kept[0].FirstSeen) {
			t.Errorf("after the restart it is %s since %v, first seen %v; it was raised since %v, first seen %v",
				got.State, got.Since, got.FirstSeen, kept[0].Since, kept[0].FirstSeen)
		}
	}

	booted := hotOptions(dir, id, 85)
	booted.Machine.Identity.BootID = "another boot"
	for range 2 {
		got := judged(t, booted)
		if got.State != fettle.Yes || !got.FirstSeen.Equal(kept[0].FirstSeen) || !got.Since.After(kept[0].Since) {
			t.Errorf("after a boot it is %s since %v, first seen %v; it was first seen %v", got.State, got.Since, got.FirstSeen, kept[0].FirstSeen)
		}
	}

	if err := os.Remove(filepath.Join(dir, memoryName)); err != nil {
		t.Fatal(err)
	}
	if got := judged(t, hotOptions(dir, id, 85)); got.State != fettle.No {
		t.Errorf("without what it kept it is %s: this test proves nothing", got.State)
	}
	// What was seen clear is not raised again by a restart.
	judged(t, hotOptions(dir, id, 95))
	judged(t, hotOptions(dir, id, 70))
	if got := judged(t, hotOptions(dir, id, 85)); got.State != fettle.No {
		t.Errorf("it was seen clear, and between the rules it is %s", got.State)
	}
}

// TestMemoryThatCannotBeRead: the agent starts without it, and says so.
func TestMemoryThatCannotBeRead(t *testing.T) {
	for name, text := range map[string]string{
		"torn":          `{"schema":1,"raised":[{"code":"lamp.hot","subj`,
		"zeros":         strings.Repeat("\x00", 4096),
		"a newer one":   `{"schema":2,"raised":[]}`,
		"no subject":    `{"schema":1,"raised":[{"code":"lamp.hot","subject":"//","state":"yes"}]}`,
		"nothing in it": ``,
	} {
		t.Run(name, func(t *testing.T) {
			var said strings.Builder
			o := options(t, &lamp{found: found("hall"), heat: func() int64 { return 85 }})
			o.Log = slog.New(slog.NewTextHandler(&said, nil))
			if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, o.StateDir, memoryName, text)
			if got := judged(t, o); got.State != fettle.No {
				t.Errorf("it is %s", got.State)
			}
			if !strings.Contains(said.String(), "level=WARN") || !strings.Contains(said.String(), "is not known") {
				t.Errorf("it said %s", said.String())
			}
			o.Log = nil
			o.Adapters = []machine.Adapter{&lamp{found: found("hall"), heat: func() int64 { return 95 }}}
			judged(t, o)
			o.Adapters = []machine.Adapter{&lamp{found: found("hall"), heat: func() int64 { return 85 }}}
			if got := judged(t, o); got.State != fettle.Yes {
				t.Errorf("what was raised since is %s", got.State)
			}
		})
	}
}

func FuzzRemembered(f *testing.F) {
	f.Add([]byte(`{"schema":1,"boot_id":"b","raised":[{"code":"lamp.hot","subject":"lamp:h1/hall","state":"yes","since":"2026-01-02T03:04:05Z","evidence":[{"observer":{"host":"host:h1","probe":"lamp.state"},"asked":"2026-01-02T03:04:05Z","says":"yes","facts":{"heat":95}}]}]}   `))
	f.Add([]byte(`{"schema":1,"raised":null,"new":{"x":1}}`))
	f.Add([]byte(`{"schema":9}`))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRemembered(data)
		if err != nil {
			return
		}
		for _, c := range r.Raised {
			if c.State != fettle.Yes || c.Code == "" {
				t.Errorf("taken: %+v", c)
			}
		}
	})
}
