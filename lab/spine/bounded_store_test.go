//go:build lab

package spine_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// segments is where a server keeps what its store let go.
const segments = spine.StateDir + "/store/segments"

// storeNow is what `fettle status` says of the store.
type storeNow struct {
	InUse   int64    `json:"in_use_bytes"`
	OnDisk  int64    `json:"on_disk_bytes"`
	Quota   int64    `json:"quota_bytes"`
	State   string   `json:"state"`
	InFiles int64    `json:"entries_in_files"`
	Files   int64    `json:"segments"`
	Bytes   int64    `json:"segment_bytes"`
	Lacks   []string `json:"lacks"`
}

func storeOf(t *testing.T, f *spine.Fleet) storeNow {
	t.Helper()
	var s struct{ Store storeNow }
	h := f.Leader()
	if h == nil {
		return storeNow{}
	}
	r, err := h.Exec(t.Context(), spine.Program, "status", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(r.Stdout), &s); err != nil { // nobody leads at the moment
		return storeNow{}
	}
	return s.Store
}

// filesOn are the files of the log that a host has, with their hashes. Before the first
// there is nothing to hash, which is no failure.
func filesOn(f *spine.Fleet, h *lab.Host) []string {
	return strings.Split(f.Shell(h, "cd "+segments+" && sha256sum *.jsonl 2>/dev/null || true"), "\n")
}

// The log of three servers grows past a small quota of their store. What is old goes to
// files, which all three hold alike; the store stays well below the quota, and so does
// etcd's file. One server is away meanwhile, and the one that leads is killed: the log goes
// on, and who was away gets the files from the others. The chain is whole from the first
// entry on; a file that is altered on one server is found, and got again. A fleet with such a
// log mends as before.
func TestLabBoundedStore(t *testing.T) {
	const quota = 64 << 20 // the least that there is
	f := start(t, 3, spine.Options{Servers: 3, Store: fmt.Sprintf("--store-quota %dMiB", quota>>20)})
	f.Service(f.Host(1), "web.service", "ExecStart=/bin/sleep infinity")

	// What a person runs is in the log with all its words, when it begins and when it has
	// ended, also where the host does not let it: that is exit status 1.
	said := 0
	speak := func(mib int) {
		t.Helper()
		const times = 5
		for ; mib > 0; mib-- {
			h := f.Leader()
			if h == nil {
				spine.Until(t, "a server to lead", func() bool { h = f.Leader(); return h != nil })
			}
			said++
			f.Shell(h, fmt.Sprintf("W=$(head -c %d /dev/zero | tr '\\0' %c); for i in $(seq %d); do %s run --hosts %s -- true \"$W\" >/dev/null 2>/run/refused || [ $? = 1 ] || { cat /run/refused >&2; exit 9; }; done",
				(1<<20)/times/2, 'a'+rune(said%26), times, spine.Program, h.Name()))
		}
	}
	largest := storeNow{}
	look := func() storeNow {
		t.Helper()
		s := storeOf(t, f)
		largest.InUse, largest.OnDisk = max(largest.InUse, s.InUse), max(largest.OnDisk, s.OnDisk)
		return s
	}
	at := time.Now()
	settle := func() {
		t.Helper()
		look()
		spine.Until(t, "what is old to go to files", func() bool { return look().InUse < quota/2 })
	}
	for range 4 {
		speak(9)
		settle()
	}
	t.Logf("%d MiB were said in %v", said, time.Since(at).Round(time.Second))
	spine.Until(t, "what is old to go to files", func() bool { return look().Files > 0 })

	// One is away, and the rest goes on.
	away := f.Host(3)
	if away == f.Leader() {
		away = f.Host(2)
	}
	f.Shell(away, "systemctl stop "+spine.ServerUnit)
	had := len(filesOn(f, away))
	before := look()
	for range 4 {
		speak(9)
		settle()
	}
	spine.Until(t, "more to go to files with one server away", func() bool { s := look(); return s.Files > before.Files && s.InUse < quota/2 })

	// The one that leads is killed too, and started again: with it two of three are there.
	was := f.Leader()
	killService(f, was, spine.ServerUnit)
	f.Shell(away, "systemctl start "+spine.ServerUnit)
	now, took := awaitLeader(t, f, was, time.Now())
	t.Logf("%s was killed, and %s leads after %v", was.Name(), now.Name(), took.Round(10*time.Millisecond))
	f.Shell(was, "systemctl reset-failed "+spine.ServerUnit+"; systemctl start "+spine.ServerUnit)
	f.WaitReady()
	var all []string
	spine.Until(t, "all three to hold the same files", func() bool {
		all = filesOn(f, f.Leader())
		for _, h := range f.Hosts() {
			if !slices.Equal(filesOn(f, h), all) {
				return false
			}
		}
		return int64(len(all)) == look().Files && len(all) > had
	})
	s := look()
	if largest.InUse > quota*7/8 || largest.OnDisk > quota || s.Lacks != nil || s.Bytes < quota/2 {
		t.Errorf("at most %d bytes were in use, in a file of %d; now %+v", largest.InUse, largest.OnDisk, s)
	}
	t.Logf("%d MiB were said; at most %d MiB were in use, in a file of %d MiB; %d entries are in %d files of %d MiB; %s had %d of them when it went away",
		said, largest.InUse>>20, largest.OnDisk>>20, s.InFiles, s.Files, s.Bytes>>20, away.Name(), had)
	checkOneLog(t, f)

	// A file is altered where the server leads.
	h := f.Leader()
	name := strings.Fields(all[0])[1]
	f.Shell(h, "cd "+segments+" && sed -i '2s/entry/entrz/' "+name)
	r, err := h.Exec(t.Context(), spine.Program, "audit", "verify")
	if err != nil || r.Code != 1 || !strings.Contains(r.Stdout+r.Stderr, name) {
		t.Errorf("a file was altered: %+v, %v", r, err)
	}
	t.Log(strings.TrimSpace(r.Stdout + r.Stderr))
	spine.Until(t, "it to be got from another server", func() bool { // others may have been made meanwhile
		have := filesOn(f, h)
		return !slices.ContainsFunc(all, func(file string) bool { return !slices.Contains(have, file) })
	})
	if n := f.Shell(h, "ls "+segments+"/*.aside* | wc -l"); n != "1" {
		t.Errorf("%s files are set aside as evidence", n)
	}
	checkOneLog(t, f)

	killService(f, f.Host(1), "web.service")
	f.CheckMended(f.WaitFor(failed, f.Unit(f.Host(1), "web.service"), fettle.Resolved), "start", "start")
}
