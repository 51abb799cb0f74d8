package etcd

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// Config is the adapter's configuration: one member on this machine. The zero
// value is refused: without a member's name there is nothing to look after.
type Config struct {
	// System is the cluster's name, the same on all its machines: the root of
	// its subjects. Left out: the cluster's token.
	System string `yaml:"system"`
	// Name is the member's, as ETCD_NAME.
	Name string `yaml:"name"`
	// Unit is the service that it runs as.
	Unit string `yaml:"unit"`

	DataDir string `yaml:"data_dir"`
	// WALDir is where the write-ahead log is, where it is not in the data
	// directory. Such a member is watched, and started, but not replaced.
	WALDir string `yaml:"wal_dir"`
	// EnvFile or ConfigFile is where the member's settings are; the other is
	// empty. EnvFile has systemd's EnvironmentFile= syntax.
	EnvFile    string `yaml:"env_file"`
	ConfigFile string `yaml:"config_file"`

	// ClientEndpoint is the URL at which this member answers its clients, PeerURL
	// the one that it advertises to the others.
	ClientEndpoint string `yaml:"client_endpoint"`
	PeerURL        string `yaml:"peer_url"`
	// Peers are the other members as far as they are known beforehand; the rest
	// is learned from the cluster.
	Peers map[string]Peer `yaml:"peers"`

	TLS TLS `yaml:"tls"`

	// SnapshotDir is where snapshots are written; left out: fettle-snapshots beside
	// the data directory. AsideDir is where data that gives way is moved to, on the
	// data directory's own filesystem; left out: fettle-aside beside the data
	// directory, or inside of it where it is a mount point.
	SnapshotDir string `yaml:"snapshot_dir"`
	AsideDir    string `yaml:"aside_dir"`
}

// Peer is another member.
type Peer struct {
	PeerURL   string `yaml:"peer_url"`
	ClientURL string `yaml:"client_url"`
}

// TLS are paths of files in PEM: the authority that the members' certificates
// are checked with, and the certificate and key that the adapter shows.
type TLS struct {
	CA   string `yaml:"ca"`
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// ParseConfig reads YAML, strictly. The error has line, column and excerpt. What
// is left out may still be in the member's own settings: see complete.
func ParseConfig(src []byte) (Config, error) {
	var c Config
	if len(src) > 0 {
		if err := yaml.UnmarshalWithOptions(src, &c, yaml.Strict()); err != nil {
			return Config{}, fmt.Errorf("etcd configuration: %w", err)
		}
	}
	if c.EnvFile != "" && c.ConfigFile != "" {
		return Config{}, errors.New("etcd configuration: env_file and config_file: a member takes its settings from one of them; name that one")
	}
	return c, nil
}

// complete fills what was left out from the member's own settings, then from
// etcd's defaults, and checks the whole.
func (c Config) complete(s Settings) (Config, error) {
	from := func(field *string, name, otherwise string) {
		if *field == "" {
			*field = s[name]
		}
		if *field == "" {
			*field = otherwise
		}
	}
	from(&c.Name, "name", "")
	from(&c.System, "initial-cluster-token", "etcd-cluster")
	from(&c.DataDir, "data-dir", "")
	from(&c.WALDir, "wal-dir", "")
	if c.Unit == "" {
		c.Unit = "etcd.service"
	}
	if c.ClientEndpoint == "" {
		c.ClientEndpoint = firstURL(s["advertise-client-urls"], firstURL(s["listen-client-urls"], "http://127.0.0.1:2379"))
	}
	if c.PeerURL == "" {
		c.PeerURL = firstURL(s["initial-advertise-peer-urls"], "http://127.0.0.1:2380")
	}
	peers := map[string]Peer{}
	for name, urls := range s.initialCluster() {
		peers[name] = Peer{PeerURL: urls[0]}
	}
	// any order: each name is put under itself
	for name, p := range c.Peers {
		if p.PeerURL == "" {
			p.PeerURL = peers[name].PeerURL
		}
		peers[name] = p
	}
	delete(peers, c.Name)
	c.Peers = peers
	parent := path.Dir(path.Clean(c.DataDir))
	if c.SnapshotDir == "" {
		c.SnapshotDir = path.Join(parent, "fettle-snapshots")
	}
	return c, c.check()
}

func firstURL(list, otherwise string) string {
	for _, u := range strings.Split(list, ",") {
		if u = strings.TrimSpace(u); u != "" {
			return u
		}
	}
	return otherwise
}

func (c Config) check() error {
	bad := func(field, format string, args ...any) error {
		return fmt.Errorf("etcd configuration: %s: %s", field, fmt.Sprintf(format, args...))
	}
	switch {
	case c.Name == "":
		return bad("name", "which member is it? Give its ETCD_NAME here, or the env_file or config_file that has it")
	case strings.ContainsAny(c.Name+c.System, ",= \t\n"):
		return bad("name", "%q of %q: want no blank, comma or '='", c.Name, c.System)
	case path.Ext(c.Unit) != ".service" || strings.ContainsRune(c.Unit, '/'):
		return bad("unit", "%q: want the name of a service, for example etcd.service", c.Unit)
	case (c.TLS.Cert == "") != (c.TLS.Key == ""):
		return bad("tls", "cert and key go together")
	}
	for _, f := range []struct{ field, path string }{
		{"data_dir", c.DataDir}, {"wal_dir", c.WALDir}, {"snapshot_dir", c.SnapshotDir}, {"env_file", c.EnvFile}, {"config_file", c.ConfigFile},
		{"aside_dir", c.AsideDir}, {"tls.ca", c.TLS.CA}, {"tls.cert", c.TLS.Cert}, {"tls.key", c.TLS.Key},
	} {
		if f.path == "" && f.field != "data_dir" {
			continue
		}
		if !path.IsAbs(f.path) {
			return bad(f.field, "%q: want an absolute path", f.path)
		}
	}
	urls := []struct{ field, text string }{{"client_endpoint", c.ClientEndpoint}, {"peer_url", c.PeerURL}}
	for _, name := range sortedKeys(c.Peers) {
		p := c.Peers[name]
		urls = append(urls, struct{ field, text string }{"peers." + name + ".peer_url", p.PeerURL})
		if p.ClientURL != "" {
			urls = append(urls, struct{ field, text string }{"peers." + name + ".client_url", p.ClientURL})
		}
	}
	for _, u := range urls {
		if err := checkURL(u.text); err != nil {
			return bad(u.field, "%v", err)
		}
	}
	return nil
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || !slices.Contains([]string{"http", "https"}, u.Scheme) || u.Host == "" || u.Port() == "" {
		return fmt.Errorf("%q: want http:// or https://, host and port", text)
	}
	return nil
}
