package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fettle/internal/act/probe"
	"fettle/internal/act/roster"
	"fettle/internal/machine"
	"fettle/internal/machine/linuxmachine"
)

// stateDir is where Fettle keeps what it must remember on this machine: root's
// is the system's, anybody else's is their own (XDG base directories).
func stateDir() string {
	if dir := os.Getenv("FETTLE_STATE"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/var/lib/fettle"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "fettle")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(os.TempDir(), fmt.Sprintf("fettle-%d", os.Geteuid()))
	}
	return filepath.Join(home, ".local/state/fettle")
}

// hostID returns the identity that was minted for this machine, minting one
// where there is none and it may be kept.
func hostID(dir string, keep bool) (string, error) {
	file := filepath.Join(dir, "host-id")
	data, err := os.ReadFile(file)
	if err == nil {
		return strings.TrimSpace(string(data)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) && keep {
		return "", fmt.Errorf("read this machine's identity: %w", err)
	}
	var b [8]byte
	rand.Read(b[:])
	id := "h" + hex.EncodeToString(b[:])
	if !keep {
		return id, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("keep this machine's identity: %w", err)
	}
	if err := os.WriteFile(file, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep this machine's identity: %w", err)
	}
	return id, nil
}

// adapterFolder is the flag for the folder of adapter configurations. The
// standard one need not be there; one that was named must.
type adapterFolder string

func (f *adapterFolder) flag(c *cobra.Command) {
	*f = configDir + "/adapters"
	c.Flags().Var(f, "adapters", "folder of adapter configurations")
}

// String implements pflag.Value.
func (f *adapterFolder) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *adapterFolder) Type() string { return "folder" }

// Set implements pflag.Value.
func (f *adapterFolder) Set(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	*f = adapterFolder(dir)
	return nil
}

// local is this machine with its adapters open.
type local struct {
	host   *linuxmachine.Host
	m      machine.Machine
	roster *roster.Roster
	runner *probe.Runner
}

// openLocal opens this machine. With keep, its identity and what it must
// remember are kept in dir; without, nothing is written.
func (a *app) openLocal(ctx context.Context, dir, configs string, keep bool) (*local, error) {
	id, err := hostID(dir, keep)
	if err != nil {
		return nil, err
	}
	cfg := linuxmachine.Config{Host: id}
	if keep {
		cfg.StateDir = dir
	}
	host, err := linuxmachine.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	l := &local{host: host, m: host.Ports()}
	if l.roster, err = roster.Open(ctx, a.Adapters, l.m, configs); err != nil {
		err = fmt.Errorf("%s\nhint: mend the file, or move it away: then what the adapter finds by itself holds", strings.TrimRight(err.Error(), "\n"))
		return nil, errors.Join(&Exit{Code: ExitUsage, Err: err}, host.Close())
	}
	l.runner, err = probe.New(probe.Options{Instances: l.roster.Instances, Clock: l.m.Clock, Host: l.m.Identity.Host})
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (l *local) close() error { return errors.Join(l.roster.Close(), l.host.Close()) }

// sleep waits on the machine's clock.
func (l *local) sleep(ctx context.Context, d time.Duration) error {
	timer, stop := l.m.Clock.After(d)
	defer stop()
	select {
	case <-timer:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
