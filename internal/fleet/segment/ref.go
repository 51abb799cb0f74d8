package segment

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Kind is what a segment's lines are.
type Kind string

// The kinds.
const (
	Log       Kind = "log"       // entries of the log of decisions, sealed
	Incidents Kind = "incidents" // records of incidents that have ended
)

// MaxBytes is how large a segment may be: it is read as a whole before a line of it is
// believed.
const MaxBytes = 32 << 20

// schema is the version of the files' format.
const schema = 1

// Ref names a segment and says what is in it. It is what is kept of a segment in the
// store.
type Ref struct {
	Kind   Kind   `json:"kind"`
	First  int64  `json:"first"` // number of the first line; entries by their own, incidents as they went
	Last   int64  `json:"last"`
	Before string `json:"before,omitempty"` // of the log: the chain's hash before First
	Hash   string `json:"hash,omitempty"`   // of the log: the chain's hash at Last
	SHA256 string `json:"sha256"`           // of all bytes of the file, hexadecimal
	Bytes  int64  `json:"bytes"`
}

// header is a file's first line.
type header struct {
	Schema int    `json:"fettle_segment"`
	Kind   Kind   `json:"kind"`
	First  int64  `json:"first"`
	Last   int64  `json:"last"`
	Before string `json:"before,omitempty"`
}

// Name is the name of the segment's file.
func (r Ref) Name() string {
	return fmt.Sprintf("%s-%020d-%020d-%.16s.jsonl", r.Kind, r.First, r.Last, r.SHA256)
}

// Lines is how many lines it has, without the first.
func (r Ref) Lines() int64 { return r.Last - r.First + 1 }

// String is what people read of it.
func (r Ref) String() string {
	return fmt.Sprintf("segment %s (%s %d to %d)", r.Name(), r.Kind, r.First, r.Last)
}

// ParseRef reads what the store keeps of a segment. It takes any bytes; what it returns
// can be used as a file's name.
func ParseRef(data []byte) (Ref, error) {
	var r Ref
	if err := json.Unmarshal(data, &r); err != nil {
		return Ref{}, fmt.Errorf("what is kept of a segment: %w", err)
	}
	return r, r.check()
}

func (r Ref) check() error {
	sum, err := hex.DecodeString(r.SHA256)
	switch {
	case r.Kind != Log && r.Kind != Incidents:
		return fmt.Errorf("a segment of kind %.20q is not known here (a newer version wrote it: use that)", r.Kind)
	case r.First < 1 || r.Last < r.First:
		return fmt.Errorf("a segment of %s from %d to %d", r.Kind, r.First, r.Last)
	case err != nil || len(sum) != sha256.Size || strings.ToLower(r.SHA256) != r.SHA256:
		return fmt.Errorf("segment of %s from %d to %d: %.70q is no SHA-256", r.Kind, r.First, r.Last, r.SHA256)
	case r.Bytes < 1 || r.Bytes > MaxBytes:
		return fmt.Errorf("segment of %s from %d to %d: %d bytes, at most %d are kept", r.Kind, r.First, r.Last, r.Bytes, MaxBytes)
	}
	return nil
}

// Make makes a segment out of lines. Of the log, before and after are the chain's hashes
// before its first line and at its last.
func Make(kind Kind, first int64, before, after string, lines [][]byte) (Ref, []byte, error) {
	r := Ref{Kind: kind, First: first, Last: first + int64(len(lines)) - 1, Before: before, Hash: after}
	head, err := json.Marshal(header{schema, kind, r.First, r.Last, before})
	if err != nil {
		return Ref{}, nil, fmt.Errorf("make a segment: %w", err)
	}
	var b bytes.Buffer
	for _, line := range append([][]byte{head}, lines...) {
		if bytes.IndexByte(line, '\n') >= 0 || len(line) == 0 {
			return Ref{}, nil, fmt.Errorf("make a segment of %s from %d: a line is empty or has an end of line in it", kind, first)
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	sum := sha256.Sum256(b.Bytes())
	r.SHA256, r.Bytes = hex.EncodeToString(sum[:]), int64(b.Len())
	return r, b.Bytes(), r.check()
}

// Parse returns the lines of a segment's bytes, once they are found to be those that
// ref names. The lines are parts of data.
func Parse(ref Ref, data []byte) ([][]byte, error) {
	if err := ref.check(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	if int64(len(data)) != ref.Bytes || hex.EncodeToString(sum[:]) != ref.SHA256 {
		return nil, &Bad{ref, fmt.Errorf("its %d bytes are not the %d that were sealed", len(data), ref.Bytes)}
	}
	lines := bytes.Split(bytes.TrimSuffix(data, []byte{'\n'}), []byte{'\n'})
	var h header
	if err := json.Unmarshal(lines[0], &h); err != nil {
		return nil, &Bad{ref, err}
	}
	switch {
	case h.Schema > schema:
		return nil, &Bad{ref, fmt.Errorf("it is of format %d, and up to %d is known here: upgrade", h.Schema, schema)}
	case h != header{h.Schema, ref.Kind, ref.First, ref.Last, ref.Before} || h.Schema < 1:
		return nil, &Bad{ref, errors.New("its first line says that it is another one")}
	case int64(len(lines)) != ref.Lines()+1:
		return nil, &Bad{ref, fmt.Errorf("it has %d lines", len(lines)-1)}
	}
	return lines[1:], nil
}

// Bad says that a segment is missing, or is not what was sealed. It wraps fs.ErrNotExist
// where it is missing.
type Bad struct {
	Ref Ref
	Err error
}

// Error names the segment and what to do.
func (b *Bad) Error() string {
	return fmt.Sprintf("%s cannot be used: %v (another server's copy or a backup has it; keep what is here as evidence)", b.Ref, b.Err)
}

// Unwrap returns what is wrong with it.
func (b *Bad) Unwrap() error { return b.Err }
