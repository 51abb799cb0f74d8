package linuxmachine

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"fettle/internal/machine"
)

// chunk is the most that one call reads or writes; the buffer is the stream's
// own, since a call that hangs may still use it after it was given up on.
const chunk = 256 << 10

// Open opens a regular file. Reading ends when ctx does.
func (f *files) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	file, err := call(ctx, f.lanes, "open", path, func() (*os.File, error) { return openRegular(path) }, closeFile)
	if err != nil {
		return nil, err
	}
	return &stream{ctx: ctx, lanes: f.lanes, path: path, file: file}, nil
}

// Create makes a new file. Writing and Sync end when ctx does.
func (f *files) Create(ctx context.Context, path string, perm fs.FileMode) (machine.Writer, error) {
	file, err := call(ctx, f.lanes, "create", path, func() (*os.File, error) {
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, perm.Perm())
		if err != nil {
			return nil, err
		}
		if err := file.Chmod(perm.Perm()); err != nil { // past the umask
			file.Close()
			return nil, err
		}
		return file, nil
	}, closeFile)
	if err != nil {
		return nil, err
	}
	return &stream{ctx: ctx, lanes: f.lanes, path: path, file: file}, nil
}

func closeFile(f *os.File) { f.Close() }

// stream is an open file, for one user at a time.
type stream struct {
	ctx   context.Context
	lanes *lanes
	path  string

	mu   sync.Mutex
	file *os.File // nil: closed
	free []byte   // a buffer that no call is using
}

func (s *stream) take() (*os.File, []byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil, nil, fmt.Errorf("%s: %w", s.path, fs.ErrClosed)
	}
	b := s.free
	s.free = nil
	if b == nil {
		b = make([]byte, chunk)
	}
	return s.file, b, nil
}

func (s *stream) give(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = b
}

func (s *stream) Read(p []byte) (int, error) {
	file, buffer, err := s.take()
	if err != nil {
		return 0, err
	}
	if len(p) == 0 {
		s.give(buffer)
		return 0, nil
	}
	want := min(len(p), chunk)
	n, err := call(s.ctx, s.lanes, "read", s.path, func() (int, error) {
		n, err := file.Read(buffer[:want])
		if n == 0 && err == io.EOF {
			return -1, nil // the one error that is not wrapped
		}
		return n, err
	}, nil)
	switch {
	case err != nil:
		return 0, err // the buffer stays with the call that may hang
	case n < 0:
		s.give(buffer)
		return 0, io.EOF
	}
	copy(p, buffer[:n])
	s.give(buffer)
	return n, nil
}

func (s *stream) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		file, buffer, err := s.take()
		if err != nil {
			return done, err
		}
		part := buffer[:copy(buffer, p[done:])]
		type wrote struct {
			n   int
			err error
		}
		w, err := call(s.ctx, s.lanes, "write", s.path, func() (wrote, error) {
			n, err := file.Write(part)
			return wrote{n, err}, nil
		}, nil)
		done += w.n
		if err != nil {
			return done, err
		}
		s.give(buffer)
		if w.err != nil {
			return done, fmt.Errorf("write %s: %w", s.path, bare(w.err))
		}
	}
	return done, nil
}

// Sync makes content and name durable.
func (s *stream) Sync() error {
	s.mu.Lock()
	file := s.file
	s.mu.Unlock()
	if file == nil {
		return fmt.Errorf("%s: %w", s.path, fs.ErrClosed)
	}
	return do(s.ctx, s.lanes, "sync", s.path, func() error {
		if err := file.Sync(); err != nil {
			return err
		}
		return syncDir(filepath.Dir(s.path))
	})
}

// Close also works after the context has ended: on a hung mount it lets go of
// the descriptor in the background.
func (s *stream) Close() error {
	s.mu.Lock()
	file := s.file
	s.file = nil
	s.mu.Unlock()
	if file == nil {
		return fmt.Errorf("%s: %w", s.path, fs.ErrClosed)
	}
	if s.ctx.Err() != nil {
		go file.Close()
		return nil
	}
	return do(s.ctx, s.lanes, "close", s.path, file.Close)
}
