package fettle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"fettle/internal/fettle"
)

func TestTri(t *testing.T) {
	var zero fettle.Tri
	if zero != fettle.Unknown {
		t.Error("what nobody said is not unknown")
	}
	for v, text := range map[fettle.Tri]string{fettle.Yes: "yes", fettle.No: "no", fettle.Unknown: "unknown", 7: "unknown", -8: "unknown"} {
		if v.String() != text {
			t.Errorf("Tri(%d) is %q, want %q", v, v, text)
		}
	}
	for text, want := range map[string]fettle.Tri{"yes": fettle.Yes, "no": fettle.No, "unknown": fettle.Unknown, "": fettle.Unknown, "Yes": fettle.Unknown, "true": fettle.Unknown, "mostly": fettle.Unknown} {
		got := fettle.Yes // what was there before must not stay
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q is read as %s: %v", text, got, err)
		}
	}
	if fettle.TriOf(true) != fettle.Yes || fettle.TriOf(false) != fettle.No {
		t.Error("TriOf turns yes and no about")
	}
}

// TestLevel: a level that is not known, a newer peer's or a mistake, permits
// nothing.
func TestLevel(t *testing.T) {
	for v, text := range map[fettle.Level]string{fettle.Observe: "observe", fettle.Shadow: "shadow", fettle.Suggest: "suggest", fettle.Approve: "approve", fettle.Automatic: "automatic", 5: "observe", -1: "observe", 127: "observe"} {
		if v.String() != text {
			t.Errorf("Level(%d) is %q, want %q", v, v, text)
		}
	}
	for _, text := range []string{"", "Automatic", "automatic ", "reckless", "4"} {
		got := fettle.Automatic
		if err := got.UnmarshalText([]byte(text)); err != nil || got != fettle.Observe {
			t.Errorf("%q is read as the level %s: %v", text, got, err)
		}
	}
	if !slices.IsSorted([]fettle.Level{fettle.Observe, fettle.Shadow, fettle.Suggest, fettle.Approve, fettle.Automatic}) {
		t.Error("a level includes what is below it, so they must be in order")
	}
	for l := fettle.Observe; l <= fettle.Automatic; l++ {
		if got := throughJSON(t, l); got != l {
			t.Errorf("%s is read back as %s", l, got)
		}
	}
}

func TestLayer(t *testing.T) {
	for v, text := range map[fettle.Layer]string{fettle.NoLayer: "", fettle.Hardware: "hardware", fettle.HostLayer: "host", fettle.Network: "network", fettle.Coordination: "coordination", fettle.Data: "data", fettle.Mesh: "mesh", fettle.Application: "application", 8: "", -1: ""} {
		if v.String() != text {
			t.Errorf("Layer(%d) is %q, want %q", v, v, text)
		}
	}
	for l := fettle.NoLayer; l <= fettle.Application; l++ {
		if got := throughJSON(t, l); got != l {
			t.Errorf("%s is read back as %s", l, got)
		}
	}
	got := fettle.Data
	if err := got.UnmarshalText([]byte("quantum")); err != nil || got != fettle.NoLayer {
		t.Errorf("an unknown layer is read as %q: %v", got, err)
	}
}

func throughJSON[T any](t *testing.T, v T) T {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var back T
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	return back
}

func TestTokenOrder(t *testing.T) {
	order := []fettle.Token{{Epoch: 0, Revision: 0}, {Epoch: 0, Revision: 9}, {Epoch: 1, Revision: 0}, {Epoch: 1, Revision: 1}, {Epoch: 1, Revision: 1 << 63}, {Epoch: 2, Revision: 0}}
	for i, a := range order {
		for j, b := range order {
			if a.Less(b) != (i < j) {
				t.Errorf("%+v is older than %+v: %v", a, b, a.Less(b))
			}
		}
	}
}

func TestKeyOrder(t *testing.T) {
	order := []fettle.ConditionKey{{Code: "z", Subject: "host:a"}, {Code: "a", Subject: "host:b"}, {Code: "b", Subject: "host:b"}}
	for i, a := range order {
		for j, b := range order {
			if got := a.Compare(b); got != i-j && got*(i-j) <= 0 {
				t.Errorf("%s against %s: %d", a, b, got)
			}
		}
	}
	if got := order[1].String(); got != "a on host:b" {
		t.Errorf("a key reads %q", got)
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("no quorum")
	full := &fettle.Error{Op: "etcd.member_remove", Subject: "etcd-member:main/e1", Class: fettle.Refused, Err: cause, Hint: "mend another member first"}
	if got := full.Error(); got != "etcd.member_remove etcd-member:main/e1: refused: no quorum (mend another member first)" {
		t.Errorf("an error reads %q", got)
	}
	if got := (&fettle.Error{Op: "x", Class: fettle.Broken}).Error(); got != "x: failed" {
		t.Errorf("a bare error reads %q", got)
	}
	if !errors.Is(full, cause) {
		t.Error("the cause cannot be found")
	}
	refused := fettle.Refuse("a.b", "unit:h1/x", "look first", "it has %d: %w", 2, cause)
	if got := refused.Error(); got != "a.b unit:h1/x: refused: it has 2: no quorum (look first)" || !errors.Is(refused, cause) {
		t.Errorf("a refusal reads %q", got)
	}
	for _, c := range []struct {
		err  error
		want fettle.Class
	}{
		{nil, ""},
		{full, fettle.Refused},
		{refused, fettle.Refused},
		{fmt.Errorf("while mending: %w", full), fettle.Refused},
		{errors.Join(errors.New("x"), &fettle.Error{Class: fettle.Denied}), fettle.Denied},
		// The class that was given holds, whatever is inside.
		{&fettle.Error{Class: fettle.Broken, Err: context.DeadlineExceeded}, fettle.Broken},
		{fettle.ErrNotSupported, fettle.Unsupported},
		{fmt.Errorf("x: %w", fettle.ErrNotSupported), fettle.Unsupported},
		{context.DeadlineExceeded, fettle.NoAnswer},
		{fmt.Errorf("x: %w", context.Canceled), fettle.NoAnswer},
		{fs.ErrPermission, fettle.Broken},
		{errors.New("x"), fettle.Broken},
	} {
		if got := fettle.ClassOf(c.err); got != c.want {
			t.Errorf("ClassOf(%v) = %q, want %q", c.err, got, c.want)
		}
	}
}

func TestEnded(t *testing.T) {
	ended := map[fettle.IncidentState]bool{fettle.Resolved: true, fettle.Closed: true}
	for _, s := range []fettle.IncidentState{fettle.Open, fettle.Proposed, fettle.Acting, fettle.Verifying, fettle.Undoing, fettle.Held, fettle.Escalated, fettle.Resolved, fettle.Closed, "", "of a newer version"} {
		if s.Ended() != ended[s] {
			t.Errorf("%q has ended: %v", s, s.Ended())
		}
	}
}

func TestObservation(t *testing.T) {
	o := fettle.Observation{Host: "host:h1", Probe: "a.b"}
	if !o.Known() || o.Observer() != (fettle.Observer{Host: "host:h1", Probe: "a.b"}) {
		t.Errorf("%+v", o.Observer())
	}
	for _, r := range []fettle.Reason{fettle.Unreachable, fettle.TimedOut, fettle.PermissionDenied, fettle.NotSupported, fettle.Failed, "newer"} {
		if o.Reason = r; o.Known() {
			t.Errorf("an observation that could not be made (%s) is known", r)
		}
	}
	for state, raised := range map[fettle.Tri]bool{fettle.Yes: true, fettle.No: false, fettle.Unknown: false} {
		if (fettle.Condition{State: state}).Raised() != raised {
			t.Errorf("a condition that is %s is raised: %v", state, !raised)
		}
	}
}
