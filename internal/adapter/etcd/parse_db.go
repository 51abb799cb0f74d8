package etcd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// The format of the database file, as bbolt writes it (source: go.etcd.io/bbolt,
// internal/common): pages of one size; two meta pages with a checksum, of which
// the one with the higher transaction counts; a tree of branch and leaf pages.
const (
	pageHeader   = 16 // id 8, flags 2, count 2, overflow 4
	metaLength   = 64 // magic, version, page size, flags: 4 each; root 16; freelist, pages, transaction, checksum: 8 each
	elementSize  = 16 // of a branch: position, key size, page; of a leaf: flags, position, key size, value size
	boltMagic    = 0xED0CDAED
	boltVersion  = 2
	noFreelist   = 1<<64 - 1
	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10
	bucketLeaf   = 0x01 // a leaf element that holds a bucket

	// maxPages bounds the walk: 4 GiB at 4 KiB, twice etcd's default quota.
	maxPages = 1 << 20
	maxDepth = 64
)

// dbInfo is what was read of a database.
type dbInfo struct {
	pageSize int64
	pages    int64 // of the tree that were looked at
	bounded  bool  // the walk ended at maxPages
}

// checkDB looks at the meta pages, and at the header of every page that the tree
// reaches. It reads; it does not map the file, where a page that is missing would
// end the process. The error is a *damage where the content is wrong.
//
// It does not read keys and values as such: bytes changed inside of one are seen
// by the hash over all members, and by nothing else.
func checkDB(from io.ReaderAt, size int64) (dbInfo, error) {
	meta, err := readMeta(from, size)
	if err != nil {
		return dbInfo{}, err
	}
	info := dbInfo{pageSize: meta.pageSize}
	if need := int64(meta.pages) * meta.pageSize; meta.pages > 1<<40 || size < need {
		return info, damaged("the database is %d bytes long, and its meta page speaks of %d", size, need)
	}
	w := dbWalk{from: from, meta: meta, info: &info, seen: map[uint64]bool{}}
	if meta.freelist != noFreelist {
		if _, err := w.header(meta.freelist, flagFreelist); err != nil {
			return info, err
		}
	}
	return info, w.page(meta.root, 0)
}

type boltMeta struct {
	pageSize    int64
	root        uint64
	freelist    uint64
	pages       uint64 // high water mark
	transaction uint64
}

// readMeta returns the meta page that counts.
func readMeta(from io.ReaderAt, size int64) (boltMeta, error) {
	first := make([]byte, pageHeader+metaLength)
	if size < int64(len(first)) {
		return boltMeta{}, damaged("the database is only %d bytes long", size)
	}
	if err := readAt(from, first, 0); err != nil {
		return boltMeta{}, err
	}
	metas := make([]boltMeta, 0, 2)
	if m, ok := parseMeta(first); ok {
		metas = append(metas, m)
	}
	// The second is one page further; where the first cannot be read, its size is
	// tried: bbolt does the same.
	sizes := []int64{4096, 8192, 16384, 32768, 65536, 1024, 2048, 512}
	if len(metas) > 0 {
		sizes = []int64{metas[0].pageSize}
	}
	for _, s := range sizes {
		if size < s+int64(len(first)) {
			continue
		}
		second := make([]byte, len(first))
		if err := readAt(from, second, s); err != nil {
			return boltMeta{}, err
		}
		if m, ok := parseMeta(second); ok && m.pageSize == s {
			metas = append(metas, m)
			break
		}
	}
	switch {
	case len(metas) == 0:
		return boltMeta{}, damaged("neither meta page of the database is whole")
	case len(metas) == 2 && metas[1].transaction > metas[0].transaction:
		return metas[1], nil
	}
	return metas[0], nil
}

func parseMeta(b []byte) (boltMeta, bool) {
	le := binary.LittleEndian
	if le.Uint16(b[8:])&flagMeta == 0 {
		return boltMeta{}, false
	}
	b = b[pageHeader:]
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaLength-8]) // a hash takes everything
	m := boltMeta{pageSize: int64(le.Uint32(b[8:])), root: le.Uint64(b[16:]), freelist: le.Uint64(b[32:]), pages: le.Uint64(b[40:]), transaction: le.Uint64(b[48:])}
	ok := le.Uint32(b) == boltMagic && le.Uint32(b[4:]) == boltVersion && le.Uint64(b[56:]) == sum.Sum64() &&
		m.pageSize >= 512 && m.pageSize <= 1<<20
	return m, ok
}

// dbWalk looks at the pages of one tree.
type dbWalk struct {
	from io.ReaderAt
	meta boltMeta
	info *dbInfo
	seen map[uint64]bool

	// visit, where it is set, is called with every element of a leaf that is no
	// bucket: the bucket's name, and where key and value are in the file.
	visit func(bucket string, key, value span) error
	name  string // of the bucket that is being walked
}

// span is a part of the file.
type span struct{ at, length int64 }

// header reads the head of a page that must be of one of the given kinds.
func (w *dbWalk) header(id uint64, flags ...uint16) ([]byte, error) {
	if id < 2 || id >= w.meta.pages {
		return nil, damaged("page %d of the database: out of bounds, there are %d", id, w.meta.pages)
	}
	head := make([]byte, pageHeader)
	if err := readAt(w.from, head, int64(id)*w.meta.pageSize); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if says := le.Uint64(head); says != id {
		return nil, damaged("page %d of the database: it calls itself %d", id, says)
	}
	kind := le.Uint16(head[8:])
	ok := false
	for _, f := range flags {
		ok = ok || kind == f
	}
	if !ok {
		return nil, damaged("page %d of the database: unexpected kind %#x", id, kind)
	}
	if over := uint64(le.Uint32(head[12:])); id+over >= w.meta.pages {
		return nil, damaged("page %d of the database: goes on for %d pages, beyond the end", id, over)
	}
	return head, nil
}

// page looks at a page and at all below it.
func (w *dbWalk) page(id uint64, depth int) error {
	switch {
	case w.info.pages >= maxPages:
		w.info.bounded = true
		return nil
	case depth > maxDepth:
		return damaged("page %d of the database: the tree is deeper than %d", id, maxDepth)
	case w.seen[id]:
		return damaged("page %d of the database: reached twice", id)
	}
	w.seen[id] = true
	w.info.pages++
	head, err := w.header(id, flagBranch, flagLeaf)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	count := int64(le.Uint16(head[10:]))
	length := (int64(le.Uint32(head[12:])) + 1) * w.meta.pageSize
	if pageHeader+count*elementSize > length {
		return damaged("page %d of the database: %d elements do not fit in it", id, count)
	}
	elements := make([]byte, count*elementSize)
	if err := readAt(w.from, elements, int64(id)*w.meta.pageSize+pageHeader); err != nil {
		return err
	}
	for i := range count {
		e := elements[i*elementSize:]
		at := pageHeader + i*elementSize
		if le.Uint16(head[8:]) == flagBranch {
			if at+int64(le.Uint32(e))+int64(le.Uint32(e[4:])) > length {
				return damaged("page %d of the database: key %d lies outside of it", id, i)
			}
			if err := w.page(le.Uint64(e[8:]), depth+1); err != nil {
				return err
			}
			continue
		}
		key := span{at + int64(le.Uint32(e[4:])), int64(le.Uint32(e[8:]))}
		value := span{key.at + key.length, int64(le.Uint32(e[12:]))}
		if value.at+value.length > length {
			return damaged("page %d of the database: element %d lies outside of it", id, i)
		}
		start := int64(id) * w.meta.pageSize
		key.at, value.at = start+key.at, start+value.at
		var err error
		switch {
		case le.Uint32(e)&bucketLeaf != 0:
			err = w.bucket(id, key, value, depth)
		case w.visit != nil:
			err = w.visit(w.name, key, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket follows a bucket's root. A root of 0 means that the bucket is small
// enough to lie in the element itself.
func (w *dbWalk) bucket(id uint64, key, value span, depth int) error {
	if value.length < 16 {
		return damaged("page %d of the database: a bucket of %d bytes", id, value.length)
	}
	var root [8]byte
	if err := readAt(w.from, root[:], value.at); err != nil {
		return err
	}
	r := binary.LittleEndian.Uint64(root[:])
	if r == 0 {
		return nil
	}
	name, err := w.read(key)
	if err != nil {
		return err
	}
	outer := w.name
	w.name = string(name)
	defer func() { w.name = outer }()
	return w.page(r, depth+1)
}

func (w *dbWalk) read(s span) ([]byte, error) {
	b := make([]byte, s.length)
	return b, readAt(w.from, b, s.at)
}

// findValue returns where the newest value of a key of etcd is in its database:
// the last element of the bucket "key", in the order of revisions, that is of it.
func findValue(from io.ReaderAt, size int64, key string) (span, error) {
	meta, err := readMeta(from, size)
	if err != nil {
		return span{}, err
	}
	found := span{}
	w := dbWalk{from: from, meta: meta, info: &dbInfo{}, seen: map[uint64]bool{}}
	w.visit = func(bucket string, _, value span) error {
		if bucket != "key" {
			return nil
		}
		raw, err := w.read(value)
		if err != nil {
			return err
		}
		if at, n, ok := valueIn(raw, key); ok {
			found = span{value.at + at, n}
		}
		return nil
	}
	if err := w.page(meta.root, 0); err != nil {
		return span{}, err
	}
	if found.length == 0 {
		return span{}, fmt.Errorf("key %q has no value in the database", key)
	}
	return found, nil
}

// valueIn reads mvccpb.KeyValue{key=1, value=5}: where the value of this key is.
func valueIn(raw []byte, key string) (at, length int64, ok bool) {
	offset, mine := int64(0), false
	for len(raw) > 0 {
		number, typ, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return 0, 0, false
		}
		size := protowire.ConsumeFieldValue(number, typ, raw[n:])
		if size < 0 {
			return 0, 0, false
		}
		if typ == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(raw[n:])
			switch number {
			case 1:
				mine = string(v) == key
			case 5:
				at, length = offset+int64(n+size-len(v)), int64(len(v))
			}
		}
		raw = raw[n+size:]
		offset += int64(n + size)
	}
	return at, length, mine && length > 0
}

func readAt(from io.ReaderAt, b []byte, at int64) error {
	n, err := from.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return damaged("the database ends at %d, in the middle of a page", at+int64(n))
	}
	return fmt.Errorf("read the database at %d: %w", at, err)
}
