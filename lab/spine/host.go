package spine

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"fettle/lab"
)

// Service gives a host a service and starts it. The lines are those of its
// [Service] section.
func (f *Fleet) Service(h *lab.Host, name string, lines ...string) {
	f.t.Helper()
	f.UnitFile(h, name, "[Service]\n"+strings.Join(lines, "\n")+"\n[Install]\nWantedBy=multi-user.target\n")
	f.must(h, "systemctl", "start", name)
}

// UnitFile gives a host a unit file, where packages have theirs, so that it can be
// masked, and has the manager read it.
func (f *Fleet) UnitFile(h *lab.Host, name, text string) {
	f.t.Helper()
	f.Write(h, "/usr/lib/systemd/system/"+name, text)
	f.must(h, "systemctl", "daemon-reload")
}

// Try reports whether a script of a host's shell succeeds.
func (f *Fleet) Try(h *lab.Host, script string) bool {
	f.t.Helper()
	r, err := h.Exec(f.t.Context(), "sh", "-c", script)
	if err != nil {
		f.t.Fatal(err)
	}
	return r.Code == 0
}

// Write writes a file of a host.
func (f *Fleet) Write(h *lab.Host, path, text string) {
	f.t.Helper()
	if err := h.WriteFile(path, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// Property asks a host's manager for a property of a unit.
func (f *Fleet) Property(h *lab.Host, unit, name string) string {
	f.t.Helper()
	return f.must(h, "systemctl", "show", "--value", "--property="+name, unit)
}

// MainPID is the number of a service's main process, 0 when it has none.
func (f *Fleet) MainPID(h *lab.Host, unit string) int {
	f.t.Helper()
	pid, err := strconv.Atoi(f.Property(h, unit, "MainPID"))
	if err != nil {
		f.t.Fatalf("%s: main process of %s: %v", h.Name(), unit, err)
	}
	return pid
}

// Snapshot is every service of every host: its state, and the invocation that
// tells one start from the next.
type Snapshot map[string]string

// Snapshot asks every host's manager.
func (f *Fleet) Snapshot() Snapshot {
	f.t.Helper()
	s := Snapshot{}
	for _, h := range f.Hosts() {
		out := f.must(h, "systemctl", "show", "--property=Id,ActiveState,InvocationID,NRestarts", "*.service")
		for block := range strings.SplitSeq(out, "\n\n") {
			name, state := "", []string{}
			for line := range strings.Lines(block) {
				if id, ok := strings.CutPrefix(strings.TrimSpace(line), "Id="); ok {
					name = id
				} else {
					state = append(state, strings.TrimSpace(line))
				}
			}
			slices.Sort(state)
			s[h.Name()+" "+name] = strings.Join(state, " ")
		}
	}
	return s
}

// CheckUnchanged fails the test if a service changed its state or was started
// anew since the snapshot, but for those named "HOST UNIT".
func (f *Fleet) CheckUnchanged(before Snapshot, but ...string) {
	f.t.Helper()
	after := f.Snapshot()
	all := maps.Clone(before)
	maps.Copy(all, after)
	for name := range all {
		if before[name] != after[name] && !slices.Contains(but, name) {
			f.t.Errorf("%s changed: it was %q and is %q", name, before[name], after[name])
		}
	}
}

// Sums are the checksums of all files below a folder of a host, on its one
// filesystem, as sha256sum prints them.
func (f *Fleet) Sums(h *lab.Host, dir string) string {
	f.t.Helper()
	return f.must(h, "sh", "-c", `find "$1" -xdev -type f -exec sha256sum {} + | sort`, "sh", dir)
}

// CheckStarts fails the test unless a unit was started that many times since the
// host was booted, as its manager's journal says.
func (f *Fleet) CheckStarts(h *lab.Host, unit string, want int) {
	f.t.Helper()
	out := f.must(h, "sh", "-c", `journalctl -b -o cat --output-fields=INVOCATION_ID _PID=1 UNIT="$1" JOB_TYPE=start JOB_RESULT=done | grep -c .`, "sh", unit)
	if got, err := strconv.Atoi(out); err != nil || got != want {
		f.t.Errorf("%s: %s was started %s times, want %d", h.Name(), unit, out, want)
	}
}
