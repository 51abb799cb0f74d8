package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// MaxRecord is the largest payload of a record in bytes. A plan with its world
// is some hundred kilobytes; what is larger belongs in a file whose hash is
// recorded.
const MaxRecord = 16 << 20

const (
	frameHeader = 44
	leafStart   = 30 // what is hashed into the tree begins here
	maxKind     = 64
	maxGroup    = 1 << 16

	typeRecord = 1
	typeHead   = 2
)

var (
	frameMagic = []byte("FjR1")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// frame is one framed record or head. Its byte slices point into the buffer
// that it was read from.
type frame struct {
	durable int64
	number  int64
	more    int
	kindOf  byte // typeRecord or typeHead
	schema  int
	at      time.Time
	kind    string
	payload []byte
	leaf    []byte
}

// errShort says that the buffer ends before the frame does; errBad that what is
// there is no frame. errStrange says that it is whole, but not one that this
// version writes: it is never cut off.
var (
	errShort   = errors.New("frame is cut off")
	errBad     = errors.New("not a frame")
	errStrange = errors.New("a frame that this version does not know; a newer one may have written it")
)

// headFrame is the length of a head's frame.
const headFrame = frameHeader + tlog.HashSize

// frameSize is the length of a record's frame.
func frameSize(kind string, payload []byte) int { return frameHeader + len(kind) + len(payload) }

// appendFrame adds a frame to buf.
func appendFrame(buf []byte, f frame) []byte {
	start := len(buf)
	var h [frameHeader]byte
	copy(h[:], frameMagic)
	binary.LittleEndian.PutUint32(h[4:], uint32(len(f.kind)+len(f.payload)))
	binary.LittleEndian.PutUint64(h[12:], uint64(f.durable))
	binary.LittleEndian.PutUint64(h[20:], uint64(f.number))
	binary.LittleEndian.PutUint16(h[28:], uint16(f.more))
	h[30] = f.kindOf
	h[31] = byte(len(f.kind))
	binary.LittleEndian.PutUint16(h[32:], uint16(f.schema))
	binary.LittleEndian.PutUint64(h[36:], uint64(f.at.UnixNano()))
	buf = append(buf, h[:]...)
	buf = append(buf, f.kind...)
	buf = append(buf, f.payload...)
	binary.LittleEndian.PutUint32(buf[start+8:], checksum(buf[start:]))
	return buf
}

// checksum is the CRC-32C of a frame without its CRC field.
func checksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:8], castagnoli), castagnoli, b[12:])
}

// frameLength reads how long the frame at the start of b says that it is.
func frameLength(b []byte) (int, error) {
	if len(b) < frameHeader {
		return 0, errShort
	}
	if !bytes.Equal(b[:4], frameMagic) {
		return 0, errBad
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if n > MaxRecord+maxKind {
		return 0, fmt.Errorf("%w: length %d is more than a record may have", errBad, n)
	}
	return frameHeader + int(n), nil
}

// parseFrame reads the frame at the start of b and returns its length. It takes
// any bytes.
func parseFrame(b []byte) (frame, int, error) {
	n, err := frameLength(b)
	if err != nil {
		return frame{}, 0, err
	}
	if len(b) < n {
		return frame{}, n, errShort
	}
	b = b[:n]
	if got, want := checksum(b), binary.LittleEndian.Uint32(b[8:]); got != want {
		return frame{}, n, fmt.Errorf("%w: checksum is %08x, not %08x", errBad, got, want)
	}
	f := frame{
		durable: int64(binary.LittleEndian.Uint64(b[12:])),
		number:  int64(binary.LittleEndian.Uint64(b[20:])),
		more:    int(binary.LittleEndian.Uint16(b[28:])),
		kindOf:  b[30],
		schema:  int(binary.LittleEndian.Uint16(b[32:])),
		at:      time.Unix(0, int64(binary.LittleEndian.Uint64(b[36:]))).UTC(),
		leaf:    b[leafStart:],
	}
	kind := int(b[31])
	switch {
	case kind > n-frameHeader || kind > maxKind:
		return frame{}, n, fmt.Errorf("%w: kind of %d bytes in a frame of %d", errStrange, kind, n)
	case f.durable < 0 || f.number < 0:
		return frame{}, n, fmt.Errorf("%w: negative offset or number", errStrange)
	case f.kindOf == typeHead && (kind != 0 || n != headFrame || f.more != 0):
		return frame{}, n, fmt.Errorf("%w: a head of %d bytes", errStrange, n)
	case f.kindOf == typeRecord && !validKind(string(b[frameHeader:frameHeader+kind])):
		return frame{}, n, fmt.Errorf("%w: kind %q", errStrange, b[frameHeader:frameHeader+kind])
	case f.kindOf != typeHead && f.kindOf != typeRecord:
		return frame{}, n, fmt.Errorf("%w: type %d", errStrange, f.kindOf)
	case b[34] != 0 || b[35] != 0:
		return frame{}, n, fmt.Errorf("%w: bytes 34 and 35 are not zero", errStrange)
	}
	f.kind = string(b[frameHeader : frameHeader+kind])
	f.payload = b[frameHeader+kind:]
	return f, n, nil
}

// validKind keeps kinds to what can be neither a frame's start nor a surprise on
// a terminal.
func validKind(kind string) bool {
	if kind == "" || len(kind) > maxKind {
		return false
	}
	for _, r := range []byte(kind) {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-' {
			return false
		}
	}
	return true
}
