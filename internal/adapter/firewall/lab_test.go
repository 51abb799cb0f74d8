//go:build lab

package firewall_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/adapter/adaptertest"
	"fettle/internal/adapter/firewall"
	"fettle/internal/fettle"
	"fettle/internal/machine/linuxmachine"
	"fettle/runbooks"
)

// inside says that this process is in a network namespace of its own.
const inside = "FETTLE_TEST_NETNS"

// real runs nft on the kernel.
func real(t testing.TB, script string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "nft", args...)
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v: %s", args, err, out)
	}
	return string(out)
}

// TestLabAdapter asks everything of the adapter again, on the kernel's own packet
// filter, in a process with a network namespace of its own.
func TestLabAdapter(t *testing.T) {
	if os.Getenv(inside) == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "unshare", "--net", "--", self, "-test.run=^TestLabAdapter$|^TestLabWatch$", "-test.v", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), inside+"=yes")
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Count(string(out), "--- PASS") < 3 {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	kept := filepath.Join(t.TempDir(), "nftables.conf")
	fresh := func(t *testing.T) adaptertest.Rig {
		if err := os.WriteFile(kept, []byte(persisted), 0o600); err != nil {
			t.Fatal(err)
		}
		real(t, "", "-f", kept)
		m, err := linuxmachine.Open(t.Context(), linuxmachine.Config{Host: "h1"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		return adaptertest.Rig{
			Adapter: firewall.Adapter{}, Machine: m.Ports(), Config: fmt.Appendf(nil, "file: %s\n", kept), Canary: canary,
			State: func(context.Context) string { return real(t, "", "-s", "list", "ruleset") }, Settle: func(context.Context) {},
		}
	}
	adaptertest.Run(t, adaptertest.Suite{
		New:   fresh,
		Books: adaptertest.Books(runbooks.FS(), firewall.Adapter{}),
		Actions: []adaptertest.ActionCase{{
			Action: "firewall.restore", Target: subject,
			Prepare: func(ctx context.Context, t *testing.T, r adaptertest.Rig) []fettle.Generation {
				real(t, byHand, "-f", "-")
				real(t, "table inet mine {\n\tset s {\n\t\ttype ipv4_addr\n\t\tflags timeout\n\t\telements = { 10.0.0.1 timeout 1h }\n\t}\n\tchain c {\n\t\ttype filter hook input priority 5; policy accept;\n\t\tip saddr @s drop comment \"a { b\"\n\t}\n}\n", "-f", "-")
				in, err := r.Adapter.Open(ctx, r.Machine, r.Config)
				if err != nil {
					t.Fatal(err)
				}
				o := look(t, in)
				return []fettle.Generation{{Subject: subject, Fact: "live_hash", Value: o.Facts["live_hash"]}, {Subject: subject, Fact: "persisted_hash", Value: o.Facts["persisted_hash"]}}
			},
			Times: func(context.Context) int {
				return 1 - strings.Count(real(t, "", "-s", "list", "ruleset"), "dport 2380 drop")
			},
		}},
		Faults: []adaptertest.FaultCase{{Fault: "firewall.drop", Target: subject, Params: fettle.Facts{"port": int64(2380)}}},
		Excused: map[string]string{
			"hang":      "nft asks the kernel, which answers; that a hung one is unknown is shown without it",
			"read-only": "whoever may list may change here; that missing rights are called so is shown without it",
		},
	})
}

// TestLabWatch: the kernel tells of a change and of who made it.
func TestLabWatch(t *testing.T) {
	if os.Getenv(inside) == "" {
		return // TestLabAdapter runs it
	}
	kept := filepath.Join(t.TempDir(), "nftables.conf")
	if err := os.WriteFile(kept, []byte(persisted), 0o600); err != nil {
		t.Fatal(err)
	}
	real(t, "", "-f", kept)
	m, err := linuxmachine.Open(t.Context(), linuxmachine.Config{Host: "h1"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	in, err := firewall.Adapter{}.Open(t.Context(), m.Ports(), fmt.Appendf(nil, "file: %s\n", kept))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	seen := make(chan fettle.Observation, 64)
	ended := make(chan error, 1)
	go func() { ended <- in.Watchers()[0].Watch(ctx, func(o fettle.Observation) { seen <- o }) }()
	await := func(differs bool) fettle.Observation {
		for {
			select {
			case o := <-seen:
				if o.Facts["differs"] == differs {
					return o
				}
			case <-ctx.Done():
				t.Fatalf("it was not told that it differs: %v", differs)
			}
		}
	}
	await(false)
	real(t, byHand, "-f", "-")
	if o := await(true); !strings.HasPrefix(fmt.Sprint(o.Facts["changed_by"]), "nft (process ") {
		t.Errorf("changed by %v", o.Facts["changed_by"])
	}
	real(t, "", "-f", kept)
	await(false)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
