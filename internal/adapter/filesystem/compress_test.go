package filesystem_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"

	"fettle/internal/adapter/filesystem"
	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
)

// do applies an action to /var.
func do(t *testing.T, m machine.Machine, name string, params fettle.Facts) (fettle.Result, error) {
	t.Helper()
	return act(t, m, name).Apply(t.Context(), dispatch(name, params))
}

func act(t *testing.T, m machine.Machine, name string) fettle.Action {
	t.Helper()
	in, err := filesystem.Adapter{}.Open(t.Context(), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	return in.Actions()[name]
}

func dispatch(name string, params fettle.Facts) fettle.Dispatch {
	return fettle.Dispatch{Schema: 1, Key: "k." + name, Step: fettle.Step{ID: "it", Action: name, Target: varFS, Host: "host:h1", Params: params}}
}

func read(t *testing.T, m machine.Machine, p string) ([]byte, bool) {
	t.Helper()
	data, err := m.Files.ReadFile(t.Context(), p, 1<<30)
	return data, err == nil
}

// unpacked reads what NAME.gz holds.
func unpacked(t *testing.T, m machine.Machine, p string) ([]byte, bool) {
	t.Helper()
	data, ok := read(t, m, p)
	if !ok {
		return nil, false
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, false
	}
	out, err := io.ReadAll(z)
	return out, err == nil
}

var logs = []string{"/var/log/app.log.1", "/var/log/app.log.2"}

func TestCompressKeepsEverything(t *testing.T) {
	h := newHost(t)
	was := map[string][]byte{}
	for _, p := range logs {
		was[p], _ = read(t, h.ports, p)
	}
	if err := h.ports.Files.Chown(t.Context(), logs[1], 7, 8, false); err != nil {
		t.Fatal(err)
	}
	r, err := do(t, h.ports, "filesystem.compress_logs", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range logs {
		if got, ok := unpacked(t, h.ports, p+".gz"); !ok || !bytes.Equal(got, was[p]) {
			t.Errorf("%s.gz does not hold what %s did", p, p)
		}
		if _, there := read(t, h.ports, p); there {
			t.Errorf("%s is still there", p)
		}
	}
	if s, err := h.ports.Files.Stat(t.Context(), logs[1]+".gz"); err != nil || s.Mode != 0o600 || s.UID != 7 || s.GID != 8 {
		t.Errorf("the copy is %v of %d:%d (%v); want the mode and owner of the original", s.Mode, s.UID, s.GID, err)
	}
	if len(r.Receipts) != 2 || r.Receipts[0].Back != "gunzip "+logs[0]+".gz" || r.Outputs["freed_bytes"].(int64) <= 0 {
		t.Errorf("receipts %v, outputs %v", r.Receipts, r.Outputs)
	}
}

// spoiled are files whose writers do not write what they are given.
type spoiled struct {
	machine.Files
	spoil func([]byte) []byte
}

func (s spoiled) Create(ctx context.Context, p string, perm fs.FileMode) (machine.Writer, error) {
	w, err := s.Files.Create(ctx, p, perm)
	return spoiler{w, s.spoil}, err
}

type spoiler struct {
	machine.Writer
	spoil func([]byte) []byte
}

func (s spoiler) Write(b []byte) (int, error) {
	if _, err := s.Writer.Write(s.spoil(bytes.Clone(b))); err != nil {
		return 0, err
	}
	return len(b), nil // and says that all is well
}

// TestCompressVerifiesBeforeRemoving: a copy that is not what was written never
// replaces its original, wherever it was spoiled.
func TestCompressVerifiesBeforeRemoving(t *testing.T) {
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte {
			if len(b) > 0 {
				b[(at%len(b)+len(b))%len(b)] ^= 0x10
			}
			return b
		}
	}
	spoils := map[string]func([]byte) []byte{
		"nothing is written":  func([]byte) []byte { return nil },
		"the end is missing":  func(b []byte) []byte { return b[:len(b)-1] },
		"zeros":               func(b []byte) []byte { clear(b); return b },
		"the last byte is":    flip(-1),
		"the first byte is":   flip(0),
		"the checksum is":     flip(-6),
		"another log's bytes": func([]byte) []byte { return packed("another") },
	}
	for at := range 30 {
		if at < 4 || at > 9 { // the header's time and system say nothing of the contents
			spoils[fmt.Sprintf("byte %d is flipped", at)] = flip(at)
		}
	}
	for name, spoil := range spoils {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.ports.Files = spoiled{h.ports.Files, spoil}
			before := h.state(t.Context())
			r, err := do(t, h.ports, "filesystem.compress_logs", nil)
			if err == nil {
				t.Errorf("it says that it went well: %v", r)
			}
			if after := h.state(t.Context()); after != before {
				t.Errorf("it left\n%s\nof\n%s", after, before)
			}
		})
	}
}

func packed(text string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, text)
	if err != nil || z.Close() != nil {
		return nil
	}
	return b.Bytes()
}

// TestCompressCutOff cuts the power at every system call of the action. No line
// of any log is lost at any of them, and asked again it comes to the same end.
func TestCompressCutOff(t *testing.T) {
	h := newHost(t)
	was := map[string][]byte{}
	for _, p := range logs {
		was[p], _ = read(t, h.ports, p)
	}
	var forks []*memmachine.Machine
	var where []string
	h.OnStep(func(step, p string) {
		for seed := range uint64(4) {
			forks, where = append(forks, h.Fork(seed)), append(where, step+" "+p)
		}
	})
	if _, err := do(t, h.ports, "filesystem.compress_logs", nil); err != nil {
		t.Fatal(err)
	}
	h.OnStep(nil)
	if len(forks) < 4*2*5 {
		t.Fatalf("cut off only %d times, at %v", len(forks), where)
	}
	for n, f := range forks {
		m := f.Ports()
		for _, p := range logs {
			plain, _ := read(t, m, p)
			copied, _ := unpacked(t, m, p+".gz")
			if !bytes.Equal(plain, was[p]) && !bytes.Equal(copied, was[p]) {
				t.Errorf("cut off at %s, %s is lost", where[n], p)
			}
		}
		fate, _, err := act(t, m, "filesystem.compress_logs").Recover(t.Context(), dispatch("filesystem.compress_logs", nil))
		_, left := read(t, m, logs[1])
		if err != nil || left && fate != fettle.NeverWillBe || fate == fettle.Running {
			t.Errorf("cut off at %s, Recover says %q, %v; a log is left: %v", where[n], fate, err, left)
		}
		if _, err := do(t, m, "filesystem.compress_logs", nil); err != nil {
			t.Errorf("cut off at %s, then: %v", where[n], err)
		}
		for p := range tree(t.Context(), m.Files, "/var/log") {
			if strings.Contains(p, "fettle") {
				t.Errorf("cut off at %s, %s stays", where[n], p)
			}
		}
		for _, p := range logs {
			if got, _ := unpacked(t, m, p+".gz"); !bytes.Equal(got, was[p]) {
				t.Errorf("cut off at %s and begun again, %s.gz does not hold everything", where[n], p)
			}
			if _, there := read(t, m, p); there {
				t.Errorf("cut off at %s and begun again, %s is still there", where[n], p)
			}
		}
	}
}

// TestCompressLeaves: what it cannot do well it leaves, says so, and does the
// rest.
func TestCompressLeaves(t *testing.T) {
	random := make([]byte, 100_000)
	r := rand.New(rand.NewPCG(1, 2))
	for n := range random {
		random[n] = byte(r.Uint32())
	}
	for name, c := range map[string]struct {
		prepare func(*testing.T, *host)
		note    string
		also    string // another file that must stay as it is
	}{
		"another file has the copy's name": {
			prepare: func(_ *testing.T, h *host) { h.Put(logs[0]+".gz", []byte("not ours"), 0o600) },
			note:    "is there already and is not its copy", also: logs[0] + ".gz",
		},
		"a copy of something else has the copy's name": {
			prepare: func(_ *testing.T, h *host) { h.Put(logs[0]+".gz", packed("something else"), 0o600) },
			note:    "is there already and is not its copy", also: logs[0] + ".gz",
		},
		"it would be no smaller": {
			prepare: func(_ *testing.T, h *host) { h.Put(logs[0], random, 0o640) },
			note:    "no smaller",
		},
		"somebody still writes to it": {
			prepare: func(t *testing.T, h *host) {
				old, _ := read(t, h.ports, logs[0])
				h.OnStep(func(step, p string) {
					if step == "create" && strings.HasPrefix(p, logs[0]+".gz") {
						h.Put(logs[0], append(old, "one more line\n"...), 0o640)
					}
				})
			},
			note: "still being written to",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			c.prepare(t, h)
			before := tree(t.Context(), h.ports.Files, "/var/log")
			result, err := do(t, h.ports, "filesystem.compress_logs", nil)
			if err != nil || !strings.Contains(strings.Join(result.Notes, "\n"), c.note) {
				t.Errorf("%v, %v; want a note %q", result, err, c.note)
			}
			after := tree(t.Context(), h.ports.Files, "/var/log")
			if _, ok := after[logs[0]]; !ok {
				t.Errorf("%s went", logs[0])
			}
			if c.also != "" && after[c.also] != before[c.also] {
				t.Errorf("%s is no longer what it was", c.also)
			}
			if _, ok := unpacked(t, h.ports, logs[1]+".gz"); !ok {
				t.Errorf("%s was not compressed", logs[1])
			}
			for p := range after {
				if strings.Contains(p, "fettle") {
					t.Errorf("%s stays", p)
				}
			}
		})
	}
}
