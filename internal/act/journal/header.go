package journal

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"time"
)

// headerSize is the length of the file's header: less than a sector, so that it
// is written whole or not at all.
const headerSize = 64

var fileMagic = []byte("fettle-journal 1\n")

// newHeader makes the header of a new file with a random identity.
func newHeader(at time.Time) []byte {
	h := make([]byte, headerSize)
	copy(h, fileMagic)
	_, _ = rand.Read(h[20:36]) // never fails (crypto/rand)
	binary.LittleEndian.PutUint64(h[36:], uint64(at.UnixNano()))
	binary.LittleEndian.PutUint32(h[60:], crc32.Checksum(h[:60], castagnoli))
	return h
}

// headerState says what the first bytes of a file are.
type headerState int

const (
	headerWhole headerState = iota
	headerTorn              // the beginning of one, or nothing: the file was being made
	headerWrong             // something else
)

// readHeader judges the first bytes of a file (fewer than headerSize only where
// the file is shorter) and returns its identity.
func readHeader(b []byte) (string, headerState) {
	if len(b) >= headerSize {
		b = b[:headerSize]
		if bytes.Equal(b[:len(fileMagic)], fileMagic) && crc32.Checksum(b[:60], castagnoli) == binary.LittleEndian.Uint32(b[60:]) {
			return hex.EncodeToString(b[20:36]), headerWhole
		}
	}
	trimmed := bytes.TrimRight(b, "\x00")
	if n := min(len(trimmed), len(fileMagic)); bytes.Equal(trimmed[:n], fileMagic[:n]) && (len(b) < headerSize || len(trimmed) == 0) {
		return "", headerTorn
	}
	return "", headerWrong
}
