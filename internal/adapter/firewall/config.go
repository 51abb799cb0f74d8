package firewall

import (
	"fmt"
	"path"
	"strings"

	"github.com/goccy/go-yaml"
)

// defaultFile is what nftables.service loads at boot in Debian, Fedora and Arch.
const defaultFile = "/etc/nftables.conf"

// defaultIgnore are tables that other programs make and change by themselves while
// they run, so that no file can say how they should be.
var defaultIgnore = []string{"* f2b-table", "* fail2ban*", "* *docker*", "* *libvirt*", "* kube-*", "* firewalld", "* crowdsec*", "* lxd", "* incus*"}

// Config is the adapter's configuration. The zero value compares with
// /etc/nftables.conf.
type Config struct {
	// File is the persisted ruleset that is the truth, as nft -f takes it.
	File string `yaml:"file"`
	// Ignore are patterns (path.Match) of tables, "FAMILY NAME", that are neither
	// looked at nor touched; none: those of well-known programs that manage their own.
	Ignore []string `yaml:"ignore"`
}

// ParseConfig reads YAML, strictly. The error has line, column and excerpt.
func ParseConfig(src []byte) (Config, error) {
	var c Config
	if len(src) > 0 {
		if err := yaml.UnmarshalWithOptions(src, &c, yaml.Strict()); err != nil {
			return Config{}, fmt.Errorf("firewall configuration: %w", err)
		}
	}
	if c.File == "" {
		c.File = defaultFile
	}
	// It becomes a quoted word of an nft script, which knows no escapes.
	if !path.IsAbs(c.File) || strings.ContainsAny(c.File, "\"\n\r*?[") {
		return Config{}, fmt.Errorf("firewall configuration: file %q: want an absolute path without quotes and wildcards", c.File)
	}
	if c.Ignore == nil {
		c.Ignore = defaultIgnore
	}
	for _, p := range c.Ignore {
		if _, err := path.Match(p, ""); err != nil {
			return Config{}, fmt.Errorf("firewall configuration: pattern %q is malformed; use *, ? and [a-z], as in \"ip docker*\"", p)
		}
	}
	return c, nil
}

// ignores reports whether a table is none of ours.
func (c Config) ignores(table string) bool {
	for _, p := range c.Ignore {
		if ok, err := path.Match(p, table); err == nil && ok {
			return true
		}
	}
	return false
}
