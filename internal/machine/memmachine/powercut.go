package memmachine

import (
	"maps"
	"math/rand/v2"
	"slices"

	"fettle/internal/machine/units"
)

// sector is what a disk writes whole or not at all.
const sector = 512

// Fork returns the machine as it would come up after a power cut now: a new boot
// without processes, every unit inactive, the programs and services defined as
// here. Of the names that were changed and not yet durable some first part has
// reached the disk; unsynced contents are as they last were, as they are, or torn
// sector by sector. The seed decides. The machine itself goes on.
func (m *Machine) Fork(seed uint64) *Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	rnd := rand.New(rand.NewPCG(seed, 0x666574746c65))
	f := New(m.opts)
	f.boots = m.boots + 1
	f.filesystems = nil
	for _, fsys := range m.filesystems {
		fsys := *fsys
		f.filesystems = append(f.filesystems, &fsys)
	}
	f.wallOffset, f.invocations, f.lastInode = m.wallOffset, m.invocations, m.lastInode
	maps.Copy(f.programs, m.programs)

	survived := m.pending[:rnd.IntN(len(m.pending)+1)]
	f.root = after(m.root, view(survived), rnd)
	for _, name := range slices.Sorted(maps.Keys(m.services)) {
		b := *m.services[name]
		f.services[name] = &b
		f.engine.Define(b.definition)
	}
	return f
}

// view overlays changes on the durable names without touching them.
func view(changes []change) func(*inode) map[string]*inode {
	overlaid := map[*inode]map[string]*inode{}
	for _, c := range changes {
		for _, e := range c {
			names, ok := overlaid[e.dir]
			if !ok {
				names = maps.Clone(e.dir.durableEntries)
				if names == nil {
					names = map[string]*inode{}
				}
				overlaid[e.dir] = names
			}
			if e.node == nil {
				delete(names, e.name)
			} else {
				names[e.name] = e.node
			}
		}
	}
	return func(dir *inode) map[string]*inode {
		if names, ok := overlaid[dir]; ok {
			return names
		}
		return dir.durableEntries
	}
}

// after copies n as the disk has it.
func after(n *inode, names func(*inode) map[string]*inode, rnd *rand.Rand) *inode {
	c := *n
	c.opens, c.links = 0, 1
	if n.mode.IsDir() {
		c.entries, c.durableEntries = map[string]*inode{}, map[string]*inode{}
		survivors := names(n)
		for _, name := range slices.Sorted(maps.Keys(survivors)) {
			e := after(survivors[name], names, rnd)
			c.entries[name], c.durableEntries[name] = e, e
		}
		return &c
	}
	c.data, c.pad = append([]byte(nil), n.durable...), n.durablePad
	if !slices.Equal(n.data, n.durable) || n.pad != n.durablePad {
		switch rnd.IntN(3) {
		case 0: // lost
		case 1: // kept
			c.data, c.pad = append([]byte(nil), n.data...), n.pad
		case 2:
			c.data, c.pad = torn(n.durable, n.data, rnd), 0
		}
	}
	c.syncData()
	return &c
}

// torn mixes two contents sector by sector, at a length between theirs. What
// was never written is zeros.
func torn(old, new []byte, rnd *rand.Rand) []byte {
	short, long := min(len(old), len(new)), max(len(old), len(new))
	out := make([]byte, short+rnd.IntN(long-short+1))
	for at := 0; at < len(out); at += sector {
		from := old
		if rnd.IntN(2) == 1 {
			from = new
		}
		if at < len(from) {
			copy(out[at:min(at+sector, len(out))], from[at:])
		}
	}
	return out
}

// Boot starts the units that are enabled, as the boot after a Fork does.
func (m *Machine) Boot() {
	m.mu.Lock()
	names := slices.Sorted(maps.Keys(m.services))
	m.mu.Unlock()
	for _, name := range names {
		if u := m.engine.Board.Get(name); u.UnitFileState == "enabled" && u.LoadState == "loaded" {
			// Refused only if it was masked meanwhile: then it stays down, as at a boot.
			_ = m.engine.Queue("start", name, units.BySystem)
		}
	}
}
