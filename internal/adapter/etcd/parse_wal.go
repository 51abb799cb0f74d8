package etcd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// The format of the write-ahead log, as etcd 3.4 to 3.7 write it (source:
// go.etcd.io/etcd/server/v3/storage/wal, decoder.go and wal.go): records of a
// length of 8 bytes, little endian, whose top byte holds the padding; a protobuf
// of type, checksum and data; the checksum is Castagnoli's, running on from record
// to record and, through a record of its own at each segment's head, from segment
// to segment. Zeros after the last record are space that was allocated ahead.
const (
	recordMetadata = 1
	recordEntry    = 2
	recordState    = 3
	recordChecksum = 4
	recordSnapshot = 5

	// maxRecord bounds one record: a segment is 64 MB, and etcd takes requests of
	// 1.5 MiB unless told otherwise.
	maxRecord = 64 << 20
	sector    = 512
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// walInfo is what was read of a log.
type walInfo struct {
	member, cluster uint64 // identities, of the metadata record
	records         int
	term, vote      uint64 // of the last hard state
	commit          uint64
	lastIndex       uint64 // of the last entry
	torn            bool   // the last record was being written when the machine stopped; etcd cuts it off
}

// damage is that bytes are not as they were written.
type damage struct{ what string }

func (d *damage) Error() string { return d.what }

func damaged(format string, args ...any) error { return &damage{fmt.Sprintf(format, args...)} }

// walReader reads the segments of one log, in order.
type walReader struct {
	info walInfo
	crc  uint32
	last bool // the segment being read is the last one
	meta bool // a metadata record was read
	any  bool // a checksum record was read

	// each, where it is set, is told of every good record: where it begins, and
	// how long its body is.
	each func(at, body int64)
}

// segment reads one segment of size bytes through. The error is a *damage where
// the content is wrong, and otherwise that of the reader.
func (w *walReader) segment(name string, size int64, last bool, from io.Reader) error {
	w.last = last
	r := bufio.NewReaderSize(from, 64<<10)
	var at int64
	for {
		var head [8]byte
		n, err := io.ReadFull(r, head[:])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && allZero(head[:n]) {
			return nil
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return w.cut(name, at)
		}
		if err != nil {
			return err
		}
		length := binary.LittleEndian.Uint64(head[:])
		if length == 0 {
			return nil // what was allocated ahead; also in a segment that is not the last
		}
		left := size - at - 8
		body, pad := int64(length&^(0xff<<56)), int64(0)
		switch top := length >> 56; {
		case top > 0x80 && top < 0x88:
			pad = int64(top & 7)
		case top != 0:
			return damaged("%s at %d: no record begins here", name, at)
		}
		switch {
		case body+pad <= left:
		case w.last && w.meta && body <= maxRecord:
			return w.cut(name, at) // longer than what is left: the end was never written
		default:
			return damaged("%s at %d: a record of %d bytes, more than there are", name, at, body)
		}
		data := make([]byte, body+pad)
		if _, err := io.ReadFull(r, data); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return w.cut(name, at)
			}
			return err
		}
		done, err := w.record(name, at, data[:body], data)
		if err != nil || done {
			return err
		}
		if w.each != nil {
			w.each(at, body)
		}
		at += 8 + body + pad
	}
}

// cut is a record that ends before its end: in the last segment the machine
// stopped while it was written, and etcd cuts it off; anywhere else something is
// missing.
func (w *walReader) cut(name string, at int64) error {
	if !w.last {
		return damaged("%s at %d: it ends in the middle of a record, and is not the last segment", name, at)
	}
	w.info.torn = true
	return nil
}

// record takes in one record. padded is the record with its padding.
func (w *walReader) record(name string, at int64, raw, padded []byte) (done bool, err error) {
	kind, sum, data, err := parseRecord(raw)
	if err != nil {
		if w.tornAt(at+8, padded) {
			w.info.torn = true
			return true, nil
		}
		return false, damaged("%s at %d: %v", name, at, err)
	}
	if kind == recordChecksum {
		if w.any && w.crc != 0 && w.crc != sum {
			return false, damaged("%s at %d: it does not go on from the segment before it (checksum %08x, want %08x)", name, at, sum, w.crc)
		}
		w.crc, w.any = sum, true
		return false, nil
	}
	running := crc32.Update(w.crc, castagnoli, data)
	if running != sum {
		if w.tornAt(at+8, padded) {
			w.info.torn = true
			return true, nil
		}
		return false, damaged("%s at %d: checksum %08x, want %08x", name, at, running, sum)
	}
	w.crc = running
	w.info.records++
	return false, w.content(name, at, kind, data)
}

func (w *walReader) content(name string, at int64, kind int64, data []byte) error {
	switch kind {
	case recordMetadata:
		member, cluster, err := parsePair(data)
		if err != nil || member == 0 {
			return damaged("%s at %d: metadata that cannot be read", name, at)
		}
		if w.meta && (member != w.info.member || cluster != w.info.cluster) {
			return damaged("%s at %d: another member's log", name, at)
		}
		w.info.member, w.info.cluster, w.meta = member, cluster, true
	case recordEntry:
		// Entry{Type=1, Term=2, Index=3, Data=4} of raft.
		numbers, err := parseVarints(data, 3)
		if err != nil {
			return damaged("%s at %d: an entry that cannot be read", name, at)
		}
		w.info.lastIndex = numbers[2]
	case recordState:
		numbers, err := parseVarints(data, 3)
		if err != nil {
			return damaged("%s at %d: a state that cannot be read", name, at)
		}
		w.info.term, w.info.vote, w.info.commit = numbers[0], numbers[1], numbers[2]
	case recordSnapshot:
	default:
		return damaged("%s at %d: a record of unknown type %d", name, at, kind)
	}
	return nil
}

// tornAt reports whether a record was being written when the machine stopped: in
// the last segment, a whole sector of it is zeros (etcd's own rule).
func (w *walReader) tornAt(offset int64, data []byte) bool {
	if !w.last {
		return false
	}
	for len(data) > 0 {
		n := min(int64(len(data)), sector-offset%sector)
		if allZero(data[:n]) {
			return true
		}
		data, offset = data[n:], offset+n
	}
	return false
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// parseRecord reads walpb.Record{type=1, crc=2, data=3}.
func parseRecord(raw []byte) (kind int64, sum uint32, data []byte, err error) {
	for len(raw) > 0 {
		number, typ, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return 0, 0, nil, errors.New("not a record")
		}
		raw = raw[n:]
		switch {
		case number == 1 && typ == protowire.VarintType:
			v, n := protowire.ConsumeVarint(raw)
			if n < 0 {
				return 0, 0, nil, errors.New("not a record")
			}
			kind, raw = int64(v), raw[n:]
		case number == 2 && typ == protowire.VarintType:
			v, n := protowire.ConsumeVarint(raw)
			if n < 0 {
				return 0, 0, nil, errors.New("not a record")
			}
			sum, raw = uint32(v), raw[n:]
		case number == 3 && typ == protowire.BytesType:
			v, n := protowire.ConsumeBytes(raw)
			if n < 0 {
				return 0, 0, nil, errors.New("not a record")
			}
			data, raw = v, raw[n:]
		default:
			n := protowire.ConsumeFieldValue(number, typ, raw)
			if n < 0 {
				return 0, 0, nil, errors.New("not a record")
			}
			raw = raw[n:]
		}
	}
	return kind, sum, data, nil
}

// parsePair reads the two identities of etcdserverpb.Metadata.
func parsePair(data []byte) (member, cluster uint64, err error) {
	numbers, err := parseVarints(data, 2)
	if err != nil {
		return 0, 0, err
	}
	return numbers[0], numbers[1], nil
}

// parseVarints reads the first n fields of a message, all of them numbers; others
// are passed over.
func parseVarints(data []byte, n int) ([]uint64, error) {
	out := make([]uint64, n)
	for len(data) > 0 {
		number, typ, size := protowire.ConsumeTag(data)
		if size < 0 {
			return nil, protowire.ParseError(size)
		}
		data = data[size:]
		if typ == protowire.VarintType && int(number) <= n {
			v, size := protowire.ConsumeVarint(data)
			if size < 0 {
				return nil, protowire.ParseError(size)
			}
			out[number-1], data = v, data[size:]
			continue
		}
		if size = protowire.ConsumeFieldValue(number, typ, data); size < 0 {
			return nil, protowire.ParseError(size)
		}
		data = data[size:]
	}
	return out, nil
}
