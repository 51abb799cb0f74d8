package filesystem

import (
	"fmt"
	"path"
	"strings"
	"syscall"

	"github.com/goccy/go-yaml"
)

// Config is the adapter's configuration. The zero value looks at every local
// disk filesystem.
type Config struct {
	// Types are the filesystem types that are looked at; none: ext2, ext3,
	// ext4, xfs, btrfs.
	Types []string `yaml:"types"`
	// Ignore are mount points that are not.
	Ignore []string `yaml:"ignore"`
	// JournalDirs are where the system journal is; none: /var/log/journal.
	JournalDirs []string `yaml:"journal_dirs"`
	// PackageCaches are folders of downloaded packages; none:
	// /var/cache/apt/archives.
	PackageCaches []string `yaml:"package_caches"`
	// LogDirs are where rotated logs are; none: /var/log.
	LogDirs []string `yaml:"log_dirs"`
	// Reopen names the signal on which a unit reopens its log files, besides
	// those that are known.
	Reopen map[string]string `yaml:"reopen"`
}

// knownReopen are daemons whose manual pages promise to reopen their logs on a
// signal.
var knownReopen = map[string]syscall.Signal{
	"nginx.service":     syscall.SIGUSR1,
	"rsyslog.service":   syscall.SIGHUP,
	"syslog-ng.service": syscall.SIGHUP,
	"haproxy.service":   syscall.SIGUSR1,
}

var signals = map[string]syscall.Signal{"HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2}

// ParseConfig reads YAML, strictly. The error has line, column and excerpt.
func ParseConfig(src []byte) (Config, error) {
	var c Config
	if len(src) > 0 {
		if err := yaml.UnmarshalWithOptions(src, &c, yaml.Strict()); err != nil {
			return Config{}, fmt.Errorf("filesystem configuration: %w", err)
		}
	}
	or := func(list *[]string, standard ...string) {
		if len(*list) == 0 {
			*list = standard
		}
	}
	or(&c.Types, "ext2", "ext3", "ext4", "xfs", "btrfs")
	or(&c.JournalDirs, "/var/log/journal")
	or(&c.PackageCaches, "/var/cache/apt/archives")
	or(&c.LogDirs, "/var/log")
	for _, dirs := range [][]string{c.JournalDirs, c.PackageCaches, c.LogDirs, c.Ignore} {
		for _, d := range dirs {
			if !strings.HasPrefix(d, "/") {
				return Config{}, fmt.Errorf("filesystem configuration: %q is not an absolute path", d)
			}
		}
	}
	for _, dirs := range [][]string{c.JournalDirs, c.PackageCaches, c.LogDirs} {
		for n, d := range dirs {
			if dirs[n] = path.Clean(d); dirs[n] == "/" {
				return Config{}, fmt.Errorf("filesystem configuration: %q is everything; name the folder that holds nothing else", d)
			}
		}
	}
	for unit, name := range c.Reopen {
		if _, ok := signals[strings.TrimPrefix(name, "SIG")]; !ok {
			return Config{}, fmt.Errorf("filesystem configuration: reopen %s: signal %q; known: HUP, USR1, USR2", unit, name)
		}
	}
	return c, nil
}

// reopenSignal returns the signal on which a unit reopens its files.
func (c Config) reopenSignal(unit string) (syscall.Signal, bool) {
	if name, ok := c.Reopen[unit]; ok {
		return signals[strings.TrimPrefix(name, "SIG")], true
	}
	s, ok := knownReopen[unit]
	return s, ok
}
