//go:build lab

package spine_test

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

const full fettle.Code = "filesystem.full"

// letGo is the policy of owners who let go by itself what is disposable.
const letGo = `autonomy:
  - {runbook: filesystem.full, rung: "*", subject: "*", level: automatic}
`

// volume gives a host a filesystem of its own, mounted on a folder, with no
// blocks kept back for root.
func volume(t *testing.T, h *lab.Host, at string) {
	t.Helper()
	d, err := h.AttachDisk(t.Context(), 96<<20)
	if err == nil {
		_, err = h.Output(t.Context(), "sh", "-ec", `mkfs.ext4 -q -m 0 "$1"; mkdir -p "$2"; mount "$1" "$2"`, "sh", d.Device, at)
	}
	if err != nil {
		t.Fatal(err)
	}
	unit := strings.ReplaceAll(strings.TrimPrefix(at, "/"), "/", "-") + ".mount"
	if err := h.WriteFile("/usr/lib/systemd/system/"+unit, fmt.Appendf(nil, "[Mount]\nWhat=%s\nWhere=%s\nType=ext4\n", d.Device, at), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fleetWithVolume is one host with a filesystem on a folder, and what a script
// did there before Fettle came.
func fleetWithVolume(t *testing.T, at, policy string, adapters map[string]string, before string) (*spine.Fleet, *lab.Host, fettle.Subject) {
	t.Helper()
	f := start(t, 1, spine.Options{
		Policy: policy, Adapters: map[string]map[string]string{"h1": adapters},
		Prepare: func(l *lab.Lab) {
			volume(t, l.Host(1), at)
			if _, err := l.Host(1).Shell(t.Context(), before); err != nil {
				t.Fatal(err)
			}
		},
	})
	h := f.Host(1)
	return f, h, f.Subject(fettle.KindFilesystem, h, at)
}

// fill writes a file until the filesystem takes no more, and then cuts so many
// KiB off its end.
func fill(f *spine.Fleet, h *lab.Host, file string, leaveKiB int) {
	f.Shell(h, fmt.Sprintf("cat /dev/zero >>%s 2>/dev/null || true; truncate -s -%dK %[1]s; sync -f %[1]s", file, leaveKiB))
}

// usedPermille is how full a filesystem is, as df counts.
func usedPermille(t *testing.T, f *spine.Fleet, h *lab.Host, at string) int {
	t.Helper()
	words := strings.Fields(f.Shell(h, "df --output=used,avail -B1 "+at+" | tail -n 1"))
	if len(words) != 2 {
		t.Fatalf("df says %q", words)
	}
	used, err1 := strconv.Atoi(words[0])
	avail, err2 := strconv.Atoi(words[1])
	if err1 != nil || err2 != nil {
		t.Fatalf("df says %q", words)
	}
	return used * 1000 / (used + avail)
}

// checkRoom fails the test if the filesystem is still full.
func checkRoom(t *testing.T, f *spine.Fleet, h *lab.Host, at string) {
	t.Helper()
	if p := usedPermille(t, f, h, at); p >= 970 {
		t.Errorf("%s is %d ‰ full", at, p)
	}
}

// checkReceipts fails the test unless the incident's receipts name exactly these
// files.
func checkReceipts(t *testing.T, in fettle.Incident, files ...string) {
	t.Helper()
	var got []string
	for _, r := range in.Receipts {
		got = append(got, r.What)
		if r.Bytes <= 0 {
			t.Errorf("the receipt for %s says %d bytes", r.What, r.Bytes)
		}
	}
	slices.Sort(got)
	slices.Sort(files)
	if !slices.Equal(got, files) {
		t.Errorf("receipts for\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(files, "\n  "))
	}
}

func lines(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == '\n' }) }

// The journal is past the limit that its owner has lowered: what is past it goes.
func TestLabFilesystemFullByJournal(t *testing.T) {
	const at = "/var/log"
	f, h, s := fleetWithVolume(t, at, letGo, nil, `mkdir /var/log/journal
		printf '[Journal]\nSystemMaxUse=1G\nSystemKeepFree=1\nSystemMaxFileSize=4M\nRateLimitBurst=0\nCompress=no\n' >/etc/systemd/journald.conf.d/50-lab.conf
		systemctl restart systemd-journald
		journalctl --flush`)
	f.Shell(h, "head -c 20M /dev/urandom >/var/log/app.data; base64 -w 3000 /dev/urandom | head -c 48M | systemd-cat -t flood; journalctl --sync")
	f.Shell(h, "sed -i s/SystemMaxUse=1G/SystemMaxUse=16M/ /etc/systemd/journald.conf.d/50-lab.conf") // journald has not heard of it yet
	before, sums := f.Snapshot(), f.Shell(h, "sha256sum /var/log/app.data")
	fill(f, h, "/var/log/app.log", 0)
	journals := "ls /var/log/journal/*/*.journal"
	archived := lines(f.Shell(h, "ls /var/log/journal/*/*@*.journal"))

	in := f.WaitFor(full, s, fettle.Resolved)
	f.CheckMended(in, "journal", "vacuum")
	checkRoom(t, f, h, at)
	left := lines(f.Shell(h, journals))
	var gone []string
	for _, file := range archived {
		if !slices.Contains(left, file) {
			gone = append(gone, file)
		}
	}
	if len(gone) == 0 {
		t.Error("no archived journal file went")
	}
	for _, r := range in.Receipts {
		if path.Ext(r.What) != ".journal" || slices.Contains(left, r.What) {
			t.Errorf("a receipt for %s, which is no journal file that went", r.What)
		}
	}
	if len(in.Receipts) < len(gone) {
		t.Errorf("%d receipts for %d files that went", len(in.Receipts), len(gone))
	}
	if now := f.Shell(h, "sha256sum /var/log/app.data"); now != sums {
		t.Errorf("a file that is no journal changed: %s, was %s", now, sums)
	}
	f.Shell(h, "logger -t after mended; journalctl --sync; journalctl -t after | grep -q mended") // it is written again
	f.CheckUnchanged(before)
	f.CheckOnly(in.Cause)
}

// Downloaded packages can be fetched again.
func TestLabFilesystemFullByPackages(t *testing.T) {
	const at = "/var/cache/apt/archives"
	f, h, s := fleetWithVolume(t, at, letGo, nil, "")
	f.Shell(h, "cd "+at+"; mkdir partial; touch lock; head -c 8M /dev/urandom >keep.img; for i in 1 2 3 4; do head -c 15M /dev/urandom >p${i}_1_all.deb; done")
	before := f.Snapshot()
	keep := "sha256sum " + at + "/lock " + at + "/keep.img"
	sums := f.Shell(h, keep)
	fill(f, h, at+"/p5_1_all.deb", 0)
	debs := lines(f.Shell(h, "ls "+at+"/*.deb"))

	in := f.WaitFor(full, s, fettle.Resolved)
	f.CheckMended(in, "package-cache", "clean")
	checkRoom(t, f, h, at)
	checkReceipts(t, in, debs...)
	if now := f.Shell(h, keep); now != sums {
		t.Errorf("what is no package changed: %s, was %s", now, sums)
	}
	if left := f.Shell(h, "ls "+at); left != "keep.img\nlock\nlost+found\npartial" {
		t.Errorf("left are %q", left)
	}
	f.CheckUnchanged(before)
	f.CheckOnly(in.Cause)
}

// A service holds a file that was deleted; asked to reload it opens its log anew.
func TestLabFilesystemFullByDeletedOpen(t *testing.T) {
	const at = "/srv/data"
	f, h, s := fleetWithVolume(t, at, "", nil, "") // taking nothing away, it needs nobody's leave
	f.Write(h, "/usr/local/bin/holder", `#!/bin/sh
exec 3>>/srv/data/app.log
trap 'exec 3>&-; exec 3>>/srv/data/app.log' HUP
cat /dev/zero >&3 2>/dev/null
rm /srv/data/app.log
while :; do sleep 3600 3>&- & wait; done
`)
	f.Shell(h, "chmod 755 /usr/local/bin/holder; head -c 10M /dev/urandom >/srv/data/keep.img")
	sums := f.Sums(h, at)
	f.Service(h, "holder.service", "ExecStart=/usr/local/bin/holder", "ExecReload=/bin/kill -HUP $MAINPID")
	before := f.Snapshot()

	in := f.WaitFor(full, s, fettle.Resolved)
	f.CheckMended(in, "ask-holder", "ask")
	checkRoom(t, f, h, at)
	checkReceipts(t, in)
	if step := in.Plan.Steps[0]; step.Params["unit"] != "holder.service" {
		t.Errorf("asked was %v", step.Params)
	}
	if now := strings.TrimSpace(f.Shell(h, "rm /srv/data/app.log; find /srv/data -type f -exec sha256sum {} + | sort")); now != sums {
		t.Errorf("the files changed: %s, were %s", now, sums)
	}
	f.CheckUnchanged(before) // it was asked, not restarted
	f.CheckOnly(in.Cause)
}

// Logs that were rotated are compressed, and nothing of them is lost.
func TestLabFilesystemFullByLogs(t *testing.T) {
	const at = "/var/log/app"
	f, h, s := fleetWithVolume(t, at, letGo, nil, "")
	f.Shell(h, "cd "+at+`; echo now >app.log; for i in 1 2 3 4; do yes "line $i of a log that compresses well" | head -c 15M >app.log.$i; done; head -c 4M /dev/urandom >keep.img`)
	before := f.Snapshot()
	content := f.Shell(h, "cd "+at+"; for i in 1 2 3 4; do sha256sum <app.log.$i; done; sha256sum app.log keep.img")
	fill(f, h, at+"/other.img", 300)

	in := f.WaitFor(full, s, fettle.Resolved)
	f.CheckMended(in, "rotated-logs", "compress")
	checkRoom(t, f, h, at)
	checkReceipts(t, in, at+"/app.log.1", at+"/app.log.2", at+"/app.log.3", at+"/app.log.4")
	if now := f.Shell(h, "cd "+at+"; for i in 1 2 3 4; do zcat app.log.$i.gz | sha256sum; done; sha256sum app.log keep.img"); now != content {
		t.Errorf("the logs hold %s, held %s", now, content)
	}
	f.Shell(h, in.Receipts[0].Back) // the one command that puts it back
	f.Shell(h, "test -e "+in.Receipts[0].What)
	f.CheckUnchanged(before)
	f.CheckOnly(in.Cause)
}

// What Fettle does not know it names and leaves alone.
func TestLabFilesystemFullUnknown(t *testing.T) {
	const at = "/srv/data"
	f, h, s := fleetWithVolume(t, at, letGo, nil, "")
	f.Shell(h, "mkdir /srv/data/db; head -c 50M /dev/urandom >/srv/data/db/table.dat")
	fill(f, h, "/srv/data/small", 0)
	before, sums := f.Snapshot(), f.Sums(h, at)

	in := f.WaitFor(full, s, fettle.Escalated)
	if !slices.ContainsFunc(in.Story, func(e fettle.Event) bool { return strings.Contains(e.Text, "/srv/data/db/table.dat") }) {
		t.Errorf("its story does not say what fills it: %v", in.Story)
	}
	other := goOn(f, h, "other.service")
	f.CheckUntouched(f.Incident(in.ID))
	if now := f.Sums(h, at); now != sums {
		t.Errorf("the files changed: %s, were %s", now, sums)
	}
	f.CheckUnchanged(before, "h1 other.service")

	f.Shell(h, "rm /srv/data/small /srv/data/db/table.dat") // a person does what only a person may
	f.CheckUntouched(f.WaitFor(full, s, fettle.Resolved))
	f.CheckOnly(in.Cause, other)
}

// A service fails because the filesystem under it is full: that is the cause, and
// starting the service would not help. It is started when there is room again.
func TestLabFilesystemFullBreaksUnit(t *testing.T) {
	const at = "/srv/data"
	f, h, s := fleetWithVolume(t, at, "", map[string]string{"filesystem.yaml": "package_caches: [/srv/data/cache]\n"}, "")
	f.UnitFile(h, "app.service", `[Unit]
RequiresMountsFor=/srv/data
[Service]
ExecStart=/bin/sh -c 'while :; do head -c 8192 /dev/zero >>/srv/data/app.out || exit 1; sleep 0.2; done'
`)
	f.Shell(h, "systemctl start app.service; mkdir /srv/data/cache; for i in 1 2 3 4; do head -c 15M /dev/urandom >/srv/data/cache/p${i}_1_all.deb; done")
	unit := f.Unit(h, "app.service")
	fill(f, h, "/srv/data/small", 0)

	in := f.WaitIncident("the filesystem to be the cause and the service its symptom", func(in fettle.Incident) bool {
		return in.Cause == key(full, s) && in.State == fettle.Proposed && slices.Contains(in.Conditions, key(failed, unit))
	})
	other := goOn(f, h, "other.service")
	f.CheckUntouched(f.Incident(in.ID))
	f.CheckStarts(h, "app.service", 1)

	f.Approve(in.ID)
	f.CheckMended(f.WaitFor(full, s, fettle.Resolved), "package-cache", "clean")
	started := f.WaitIncident("the service to be started", func(in fettle.Incident) bool { return in.Cause == key(failed, unit) && in.State == fettle.Resolved })
	f.CheckMended(started, "start", "start")
	f.CheckStarts(h, "app.service", 2)
	checkRoom(t, f, h, at)
	f.CheckOnly(in.Cause, other, started.Cause)
}
