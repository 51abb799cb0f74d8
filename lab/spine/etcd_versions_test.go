//go:build lab

package spine_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

const versionSkew fettle.Code = "etcd.version_skew"

// buildEtcd36 builds an etcd 3.6. Debian's 3.4 will not do: it and 3.7 cannot read
// each other's log entries, and in one cluster all members panic.
func buildEtcd36(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "etcd")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-C", "testdata/etcd36", "-trimpath", "-ldflags", "-s -w", "-o", file, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build etcd 3.6: %v\n%s", err, out)
	}
	return file
}

// One member of three is of an older version than the others, as after an upgrade
// that was left half done. It is reported, with the versions, and nothing is
// touched; it is over when a person has upgraded the last.
func TestLabEtcdVersionSkew(t *testing.T) {
	old := buildEtcd36(t)
	runs := func(h *lab.Host, command string) error {
		return h.WriteFile("/etc/systemd/system/etcd.service.d/version.conf", []byte("[Service]\nExecStart=\nExecStart="+command+"\n"), 0o644)
	}
	const v36, v37 = "/opt/etcd-3.6/etcd", "/opt/etcd-3.7/etcd"
	c := startEtcd(t, etcdOptions{prepare: func(l *lab.Lab) {
		for _, h := range l.Hosts() {
			command := v37 + " demo-etcd" // the etcd that fettle itself is made of
			if h == l.Host(2) {
				command = v36
			}
			_, err := h.Shell(t.Context(), "mkdir -p "+filepath.Dir(v36)+" "+filepath.Dir(v37))
			for from, to := range map[string]string{old: v36, binary: v37} {
				if err == nil {
					err = h.CopyIn(from, to)
				}
			}
			if err == nil {
				err = runs(h, command)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}})
	h := c.Host(2)
	ids, before := c.identities(), c.Snapshot()
	versions := func() (out []string) {
		for _, h := range c.Hosts() {
			s, err := c.status(h)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, s.Version)
		}
		return out
	}
	t.Logf("the members run %v", versions())
	if all := slices.Compact(slices.Sorted(slices.Values(versions()))); len(all) != 2 {
		t.Fatalf("the members run %v, want two versions", all)
	}
	in := c.WaitFor(versionSkew, c.cluster(), fettle.Held, fettle.Escalated)
	if !slices.ContainsFunc(in.Story, func(e fettle.Event) bool {
		return strings.Contains(e.Text, "3.6.") && strings.Contains(e.Text, "3.7.")
	}) {
		t.Errorf("its story does not say which versions: %v", in.Story)
	}
	other := goOn(c.Fleet, h, "other.service")
	c.CheckUntouched(c.Incident(in.ID))
	c.CheckUnchanged(before, "h2 other.service")

	if err := runs(h, v37+" demo-etcd"); err != nil {
		t.Fatal(err)
	}
	c.Shell(h, fmt.Sprintf("systemctl daemon-reload; systemctl restart %s", etcdUnit))
	c.CheckUntouched(c.WaitFor(versionSkew, c.cluster(), fettle.Resolved))
	spine.Until(t, "all members to run one version", func() bool { return len(slices.Compact(slices.Sorted(slices.Values(versions())))) == 1 })
	c.CheckOnly(in.Cause, other)
	c.checkIdentities(ids)
	c.checkWhole()
}
