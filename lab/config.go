package lab

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// Environment variables that place a lab. They are read once, when a [Config] is completed.
const (
	EnvDir     = "FETTLE_LAB_DIR"     // where the labs' folders are; not on an overlay file system
	EnvCache   = "FETTLE_LAB_CACHE"   // where images are kept between runs
	EnvInstall = "FETTLE_LAB_INSTALL" // "1" lets EnsureHostTools install missing Debian packages
	EnvMirror  = "FETTLE_LAB_MIRROR"  // a mirror for the image, where /etc/apt names none for its suite
)

// MaxHosts is what fits: the addresses .1 to .200 of a /24, and machine names that fit a network interface's name.
const MaxHosts = 200

// Config says what lab to start. The zero value is a lab of no hosts with a made-up name, and is refused by [Start].
type Config struct {
	Name        string        // [a-z0-9-], at most 30; empty: a fresh name
	Hosts       int           // 1 to MaxHosts; they are called h1, h2, …
	Image       Image         // zero: DefaultImage()
	Off         bool          // leave the hosts switched off; the caller boots them
	BootTimeout time.Duration // per host, until its systemd says that start-up is finished; 0: 90 s
	Progress    io.Writer     // one line for each slow thing that is being done; nil: silent

	Dir      string // overrides EnvDir
	CacheDir string // overrides EnvCache
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,29}$`)

func (c Config) complete() (Config, error) {
	if c.Hosts < 1 || c.Hosts > MaxHosts {
		return c, fmt.Errorf("lab: %d hosts asked for: give a number from 1 to %d", c.Hosts, MaxHosts)
	}
	if c.Name == "" {
		var b [4]byte
		rand.Read(b[:]) // never fails, by its documentation
		c.Name = "lab-" + hex.EncodeToString(b[:])
	}
	if err := checkName(c.Name); err != nil {
		return c, err
	}
	if c.Image.Suite == "" && len(c.Image.Packages) == 0 {
		c.Image = DefaultImage()
	}
	if c.BootTimeout <= 0 {
		c.BootTimeout = 90 * time.Second
	}
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	c.Dir, c.CacheDir = labDir(c.Dir), cacheDir(c.CacheDir)
	return c, nil
}

func checkName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("lab: name %q: use 1 to 30 of a-z, 0-9 and '-', not starting with '-'", name)
	}
	return nil
}

func labDir(dir string) string {
	return filepath.Clean(cmp.Or(dir, os.Getenv(EnvDir), "/var/lib/fettle-lab"))
}

func cacheDir(dir string) string {
	return filepath.Clean(cmp.Or(dir, os.Getenv(EnvCache), "/var/cache/fettle-lab"))
}
