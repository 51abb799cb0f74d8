//go:build lab

package spine_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/labtest"
	"fettle/lab/spine"
)

// findings is what doctor says to programs.
type findings struct {
	Looked []struct {
		Adapter string
		Error   string
	}
	NotSeen []struct {
		Subject, Probe, Reason, Needs string
	} `json:"not_seen"`
	Subjects   int
	Conditions []fettle.Condition
	Incidents  []fettle.Incident
	Took       time.Duration `json:"took_ns"`
}

// doctor runs `fettle doctor`, by way of another command.
func doctor(t *testing.T, h *lab.Host, by ...string) (findings, lab.Result) {
	t.Helper()
	r, err := h.Exec(t.Context(), append(by, spine.Program, "doctor", "-o", "json")...)
	if err != nil {
		t.Fatal(err)
	}
	var f findings
	if err := json.Unmarshal([]byte(r.Stdout), &f); err != nil {
		t.Fatalf("%v: %s%s", err, r.Stdout, r.Stderr)
	}
	return f, r
}

// A healthy host is found so, fast, also by an ordinary user and where there is no
// systemd to ask; what could not be seen is named. One that is not healthy is
// found so too, and nothing is changed.
func TestLabDoctorHealthy(t *testing.T) {
	l := labtest.Start(t, lab.Config{Hosts: 1})
	h := l.Host(1)
	volume(t, h, "/srv/data")
	if err := h.CopyIn(binary, spine.Program); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Shell(t.Context(), "systemd-run --unit=web.service sleep infinity"); err != nil {
		t.Fatal(err)
	}
	var times []string
	for range 5 {
		f, r := doctor(t, h)
		if r.Code != 0 || f.Subjects < 10 || len(f.Conditions) != 0 || len(f.NotSeen) != 0 {
			t.Errorf("as root: exit status %d, %d subjects, raised %v, not seen %v", r.Code, f.Subjects, f.Conditions, f.NotSeen)
		}
		times = append(times, f.Took.Round(time.Millisecond).String())
	}
	t.Logf("doctor on a healthy host: %s (bar: 500ms)", strings.Join(times, ", "))

	f, r := doctor(t, h, "runuser", "-u", "nobody", "--")
	t.Logf("as nobody: %d subjects in %v, not seen %v", f.Subjects, f.Took.Round(time.Millisecond), f.NotSeen)
	if r.Code != 0 || f.Subjects < 10 || len(f.Conditions) != 0 {
		t.Errorf("as nobody: exit status %d, %d subjects, raised %v", r.Code, f.Subjects, f.Conditions)
	}

	f, r = doctor(t, h, "unshare", "--mount", "sh", "-c", `mount -t tmpfs none /run && exec "$@"`, "sh")
	t.Logf("without systemd: %d subjects, looked %v", f.Subjects, f.Looked)
	named := ""
	for _, item := range f.Looked {
		if item.Adapter == "systemd" {
			named = item.Error
		}
	}
	if r.Code != 0 || f.Subjects == 0 || named == "" {
		t.Errorf("without systemd: exit status %d, %d subjects, of systemd it says %q", r.Code, f.Subjects, named)
	}

	if _, err := h.Shell(t.Context(), "systemctl kill -s KILL web.service; while systemctl is-active -q web.service; do :; done"); err != nil {
		t.Fatal(err)
	}
	f, r = doctor(t, h)
	if r.Code != 1 || len(f.Incidents) != 1 || f.Incidents[0].Cause.Code != failed || f.Incidents[0].Plan == nil {
		t.Errorf("with a failed service: exit status %d, incidents %v", r.Code, f.Incidents)
	}
	state, err := h.Shell(t.Context(), "systemctl show --value --property=ActiveState web.service; ls -A "+spine.StateDir+" 2>/dev/null || true")
	if err != nil || state != "failed" {
		t.Errorf("doctor changed something: web.service and state folder: %q, %v", state, err)
	}
}
