//go:build lab

package spine_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

const (
	inodesFull fettle.Code = "filesystem.inodes_full"
	readOnly   fettle.Code = "filesystem.read_only"
	shutDown   fettle.Code = "filesystem.shut_down"
)

// Every inode is used by an empty file: no file can be made, though there is
// nearly all the room. Which of them may go only their owner knows: all stay.
func TestLabFilesystemInodes(t *testing.T) {
	const at = "/srv/data"
	f, h, s := fleetWithVolume(t, at, letGo, nil, "")
	f.Shell(h, "mkdir /srv/data/mail; cd /srv/data/mail; seq 1 100000 | xargs touch 2>/dev/null || true")
	in := f.WaitFor(inodesFull, s, fettle.Escalated, fettle.Held)
	count := f.Shell(h, "ls /srv/data/mail | wc -l")
	if f.Try(h, "touch /srv/data/one-more") || usedPermille(t, f, h, at) > 500 {
		t.Errorf("there is room: %s files, %d ‰ of the bytes", count, usedPermille(t, f, h, at))
	}
	other := goOn(f, h, "other.service")
	f.CheckUntouched(f.Incident(in.ID))
	if now := f.Shell(h, "ls /srv/data/mail | wc -l"); now != count {
		t.Errorf("%s files are left of %s", now, count)
	}
	f.Shell(h, "rm -r /srv/data/mail")
	f.CheckUntouched(f.WaitFor(inodesFull, s, fettle.Resolved))
	f.CheckOnly(in.Cause, other)
}

// The kernel finds an error and stops writing, and a service that writes there
// fails. The filesystem is the cause: the service is not started again until
// somebody has mended it; then it is.
func TestLabFilesystemReadOnly(t *testing.T) {
	broken(t, readOnly, func(f *spine.Fleet, h *lab.Host, device string) {
		f.Shell(h, "mount -o remount,errors=remount-ro /srv/data")
		if err := os.WriteFile(filepath.Join("/sys/fs/ext4", filepath.Base(device), "trigger_fs_error"), []byte("the lab's"), 0); err != nil {
			t.Fatal(err)
		}
		if options := f.Shell(h, "findmnt -no OPTIONS /srv/data"); !slices.Contains(strings.Split(options, ","), "rw") {
			t.Logf("this kernel says so in its options: %s", options)
		}
	}, "umount /srv/data; e2fsck -fy DEVICE || test $? -le 1; mount DEVICE /srv/data")
}

// The filesystem was shut down after an error: nothing is written or read any
// more, and its options say rw.
func TestLabFilesystemShutDown(t *testing.T) {
	const shutdown = `import fcntl, os, struct
fcntl.ioctl(os.open("/srv/data", os.O_RDONLY), 0x8004587d, struct.pack("I", 2)) # FS_IOC_SHUTDOWN, nothing is flushed
`
	broken(t, shutDown, func(f *spine.Fleet, h *lab.Host, _ string) {
		f.Write(h, "/root/shutdown.py", shutdown)
		f.Shell(h, "python3 /root/shutdown.py")
		if options := f.Shell(h, "findmnt -no OPTIONS /srv/data"); !slices.Contains(strings.Split(options, ","), "rw") {
			t.Errorf("it is mounted with %s", options)
		}
	}, "umount /srv/data; mount DEVICE /srv/data")
}

// broken breaks a filesystem that a service writes to, and has a person mend it.
func broken(t *testing.T, code fettle.Code, breakIt func(*spine.Fleet, *lab.Host, string), mend string) {
	t.Helper()
	f, h, s := fleetWithVolume(t, "/srv/data", letGo, nil, "")
	f.UnitFile(h, "app.service", `[Unit]
RequiresMountsFor=/srv/data
[Service]
ExecStart=/bin/sh -c 'while :; do echo something >>/srv/data/app.out || exit 1; sleep 0.2; done'
`)
	f.Shell(h, "systemctl start app.service")
	unit := f.Unit(h, "app.service")
	device := f.Shell(h, "findmnt -no SOURCE /srv/data")
	breakIt(f, h, device)

	in := f.WaitIncident("the filesystem to be the cause and the service its symptom", func(in fettle.Incident) bool {
		return in.Cause == key(code, s) && in.State == fettle.Escalated && slices.Contains(in.Conditions, key(failed, unit))
	})
	other := goOn(f, h, "other.service")
	f.CheckUntouched(f.Incident(in.ID))
	f.CheckStarts(h, "app.service", 1)

	// A start of the service would mount it: who works on a machine freezes Fettle.
	f.Shell(h, spine.Program+" freeze --why 'a filesystem is mended'; "+strings.ReplaceAll(mend, "DEVICE", device))
	f.CheckUntouched(f.WaitFor(code, s, fettle.Resolved))
	f.CheckStarts(h, "app.service", 1)
	f.Shell(h, spine.Program+" thaw")
	started := f.WaitFor(failed, unit, fettle.Resolved)
	checkBegunOnce(t, started)
	f.CheckStarts(h, "app.service", 2)
	f.CheckOnly(in.Cause, other, started.Cause)
}

// checkBegunOnce fails the test unless one step was begun, and did not fail.
func checkBegunOnce(t *testing.T, in fettle.Incident) {
	t.Helper()
	begun := 0
	for _, e := range in.Story {
		switch e.Kind {
		case fettle.EvIntent:
			begun++
		case fettle.EvFailed, fettle.EvUndone:
			t.Errorf("incident %s: %s: %s", in.ID, e.Kind, e.Text)
		}
	}
	if begun != 1 {
		t.Errorf("incident %s of %s: %d steps were begun, want 1", in.ID, in.Cause, begun)
	}
}
