package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
)

// hostTools are the commands that the lab runs on the machine, each with the Debian package that has it. Loop devices
// and file systems need none: the first are made by ioctl, the second by the hosts themselves.
var hostTools = []struct{ command, pkg string }{
	{"mmdebstrap", "mmdebstrap"},
	{"systemd-nspawn", "systemd-container"},
	{"nft", "nftables"},
	{"ip", "iproute2"},
	{"nsenter", "util-linux"},
	{"mount", "mount"},
	{"chroot", "coreutils"},
	{"sh", "dash"},
}

// MissingToolsError names the commands that this machine lacks, and the Debian packages that have them.
type MissingToolsError struct{ Commands, Packages []string }

func (e *MissingToolsError) Error() string {
	return fmt.Sprintf("lab: this machine has no %s: run \"apt-get install %s\", or set %s=1 to let the lab do it",
		strings.Join(e.Commands, ", "), strings.Join(e.Packages, " "), EnvInstall)
}

// missingTools looks the commands up with find, which is exec.LookPath except in tests.
func missingTools(find func(string) (string, error)) *MissingToolsError {
	var e MissingToolsError
	for _, t := range hostTools {
		if _, err := find(t.command); err != nil {
			e.Commands = append(e.Commands, t.command)
			if !slices.Contains(e.Packages, t.pkg) {
				e.Packages = append(e.Packages, t.pkg)
			}
		}
	}
	if e.Commands == nil {
		return nil
	}
	return &e
}

// EnsureHostTools checks that the machine can run a lab: root, and the commands of the list above. With
// FETTLE_LAB_INSTALL=1 it installs the missing packages by apt-get, which takes up to minutes; without it the error
// is a [*MissingToolsError].
func EnsureHostTools(ctx context.Context, progress io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("lab: needs root, for namespaces, mounts and loop devices: run it with sudo")
	}
	missing := missingTools(exec.LookPath)
	if missing == nil {
		return nil
	}
	if os.Getenv(EnvInstall) != "1" {
		return missing
	}
	fmt.Fprintf(progress, "lab: installing %s\n", strings.Join(missing.Packages, " "))
	install := append([]string{"install", "-y", "-q", "--no-install-recommends"}, missing.Packages...)
	for _, args := range [][]string{{"update", "-q"}, install} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("lab: apt-get %s: %w: %s", args[0], err, tail(string(out), 800))
		}
	}
	if missing = missingTools(exec.LookPath); missing != nil {
		return missing
	}
	return nil
}
