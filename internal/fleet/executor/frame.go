package executor

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"fettle/internal/fettle"
)

// maxFrame bounds one message between the two processes, in bytes: an order's body as
// base64, what goes with it, and room.
const maxFrame = 6 << 20

// frameSchema is the version of the messages that this program writes and reads. Both
// processes are one binary; a newer one is not spoken to by an older.
const frameSchema = 1

// method names a method of Hands.
type method string

const (
	greet      method = "greet"
	pulse      method = "pulse"
	meet       method = "meet"
	follow     method = "follow"
	told       method = "told"
	believe    method = "believe"
	standing   method = "permit"
	arming     method = "armed"
	confirm    method = "confirm"
	do         method = "do"
	recovering method = "recover"
	preview    method = "preview"
	checkWrite method = "check-write"
	look       method = "look"
	changed    method = "changed"
	run        method = "run"
	fetch      method = "fetch"
	stop       method = "stop"
)

// request is a call. Responses come in any order.
type request struct {
	Schema int             `json:"schema"`
	ID     uint64          `json:"id"`
	Method method          `json:"method"`
	Within int64           `json:"within_ns,omitempty"` // how long it may take; 0: as long as the connection lives
	Arg    json.RawMessage `json:"arg,omitempty"`
}

type response struct {
	Schema int             `json:"schema"`
	ID     uint64          `json:"id"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *failure        `json:"error,omitempty"`
}

// failure is an error on its way: its text, and what callers decide on.
type failure struct {
	Text   string         `json:"text"`
	Hint   string         `json:"hint,omitempty"`
	Op     string         `json:"op,omitempty"`
	On     fettle.Subject `json:"on,omitempty"`
	Class  fettle.Class   `json:"class,omitempty"`
	Errno  uint64         `json:"errno,omitempty"`
	Denied bool           `json:"denied,omitempty"` // fs.ErrPermission
}

func failed(err error) *failure {
	if err == nil {
		return nil
	}
	f := &failure{Text: err.Error(), Class: fettle.ClassOf(err), Denied: errors.Is(err, fs.ErrPermission)}
	var e *fettle.Error
	if errors.As(err, &e) && e.Err != nil {
		f.Text, f.Hint, f.Op, f.On = e.Err.Error(), e.Hint, e.Op, e.Subject
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		f.Errno = uint64(errno)
	}
	return f
}

// remote is an error that came over the socket.
type remote struct {
	text  string
	cause error
}

func (r *remote) Error() string { return r.text }
func (r *remote) Unwrap() error { return r.cause }

func (f *failure) err() error {
	var cause error
	switch {
	case f.Errno != 0:
		cause = syscall.Errno(f.Errno)
	case f.Denied:
		cause = fs.ErrPermission
	case f.Class == fettle.Unsupported:
		cause = fettle.ErrNotSupported
	}
	err := &remote{f.Text, cause}
	if f.Op == "" && f.Class != fettle.NoAnswer {
		return err
	}
	return &fettle.Error{Op: f.Op, Subject: f.On, Class: f.Class, Err: err, Hint: f.Hint}
}

// writeFrame writes a message: four bytes of length, big endian, and JSON.
func writeFrame(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(data) > maxFrame {
		return fmt.Errorf("the message has %d bytes, at most %d are sent", len(data), maxFrame)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(data)), uint32(len(data))), data...))
	return err
}

// readFrame reads a message. Room is made as it comes, not as it is announced.
func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return fmt.Errorf("a message of %d bytes is announced, at most %d are taken", n, maxFrame)
	}
	data, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return err
	}
	if len(data) < int(n) {
		return io.ErrUnexpectedEOF
	}
	return json.Unmarshal(data, v)
}
