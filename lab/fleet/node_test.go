//go:build lab

package fleet_test

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fettle/internal/fleet/member"
)

// nodeWord as the first argument makes this test binary a gossip node.
const nodeWord = "gossip-node"

// nodePath is where it is in a host.
const nodePath = "/usr/local/bin/gossip-node"

// built is this test binary, static, to be copied into hosts.
var built string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == nodeWord {
		if err := runNode(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "fettle-lab-fleet-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built = filepath.Join(dir, "node")
	// The hosts may have another C library than this machine, or none that fits.
	cmd := exec.CommandContext(context.Background(), "go", "test", "-c", "-tags", "lab", "-o", built, "fettle/lab/fleet")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the node: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// secret is the ring's key. The lab has no way out.
var secret = []byte("lab-only-lab-only-lab-only-lab-o")

// runNode is a host's gossip node: arguments host, address, seeds. It writes a line for
// each event: time in nanoseconds, kind, host, what was seen, how many are here.
func runNode(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: %s HOST ADDRESS SEED…", nodeWord)
	}
	bind, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return fmt.Errorf("address: %w", err)
	}
	var seeds []netip.AddrPort
	for _, s := range args[2:] {
		seed, err := netip.ParseAddrPort(s)
		if err != nil {
			return fmt.Errorf("seed: %w", err)
		}
		seeds = append(seeds, seed)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	keys, err := member.NewKeys(secret)
	if err != nil {
		return err
	}
	n, err := member.New(member.Options{
		Self: member.Label{Host: args[0], Zone: "lab", Rack: args[0], Incarnation: fmt.Sprint(os.Getpid(), "-", time.Now().UnixNano()), BootID: strings.TrimSpace(string(boot))},
		Ring: "lab", Bind: bind, Keys: keys, Settings: member.Settings{Events: 4096},
		Seeds: func() []netip.AddrPort { return seeds },
	})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	health := time.NewTicker(2 * time.Second)
	defer health.Stop()
	for {
		select {
		case e := <-n.Events():
			here := 0
			for _, m := range n.Members() {
				if m.State == member.Here {
					here++
				}
			}
			fmt.Println(e.At.UnixNano(), e.Kind, e.Member.Label.Host, e.Member.Saw, here)
		case now := <-health.C:
			h := n.Health()
			fmt.Printf("%d health - score=%d,delay=%s,rtt=%s,loss=%d,silence=%s,spread=%s 0\n", now.UnixNano(), h.Score, h.OwnDelay, h.RoundTrip, h.Loss, h.Silence, h.Spread.Worst)
		case err := <-done:
			return err
		}
	}
}
