package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// Adapter implements machine.Adapter. Instances opened by one value, for members
// of one cluster on one machine, share what they know of it. The zero value is
// ready; it must not be copied.
type Adapter struct {
	mu       sync.Mutex
	clusters map[clusterKey]*cluster
}

type clusterKey struct {
	host   fettle.Subject
	system string
	tls    TLS
}

var _ machine.Adapter = (*Adapter)(nil)

// New returns an adapter.
func New() *Adapter { return &Adapter{} }

// Catalogue implements machine.Adapter.
func (*Adapter) Catalogue() fettle.Catalogue { return Catalogue() }

// maxSettings bounds a file of settings.
const maxSettings = 1 << 20

// Open implements machine.Adapter. It reads the member's settings and the
// certificates, and connects to nothing. Settings that cannot be read are an
// error only when something is missing without them.
func (a *Adapter) Open(ctx context.Context, m machine.Machine, config []byte) (fettle.Instance, error) {
	c, err := ParseConfig(config)
	if err != nil {
		return nil, err
	}
	settings, unread := readSettings(ctx, m.Files, c)
	if c, err = c.complete(settings); err != nil {
		return nil, errors.Join(err, unread)
	}
	t, err := loadTLS(ctx, m.Files, c.TLS)
	if err != nil {
		return nil, err
	}
	in := &instance{
		m: m, config: c,
		member: fettle.NewSubject(KindMember, c.System, c.Name),
		unit:   fettle.NewSubject(fettle.KindUnit, m.Identity.Host.Name(), c.Unit),
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	key := clusterKey{m.Identity.Host, c.System, c.TLS}
	cl := a.clusters[key]
	if cl == nil {
		cl = newCluster(c.System, m, newDialer(t))
		if a.clusters == nil {
			a.clusters = map[clusterKey]*cluster{}
		}
		a.clusters[key] = cl
	}
	if err := cl.join(in); err != nil {
		return nil, err
	}
	in.cluster = cl
	in.leave = func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if !cl.leave(in) {
			return nil
		}
		delete(a.clusters, key)
		return cl.dial.close()
	}
	return in, nil
}

// readSettings reads the member's own settings, where the configuration says
// where they are.
func readSettings(ctx context.Context, files machine.Files, c Config) (Settings, error) {
	file, parse := c.EnvFile, SettingsFromEnvironment
	if c.ConfigFile != "" {
		file, parse = c.ConfigFile, SettingsFromYAML
	}
	if file == "" {
		return nil, nil
	}
	data, err := files.ReadFile(ctx, file, maxSettings)
	if err != nil {
		hint := "is it the right file?"
		if errors.Is(err, fs.ErrPermission) {
			hint = "the adapter needs to read it"
		}
		return nil, fmt.Errorf("the member's settings: %w (%s)", err, hint)
	}
	s, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("the member's settings: %s: %w", file, err)
	}
	return s, nil
}

// instance is one member on this machine.
type instance struct {
	m       machine.Machine
	config  Config
	cluster *cluster
	member  fettle.Subject
	unit    fettle.Subject
	leave   func() error

	mu      sync.Mutex // of what is remembered below
	checked dataCheck
	meter   meter
	mounts  mountMemory
	closed  bool
}

// Probes implements fettle.Instance.
func (in *instance) Probes() []fettle.Probe {
	return []fettle.Probe{localLooker{in}, memberLooker{in.cluster}, clusterLooker{in.cluster}, hashLooker{in.cluster}}
}

// Watchers implements fettle.Instance.
func (in *instance) Watchers() []fettle.Watcher {
	return []fettle.Watcher{localWatcher{in}, clusterWatcher{in}}
}

// Actions implements fettle.Instance. Each action does also for the other members
// of the cluster on this machine, whichever instance it came from.
func (in *instance) Actions() map[string]fettle.Action {
	c := in.cluster
	return map[string]fettle.Action{
		"etcd.start":         start{c},
		"etcd.stop":          stop{c},
		"etcd.move_leader":   moveLeader{c},
		"etcd.member_remove": memberRemove{c},
		"etcd.set_aside":     setAside{c},
		"etcd.member_add":    memberAdd{c},
		"etcd.configure":     configure{c},
		"etcd.promote":       promote{c},
		"etcd.snapshot":      snapshot{c},
		"etcd.compact":       compact{c},
		"etcd.defrag":        defrag{c},
		"etcd.disarm":        disarm{c},
		"etcd.restore":       restore{c},
	}
}

// Faults implements fettle.Instance.
func (in *instance) Faults() map[string]fettle.Fault {
	c := in.cluster
	return map[string]fettle.Fault{
		"etcd.kill":       killFault{c},
		"etcd.wipe":       wipeFault{c},
		"etcd.damage_wal": damageFault{c},
		"etcd.flip":       flipFault{c},
		"etcd.fill_quota": fillFault{c},
	}
}

// Owns reports whether the subject is of this instance: its member, or the
// cluster. Where several instances on one machine have the same action, it tells
// which one is meant; any of them will do, though.
func (in *instance) Owns(s fettle.Subject) bool {
	return s == in.member || s == in.cluster.subject
}

// Close implements fettle.Instance.
func (in *instance) Close() error {
	in.mu.Lock()
	closed := in.closed
	in.closed = true
	in.mu.Unlock()
	if closed {
		return nil
	}
	return in.leave()
}

// join adds a member of this machine.
func (c *cluster) join(in *instance) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, other := range c.local {
		if other.config.Name == in.config.Name {
			return fmt.Errorf("etcd configuration: member %s of %s is configured twice on this machine", in.config.Name, c.system)
		}
	}
	c.local = append(c.local, in)
	slices.SortFunc(c.local, func(a, b *instance) int { return compareText(a.config.Name, b.config.Name) })
	c.nameOf[in.config.PeerURL] = in.config.Name
	c.clientOf[in.config.Name] = in.config.ClientEndpoint
	c.peerOf[in.config.Name] = in.config.PeerURL
	for _, name := range sortedKeys(in.config.Peers) {
		p := in.config.Peers[name]
		if c.nameOf[p.PeerURL] == "" {
			c.nameOf[p.PeerURL] = name
		}
		if c.peerOf[name] == "" {
			c.peerOf[name] = p.PeerURL
		}
		if p.ClientURL != "" && c.clientOf[name] == "" {
			c.clientOf[name] = p.ClientURL
		}
	}
	return nil
}

// leave takes a member of this machine away and reports whether none is left.
func (c *cluster) leave(in *instance) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.local = slices.DeleteFunc(c.local, func(i *instance) bool { return i == in })
	return len(c.local) == 0
}

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
