package journal

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// The tree keeps in memory only the hashes above tileHeight and those of the
// last, incomplete tile: 64 bytes for 256 records instead of for each. What is
// below is made again from the file when a proof asks for it.
const (
	tileHeight = 8
	tileSize   = 1 << tileHeight
)

// tree is the Merkle tree over the records so far, as tlog numbers it.
type tree struct {
	size    int64
	levels  [64][]tlog.Hash                       // below tileHeight: of the last tile only
	offsets []int64                               // where the first record of each tile stands in the file
	leaves  func(tile int64) ([]tlog.Hash, error) // reads the leaf hashes of a complete tile from the file
}

// add appends a leaf that stands at an offset of the file.
func (t *tree) add(leaf tlog.Hash, offset int64) {
	if t.size%tileSize == 0 {
		t.offsets = append(t.offsets, offset)
	}
	h := leaf
	for level := 0; ; level++ {
		t.levels[level] = append(t.levels[level], h)
		if t.size>>level&1 == 0 {
			break
		}
		at := t.levels[level]
		h = tlog.NodeHash(at[len(at)-2], at[len(at)-1])
	}
	t.size++
	if t.size%tileSize == 0 {
		for level := range tileHeight {
			t.levels[level] = t.levels[level][:0]
		}
	}
}

// root is the hash of the whole tree. It needs no file.
func (t *tree) root() (tlog.Hash, error) { return tlog.TreeHash(t.size, t) }

// ReadHashes implements tlog.HashReader.
func (t *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	loaded := map[int64][]tlog.Hash{}
	for i, index := range indexes {
		level, n := tlog.SplitStoredHashIndex(index)
		if level >= tileHeight {
			if n >= int64(len(t.levels[level])) {
				return nil, fmt.Errorf("hash %d of level %d is not in a tree of %d records", n, level, t.size)
			}
			out[i] = t.levels[level][n]
			continue
		}
		tile := n >> (tileHeight - level)
		first := tile << (tileHeight - level) // the tile's first hash of this level
		if tile == t.size/tileSize {
			if n-first >= int64(len(t.levels[level])) {
				return nil, fmt.Errorf("hash %d of level %d is not in a tree of %d records", n, level, t.size)
			}
			out[i] = t.levels[level][n-first]
			continue
		}
		if loaded[tile] == nil {
			if tile > t.size/tileSize {
				return nil, fmt.Errorf("hash %d of level %d is not in a tree of %d records", n, level, t.size)
			}
			leaves, err := t.leaves(tile)
			if err != nil {
				return nil, err
			}
			loaded[tile] = leaves
		}
		width := int64(1) << level
		out[i] = subtree(loaded[tile][(n-first)*width : (n-first+1)*width])
	}
	return out, nil
}

// subtree is the hash over a power of two of leaves.
func subtree(leaves []tlog.Hash) tlog.Hash {
	if len(leaves) == 1 {
		return leaves[0]
	}
	half := len(leaves) / 2
	return tlog.NodeHash(subtree(leaves[:half]), subtree(leaves[half:]))
}
