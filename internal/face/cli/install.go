package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"fettle/internal/face/show"
)

// packagedBinary is what the packaged units call the program.
const packagedBinary = "/usr/bin/fettle"

// installed says which units a part of Fettle is.
func installed(part string) ([]string, bool) {
	units, ok := map[string][]string{
		"agent":  {"fettle-executor.service", "fettle-agent.service"},
		"server": {"fettle-server.service"},
	}[part]
	return units, ok
}

func (a *app) installCommand() *cobra.Command {
	var root, binary string
	var force bool
	c := &cobra.Command{
		Use: "install agent|server…", Short: "Write the systemd units and accounts of a part",
		Long: `Writes the hardened units of an agent (two: the agent without root, and the
executor) or of a server, and what systemd-sysusers needs to make their
accounts. It starts nothing; it says what to do next. A unit that somebody has
changed is left alone, unless --force.`,
		Example: "  sudo fettle install agent\n  sudo fettle install server --binary /usr/local/bin/fettle", Args: cobra.MinimumNArgs(1), ValidArgs: []string{"agent", "server"},
		RunE: func(_ *cobra.Command, parts []string) error {
			if binary == "" {
				var err error
				if binary, err = os.Executable(); err != nil {
					return fmt.Errorf("this program's own path: %w (name it with --binary)", err)
				}
			}
			files := map[string]string{filepath.Join(root, "etc/sysusers.d/fettle.conf"): "fettle.conf"}
			for _, part := range parts {
				units, ok := installed(part)
				if !ok {
					return exit(ExitUsage, "unknown part %q; known: agent, server", part)
				}
				for _, u := range units {
					files[filepath.Join(root, "etc/systemd/system", u)] = u
				}
			}
			wrote := []string{}
			for _, path := range slices.Sorted(maps.Keys(files)) {
				fresh, err := a.installFile(path, files[path], binary, force)
				if err != nil {
					return err
				}
				if fresh {
					wrote = append(wrote, path)
				}
			}
			return a.print(map[string][]string{"wrote": wrote}, func(p *show.Printer) {
				for _, path := range wrote {
					p.Line("wrote %s", path)
				}
				p.Line("next: systemd-sysusers; systemctl daemon-reload")
				for _, part := range parts {
					switch part {
					case "agent":
						p.Line("      fettle join --user %s TOKEN; systemctl enable --now fettle-executor fettle-agent", agentAccount)
					case "server":
						p.Line("      ARGS=--listen ADDRESS in /etc/default/fettle-server; systemctl enable --now fettle-server")
					}
				}
			})
		},
	}
	c.Flags().StringVar(&root, "root", "/", "folder to install into")
	c.Flags().StringVar(&binary, "binary", "", "the program's path in the units (default: this one's)")
	c.Flags().BoolVar(&force, "force", false, "also replace what somebody has changed")
	return c
}

// installFile writes one file, and says whether it did.
func (a *app) installFile(path, name, binary string, force bool) (bool, error) {
	text, err := fs.ReadFile(a.Units, name)
	if err != nil {
		return false, fmt.Errorf("install %s: %w", name, err)
	}
	text = bytes.ReplaceAll(text, []byte(packagedBinary+" "), []byte(strings.ReplaceAll(binary, "%", "%%")+" "))
	have, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(have, text):
		return false, nil
	case err == nil && !force:
		return false, exit(ExitIll, "%s is there and is another; it is left alone (--force replaces it)", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("install %s: %w", name, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, fmt.Errorf("install %s: %w", name, err)
	}
	if err := renameio.WriteFile(path, text, 0o644); err != nil {
		return false, fmt.Errorf("install %s: %w", name, err)
	}
	return true, nil
}
