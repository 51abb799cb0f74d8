package armed

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// points is how many calls a change makes when nobody kills it.
func points(t *testing.T) int {
	t.Helper()
	p := &process{w: newWorld(t), left: -1}
	if touched, confirmed := change(t.Context(), p, true); !touched || !confirmed {
		t.Fatalf("undisturbed: touched %v, confirmed %v", touched, confirmed)
	}
	if p.calls < 15 {
		t.Fatalf("a change makes only %d calls: the points are not those that it has", p.calls)
	}
	return p.calls
}

// TestAgentKilledAtEveryPoint: whatever the agent did last, the change is confirmed
// or taken back, also by a reverter that is killed at each of its points.
func TestAgentKilledAtEveryPoint(t *testing.T) {
	for left := range points(t) + 1 {
		for _, killed := range []bool{false, true} {
			w := newWorld(t)
			touched, confirmed := change(t.Context(), &process{w: w, left: left}, true)
			w.mem.EndProcess(self, 2, 9)
			u, err := w.mem.Ports().Services.Unit(t.Context(), instance(ID(key)))
			if err != nil {
				t.Fatal(err)
			}
			if u.ActiveState == "active" {
				revert(t, w, killed)
			} else if touched {
				t.Errorf("killed before call %d: touched, and no unit runs", left+1)
			}
			holds(t, w, fmt.Sprintf("killed before call %d, reverter killed too: %v", left+1, killed), touched, confirmed)
		}
	}
}

// TestPowerCutAtEveryPoint: also with the power gone between any two system calls,
// and the ruleset at the boot being the one that cut the machine off.
func TestPowerCutAtEveryPoint(t *testing.T) {
	type fork struct {
		w      *world
		step   string
		before bool // the touch
	}
	for seed := range uint64(4) {
		w := newWorld(t)
		var forks []fork
		w.mem.OnStep(func(step, path string) {
			forks = append(forks, fork{w.cut(seed), step + " " + path, w.is() == "before"})
		})
		touched, confirmed := change(t.Context(), &process{w: w, left: -1}, true)
		if !touched || !confirmed || len(forks) < 30 {
			t.Fatalf("touched %v, confirmed %v, %d forks", touched, confirmed, len(forks))
		}
		w.mem.OnStep(nil)
		forks = append(forks, fork{w.cut(seed), "the end", false})
		for i, f := range forks {
			for _, killed := range []bool{false, true} {
				n := f.w.cut(0) // the same again, booted once more
				if n.boots(t) {
					revert(t, n, killed)
				} else if !f.before && i < len(forks)-1 {
					a := New(n.mem.Ports(), Options{Dir: dir})
					if d, err := a.decision(t.Context(), ID(key)); err != nil || d.Decision != Confirmed {
						t.Errorf("power cut at %s: touched, not confirmed, and no boot starts the unit (%v)", f.step, err)
					}
				}
				holds(t, n, "power cut at "+f.step, !f.before, i == len(forks)-1)
			}
		}
	}
}

// TestBootRevertsAtOnce: another boot does not wait for the deadline of the one before.
func TestBootRevertsAtOnce(t *testing.T) {
	w := newWorld(t)
	if touched, _ := change(t.Context(), &process{w: w, left: -1}, false); !touched {
		t.Fatal("not touched")
	}
	n := w.cut(0)
	since := n.now
	if !n.boots(t) {
		t.Fatal("no boot starts the unit")
	}
	revert(t, n, false)
	holds(t, n, "booted", true, false)
	if took := n.now - since; took > time.Second {
		t.Errorf("the machine was cut off for %v", took)
	}
}

// TestUnit: the unit runs this program on the folder, whatever their names are, as a
// boot with systemd reads it.
func TestUnit(t *testing.T) {
	w := newWorld(t)
	a := New(w.mem.Ports(), Options{Dir: "/var/lib/my fettle", Program: "/opt/100%/fettle"})
	if err := a.install(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := w.mem.Ports().Files.ReadFile(t.Context(), UnitDir+"/"+template, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Type=notify\n", "Restart=on-failure\n", "StartLimitIntervalSec=0\n", `RequiresMountsFor="/var/lib/my fettle"` + "\n",
		`ExecStart="/opt/100%%/fettle" revert --armed %i --dir "/var/lib/my fettle"` + "\n", "Description=Fettle takes change %i back",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestAgentHangs: an agent that hangs at any point while its time runs out, and
// then goes on, ends with a change that is taken back behind it, or with none.
func TestAgentHangs(t *testing.T) {
	for hang := 1; hang <= points(t); hang++ {
		w := newWorld(t)
		p := &process{w: w, left: -1}
		p.at = func(n int) {
			if u, err := w.mem.Ports().Services.Unit(t.Context(), instance(ID(key))); n == hang && err == nil && u.ActiveState == "active" {
				r := &process{w: w, left: -1, pause: 300}
				_ = r.arms().Revert(t.Context(), ID(key), func() error { return nil }) // it may wait for the agent
			}
		}
		touched, confirmed := change(t.Context(), p, true)
		if u, err := w.mem.Ports().Services.Unit(t.Context(), instance(ID(key))); err == nil && u.ActiveState == "active" {
			revert(t, w, false)
		}
		holds(t, w, fmt.Sprintf("hung at call %d", hang), touched, confirmed)
	}
}

// TestConfirm: what does not prove that the machine can be reached confirms nothing.
func TestConfirm(t *testing.T) {
	w := newWorld(t)
	a := (&process{w: w, left: -1}).arms()
	ctx := t.Context()
	if err := a.Confirm(ctx, ID(key), time.Hour); err == nil {
		t.Error("what was never armed is confirmed")
	}
	if left, err := a.Arm(ctx, order); err != nil || left <= 0 || left > Within/2 {
		t.Fatal(left, err)
	}
	if _, err := a.Arm(ctx, order); err == nil {
		t.Error("one key is armed twice")
	}
	early, err := a.Uptime(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Confirm(ctx, ID(key), time.Hour); err == nil {
		t.Error("a change that has not ended is confirmed")
	}
	if err := a.Ended(ctx, key, true, fettle.Result{}); err != nil {
		t.Fatal(err)
	}
	if err := a.Confirm(ctx, ID(key), early); err == nil {
		t.Error("a connection from before the change confirms it")
	}
	late, err := a.Uptime(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.Confirm(ctx, ID(key), late); err != nil {
			t.Errorf("a new connection does not confirm: %v", err)
		}
	}
	if err := a.Now(ctx, ID(key)); err == nil {
		t.Error("what was confirmed is taken back")
	}
	list, err := a.List(ctx)
	if err != nil || len(list) != 1 || list[0].Decision != Confirmed || list[0].Done {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestEndedBadly: what failed half-way is not confirmed, however reachable.
func TestEndedBadly(t *testing.T) {
	w := newWorld(t)
	a := (&process{w: w, left: -1}).arms()
	if _, err := a.Arm(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	if err := a.Ended(t.Context(), key, false, fettle.Result{}); err != nil {
		t.Fatal(err)
	}
	if err := a.Confirm(t.Context(), ID(key), time.Hour); err == nil {
		t.Error("what failed is confirmed")
	}
	w.live = "half"
	revert(t, w, false)
	holds(t, w, "failed", true, false)
}

// TestFullDisk: a disk without room keeps nothing from being taken back.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	if touched, _ := change(t.Context(), &process{w: w, left: -1}, false); !touched {
		t.Fatal("not touched")
	}
	f, _ := w.mem.Filesystem("/")
	f.Size = 1
	w.mem.SetFilesystem(f)
	w.mem.EndProcess(self, 2, 9)
	revert(t, w, false)
	holds(t, w, "full disk", true, false)
}

// TestNotSupported: without a manager that outlives the agent nothing is armed.
func TestNotSupported(t *testing.T) {
	w := newWorld(t)
	if err := w.mem.Ports().Files.Remove(t.Context(), booted+"/x"); err != nil {
		t.Fatal(err)
	}
	if err := w.mem.Ports().Files.Remove(t.Context(), booted); err != nil {
		t.Fatal(err)
	}
	if _, err := (&process{w: w, left: -1}).arms().Arm(t.Context(), order); err == nil {
		t.Error("armed without systemd")
	}
	other := order
	other.PutBack.Program = "sh"
	if _, err := (&process{w: newWorld(t), left: -1}).arms().Arm(t.Context(), other); err == nil {
		t.Error("a revert may run anything")
	}
}

// TestTidy keeps what is open and the last of what is over; and one change is open
// at a time.
func TestTidy(t *testing.T) {
	w := newWorld(t)
	a := (&process{w: w, left: -1}).arms()
	last := kept + 3
	for i := range last + 2 {
		o := order
		o.Key = fmt.Sprintf("k%d", i)
		w.mem.SetUnit(machine.Unit{Name: instance(ID(o.Key)), LoadState: "loaded", ActiveState: "active", MainPID: 1})
		_, err := a.Arm(t.Context(), o)
		if i <= last && err != nil || i > last && !errors.Is(err, errBusy) {
			t.Fatal(i, err)
		}
		if i < last {
			if err := a.Cancel(t.Context(), o.Key); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := a.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, err := a.List(t.Context())
	if err != nil || len(list) != kept+1 || list[0].Key != "k3" || list[kept].Decision != Open {
		t.Errorf("%d left, %v: %+v", len(list), err, list)
	}
}

func FuzzParseRecord(f *testing.F) {
	r := record{Schema: schema, ID: ID(key), Key: key, BootID: "b", PutBack: order.PutBack}
	r.Sum = r.sum()
	f.Add([]byte(`{"schema":1,"id":"` + r.ID + `","key":"k","put_back":{"program":"nft"},"sum":"x"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := parseRecord(data); err == nil && (r.Sum != r.sum() || r.PutBack.Program != "nft") {
			t.Errorf("taken: %+v", r)
		}
	})
}

func FuzzParseUptime(f *testing.F) {
	f.Add("12345.67 54321.00\n")
	f.Add("0.5")
	f.Add("-1.00 2")
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parseUptime(text); err == nil && d < 0 {
			t.Errorf("%q is %v", text, d)
		}
	})
}

func TestUptime(t *testing.T) {
	for text, want := range map[string]time.Duration{"12.34 1\n": 12340 * time.Millisecond, "7.5 1": 7500 * time.Millisecond, "9 1": 9 * time.Second} {
		if d, err := parseUptime(text); err != nil || d != want {
			t.Errorf("%q: %v, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "x", "-1.0", "1.xx"} {
		if d, err := parseUptime(text); err == nil {
			t.Errorf("%q is %v", text, d)
		}
	}
}
