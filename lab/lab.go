package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// closeDeadline bounds the end of a lab, of which the slowest part is the removal of the hosts' files.
const closeDeadline = 2 * time.Minute

// Lab is a running lab. Its methods may be called at once by several goroutines. It belongs to the process that started
// it and ends with it; other processes reach it through [Open].
type Lab struct {
	cfg    Config
	dir    string
	number int
	prefix netip.Prefix
	image  string
	group  cgroup
	held   *os.File // the lock of the lab's folder
	anchor *anchor
	hosts  []*Host
	net    *network

	mu      sync.Mutex
	closing bool
	wg      sync.WaitGroup // all that the lab started
	ended   chan struct{}  // closed when Close has finished
	errs    error          // of Close; valid after ended
	stop    context.CancelFunc
	life    context.Context // ends when Close begins
}

// Start builds or finds the image, sweeps dead labs, makes a new lab and boots its hosts, all at once. It returns when
// every host's systemd has reported that start-up is finished and its address is set, or with an error and nothing left
// behind. The first call on a machine takes one to two minutes more, for the image; ctx bounds all of it. Ending ctx
// afterwards does not end the lab: [Lab.Close] does.
func Start(ctx context.Context, cfg Config) (*Lab, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	if err := EnsureHostTools(ctx, cfg.Progress); err != nil {
		return nil, err
	}
	if err := suitable(cfg.Dir); err != nil {
		return nil, err
	}
	image, err := cfg.Image.Ensure(ctx, cfg.CacheDir, cfg.Progress)
	if err != nil {
		return nil, err
	}
	l, err := reserve(ctx, cfg, image)
	if err != nil {
		return nil, err
	}
	if err := l.up(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// suitable refuses a folder whose file system cannot be the writable layer of an overlay.
func suitable(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("lab: %w: set %s to a folder that can be written", err, EnvDir)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("lab: look at the file system of %s: %w", dir, err)
	}
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return fmt.Errorf("lab: %s is on an overlay file system, which cannot carry the hosts' overlays: set %s to a folder on a disk or a volume", dir, EnvDir)
	}
	// The longest path that must fit the 108 bytes of a unix socket's address (unix(7)).
	if long := filepath.Join(dir, "lab-of-thirty-characters-name-x", "h200", "notify"); len(long) > 107 {
		return fmt.Errorf("lab: the path of %s is too long for the sockets in it: set %s to a shorter one", dir, EnvDir)
	}
	return nil
}

// reserve makes the lab's folder, lock, number and state, so that from here on Sweep knows what to clean.
func reserve(ctx context.Context, cfg Config, image string) (*Lab, error) {
	h, err := machineHierarchies()
	if err != nil {
		return nil, err
	}
	boot, err := machineBootID()
	if err != nil {
		return nil, err
	}
	all, err := lock(ctx, filepath.Join(cfg.Dir, globalLock), nil)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	// What cannot be removed of a dead lab is no reason not to start another.
	if _, err := sweep(ctx, cfg.Dir); err != nil {
		fmt.Fprintln(cfg.Progress, err)
	}
	dir := filepath.Join(cfg.Dir, cfg.Name)
	if err := os.Mkdir(dir, 0o711); errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("lab: a lab called %s is running: choose another name, or end it with \"lab down --name %s\"", cfg.Name, cfg.Name)
	} else if err != nil {
		return nil, err
	}
	held, err := tryLock(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, err
	}
	number, err := takeNumber(h, os.Getpid()%256)
	if err != nil {
		return nil, errors.Join(err, removeIdentity(dir), held.Close())
	}
	l := &Lab{cfg: cfg, dir: dir, number: number, prefix: prefix(number), image: image, group: h.group(numberName(number)),
		held: held, ended: make(chan struct{})}
	l.life, l.stop = context.WithCancel(context.Background())
	s := state{Schema: 1, Name: cfg.Name, Number: number, Owner: os.Getpid(), BootID: boot}
	if err := s.write(dir); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) up(ctx context.Context) error {
	if err := l.group.create(); err != nil {
		return err
	}
	// Nothing that is meant for the lab may leave by the machine's own default route.
	if _, err := run(ctx, nil, "ip", "route", "add", "blackhole", l.prefix.String()); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	bridge := netip.PrefixFrom(address(l.prefix, bridgeNumber), l.prefix.Bits())
	var err error
	if l.anchor, err = startAnchor(ctx, bridge.String()); err != nil {
		return err
	}
	l.net = newNetwork(l)
	for i := range l.cfg.Hosts {
		l.hosts = append(l.hosts, newHost(l, i+1))
	}
	if err := l.each(func(h *Host) error { return h.create(ctx) }); err != nil {
		return err
	}
	if err := l.serve(); err != nil {
		return err
	}
	if l.cfg.Off {
		return nil
	}
	return l.BootAll(ctx)
}

// BootAll boots all hosts that are off, at once, and waits as [Host.Boot] does.
func (l *Lab) BootAll(ctx context.Context) error {
	return l.each(func(h *Host) error {
		if h.Power() != Off {
			return nil
		}
		return h.Boot(ctx)
	})
}

// each runs do for all hosts at once and joins the errors in the hosts' order.
func (l *Lab) each(do func(*Host) error) error {
	errs := make([]error, len(l.hosts))
	var wg sync.WaitGroup
	for i, h := range l.hosts {
		wg.Go(func() { errs[i] = do(h) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// started counts something that Close must wait for, unless Close has begun.
func (l *Lab) started(run func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return fmt.Errorf("lab %s is closing", l.cfg.Name)
	}
	l.wg.Go(run)
	return nil
}

// Close ends the lab: power is cut on all hosts, and everything that the lab made is removed, its files included. It
// may be called more than once; each call returns when the end has been reached, with the same answer.
func (l *Lab) Close() error {
	l.mu.Lock()
	first := !l.closing
	l.closing = true
	l.mu.Unlock()
	if !first {
		<-l.ended
		return l.errs
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeDeadline)
	defer cancel()
	l.stop()
	errs := []error{l.group.kill(ctx)}
	if l.anchor != nil {
		errs = append(errs, l.anchor.close())
	}
	l.wg.Wait()
	for _, h := range l.hosts {
		for _, d := range h.Disks() {
			errs = append(errs, d.release(ctx))
		}
	}
	errs = append(errs, teardown(ctx, l.dir, l.number), l.held.Close())
	l.errs = errors.Join(errs...)
	close(l.ended)
	return l.errs
}

// Done is closed when the lab has ended, also when somebody else ended it through [Open].
func (l *Lab) Done() <-chan struct{} { return l.ended }

// Name is the lab's name, as given or made up.
func (l *Lab) Name() string { return l.cfg.Name }

// Prefix is the /24 that the hosts' addresses are in. It exists only inside the lab's own network namespace.
func (l *Lab) Prefix() netip.Prefix { return l.prefix }

// Bridge is the address of the lab's bridge, from which [Lab.Dial] and [Lab.Command] speak to the hosts.
func (l *Lab) Bridge() netip.Addr { return address(l.prefix, bridgeNumber) }

// Hosts are all hosts in order.
func (l *Lab) Hosts() []*Host { return slices.Clone(l.hosts) }

// Host is the i-th host, counted from 1 as in its name (h1, h2, …); nil if there is none.
func (l *Lab) Host(i int) *Host {
	if i < 1 || i > len(l.hosts) {
		return nil
	}
	return l.hosts[i-1]
}

// HostByName finds a host by its name.
func (l *Lab) HostByName(name string) (*Host, error) {
	for _, h := range l.hosts {
		if h.name == name {
			return h, nil
		}
	}
	return nil, fmt.Errorf("lab %s has no host %q: its hosts are h1 to h%d", l.cfg.Name, name, len(l.hosts))
}
