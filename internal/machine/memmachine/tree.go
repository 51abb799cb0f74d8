package memmachine

import (
	"io/fs"
	"path"
	"strings"
	"syscall"
	"time"

	"fettle/internal/machine"
)

const (
	modeDir   = fs.ModeDir
	blockSize = 4096
)

// inode is a file or directory, as it is and as it would be after a power cut.
type inode struct {
	id       uint64
	mode     fs.FileMode
	uid, gid int
	modified time.Time

	data    []byte // of a file
	pad     int64  // zeros after data, so that a test can have huge files
	entries map[string]*inode
	opens   int // descriptors of processes
	links   int

	durable        []byte
	durablePad     int64
	durableEntries map[string]*inode
}

func (m *Machine) newInode(mode fs.FileMode, now time.Time) *inode {
	m.lastInode++
	n := &inode{id: m.lastInode, mode: mode, modified: now, links: 1}
	if mode.IsDir() {
		n.entries, n.durableEntries = map[string]*inode{}, map[string]*inode{}
	}
	return n
}

func (n *inode) size() int64 {
	if n.mode.IsDir() {
		return blockSize
	}
	return int64(len(n.data)) + n.pad
}

func (n *inode) allocated() int64 {
	return (n.size() + blockSize - 1) / blockSize * blockSize
}

func (n *inode) stat(name string, device uint64) machine.Stat {
	return machine.Stat{
		Name: name, Mode: n.mode, Bytes: n.size(), Allocated: n.allocated(), UID: n.uid, GID: n.gid,
		Inode: n.id, Device: device, Links: uint64(n.links), Modified: n.modified,
	}
}

// lookup finds the inode at p, or an errno. m.mu is held.
func (m *Machine) lookup(p string) (*inode, syscall.Errno) {
	if !path.IsAbs(p) {
		return nil, syscall.EINVAL
	}
	n := m.root
	for name := range strings.SplitSeq(strings.Trim(path.Clean(p), "/"), "/") {
		if name == "" {
			continue
		}
		if !n.mode.IsDir() {
			return nil, syscall.ENOTDIR
		}
		next, ok := n.entries[name]
		if !ok {
			return nil, syscall.ENOENT
		}
		n = next
	}
	return n, 0
}

// parent finds the directory that p is in and p's name there. m.mu is held.
func (m *Machine) parent(p string) (*inode, string, syscall.Errno) {
	p = path.Clean(p)
	if p == "/" {
		return nil, "", syscall.EBUSY
	}
	dir, errno := m.lookup(path.Dir(p))
	if errno == 0 && !dir.mode.IsDir() {
		errno = syscall.ENOTDIR
	}
	return dir, path.Base(p), errno
}

// change is names given or taken together: one for create and unlink, two for a
// rename. A nil node takes the name away.
type change []edit

type edit struct {
	dir  *inode
	name string
	node *inode
}

// do makes a change in the live tree and remembers it as not yet durable. m.mu
// is held.
func (m *Machine) do(c change) {
	now := time.Now()
	for _, e := range c {
		if old := e.dir.entries[e.name]; old != nil {
			old.links--
		}
		if e.node == nil {
			delete(e.dir.entries, e.name)
		} else {
			e.dir.entries[e.name] = e.node
		}
		e.dir.modified = now
	}
	m.pending = append(m.pending, c)
}

func (c change) persist() {
	for _, e := range c {
		if e.node == nil {
			delete(e.dir.durableEntries, e.name)
		} else {
			e.dir.durableEntries[e.name] = e.node
		}
	}
}

// syncDir makes the names in dir durable, and with them whatever has to come
// before: earlier changes of any directory that a rename ties to it. m.mu is held.
func (m *Machine) syncDir(dir *inode) {
	tied := map[*inode]bool{dir: true}
	chosen := make([]bool, len(m.pending))
	for i := len(m.pending) - 1; i >= 0; i-- {
		for _, e := range m.pending[i] {
			chosen[i] = chosen[i] || tied[e.dir]
		}
		if chosen[i] {
			for _, e := range m.pending[i] {
				tied[e.dir] = true
			}
		}
	}
	var rest []change
	for i, c := range m.pending {
		if chosen[i] {
			c.persist()
		} else {
			rest = append(rest, c)
		}
	}
	m.pending = rest
}

func (n *inode) syncData() {
	n.durable = append([]byte(nil), n.data...)
	n.durablePad = n.pad
}
