package procservices

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
)

const (
	ringLines  = 1000    // kept of each service, enough for evidence
	lineBytes  = 8 << 10 // a longer line is cut into several
	logMaximum = 8 << 20 // a log file that is longer at a start is moved to .1
)

// ring holds the last lines of a service's output.
type ring struct {
	mu    sync.Mutex
	lines []string
	first int // of lines, where the oldest is, once it is full
}

func (r *ring) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines, r.first = nil, 0
}

func (r *ring) add(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) < ringLines {
		r.lines = append(r.lines, line)
		return
	}
	r.lines[r.first] = line
	r.first = (r.first + 1) % ringLines
}

func (r *ring) last(n int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.Concat(r.lines[r.first:], r.lines[:r.first])
	return all[max(0, len(all)-max(0, n)):]
}

// drain reads a service's output to its end, into the ring and a file. When the
// file cannot be written any more (a full disk), the service goes on and the
// ring says so once.
func (r *ring) drain(from io.ReadCloser, file *os.File) {
	defer from.Close()
	if file != nil {
		defer file.Close()
	}
	in := bufio.NewReaderSize(from, lineBytes)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			if file != nil {
				if _, werr := file.Write(line); werr != nil {
					r.add(fmt.Sprintf("(log file: %v; no more is written to it)", werr))
					file.Close()
					file = nil
				}
			}
			r.add(string(bytes.TrimRight(line, "\r\n")))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// openLog opens the log file for appending, after setting a long one aside.
func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > logMaximum {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
}
