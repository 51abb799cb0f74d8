package systemd

import (
	"fmt"
	"net"
	"net/url"
	"path"

	"github.com/goccy/go-yaml"
)

// Config is the adapter's configuration. Its zero value looks after every
// service that is enabled or was active since boot, and probes nothing.
type Config struct {
	// Units are patterns (path.Match) of what is looked at; none: "*.service".
	Units []string `yaml:"units"`
	// Ignore are patterns of what is not.
	Ignore []string `yaml:"ignore"`
	// ShouldRun names units that should run although they are not enabled.
	ShouldRun []string `yaml:"should_run"`
	// Health are addresses that answer while a unit is well.
	Health []Health `yaml:"health"`
}

// Health is one unit's address: a TCP address or an http URL, on this machine.
type Health struct {
	Unit string `yaml:"unit"`
	TCP  string `yaml:"tcp"`
	HTTP string `yaml:"http"`
}

// ParseConfig reads YAML, strictly. The error has line, column and excerpt.
func ParseConfig(src []byte) (Config, error) {
	var c Config
	if len(src) > 0 {
		if err := yaml.UnmarshalWithOptions(src, &c, yaml.Strict()); err != nil {
			return Config{}, fmt.Errorf("systemd configuration: %w", err)
		}
	}
	if len(c.Units) == 0 {
		c.Units = []string{"*.service"}
	}
	for _, p := range append(append([]string(nil), c.Units...), c.Ignore...) {
		if _, err := path.Match(p, ""); err != nil {
			return Config{}, fmt.Errorf("systemd configuration: pattern %q is malformed; use *, ? and [a-z]", p)
		}
	}
	for _, h := range c.Health {
		if err := h.check(); err != nil {
			return Config{}, fmt.Errorf("systemd configuration: health of %q: %w", h.Unit, err)
		}
	}
	return c, nil
}

func (h Health) check() error {
	if h.Unit == "" || (h.TCP == "") == (h.HTTP == "") {
		return fmt.Errorf("want a unit and one of tcp and http")
	}
	if h.TCP != "" {
		if _, _, err := net.SplitHostPort(h.TCP); err != nil {
			return fmt.Errorf("tcp %q: want host:port", h.TCP)
		}
		return nil
	}
	if u, err := url.Parse(h.HTTP); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("http %q: want http://host:port/path", h.HTTP)
	}
	return nil
}

func (c Config) wants(name string) bool {
	return matches(c.Units, name) && !matches(c.Ignore, name)
}

func matches(patterns []string, name string) bool {
	for _, p := range patterns {
		if ok, err := path.Match(p, name); err == nil && ok {
			return true
		}
	}
	return false
}
