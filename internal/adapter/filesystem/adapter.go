package filesystem

import (
	"context"
	"slices"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// Adapter implements machine.Adapter.
type Adapter struct{}

// Catalogue implements machine.Adapter.
func (Adapter) Catalogue() fettle.Catalogue { return Catalogue() }

// Discover implements machine.Adapter: the zero configuration suits every
// machine.
func (Adapter) Discover(ctx context.Context, m machine.Machine) ([]machine.Found, error) {
	if _, err := m.Filesystems.Mounts(ctx); err != nil {
		return nil, err
	}
	return []machine.Found{{Name: "filesystems", Config: []byte("# every local disk filesystem\ntypes: [ext2, ext3, ext4, xfs, btrfs]\n"), Why: "this machine has a mount table"}}, nil
}

// Open implements machine.Adapter.
func (Adapter) Open(_ context.Context, m machine.Machine, config []byte) (fettle.Instance, error) {
	c, err := ParseConfig(config)
	if err != nil {
		return nil, err
	}
	return &instance{config: c, m: m}, nil
}

type instance struct {
	config Config
	m      machine.Machine
}

func (i *instance) Probes() []fettle.Probe     { return []fettle.Probe{usage{i}, fill{i}} }
func (i *instance) Watchers() []fettle.Watcher { return []fettle.Watcher{mountWatcher{i}} }

func (i *instance) Actions() map[string]fettle.Action {
	return map[string]fettle.Action{
		"filesystem.vacuum_journal":      vacuumJournal{i},
		"filesystem.clean_package_cache": cleanPackageCache{i},
		"filesystem.compress_logs":       compressLogs{i},
		"filesystem.ask_reopen":          askReopen{i},
	}
}

func (i *instance) Faults() map[string]fettle.Fault {
	return map[string]fettle.Fault{"filesystem.fill": fillUp{i}, "filesystem.hold_deleted": holdDeleted{i}}
}

func (i *instance) Close() error { return nil }

func (i *instance) subject(point string) fettle.Subject {
	return fettle.NewSubject(fettle.KindFilesystem, i.m.Identity.Host.Name(), point)
}

// mounts returns the filesystems that are looked at, each device once, at the
// first place where it is mounted.
func (i *instance) mounts(ctx context.Context) ([]machine.Mount, error) {
	all, err := i.m.Filesystems.Mounts(ctx)
	if err != nil {
		return nil, err
	}
	return i.choose(all), nil
}

func (i *instance) choose(all []machine.Mount) []machine.Mount {
	slices.SortStableFunc(all, func(a, b machine.Mount) int { return a.ID - b.ID })
	var out []machine.Mount
	seen := map[uint64]bool{}
	for _, root := range []bool{true, false} { // where its root is mounted comes before a part of it
		for _, mt := range all {
			if (mt.Root == "/") != root || seen[mt.Device] || !slices.Contains(i.config.Types, mt.Type) || slices.Contains(i.config.Ignore, mt.Point) {
				continue
			}
			seen[mt.Device] = true
			out = append(out, mt)
		}
	}
	return out
}

func (i *instance) mountOf(ctx context.Context, s fettle.Subject) (machine.Mount, error) {
	mounts, err := i.mounts(ctx)
	if err != nil {
		return machine.Mount{}, err
	}
	for _, mt := range mounts {
		if i.subject(mt.Point) == s {
			return mt, nil
		}
	}
	return machine.Mount{}, fettle.Refuse("filesystem", s, "findmnt on its host", "it is not mounted here")
}
