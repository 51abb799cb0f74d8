package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/tlog"
)

// window reads a file in large pieces and shows any part of it as a slice.
type window struct {
	r    io.ReaderAt
	size int64
	off  int64 // of buf
	buf  []byte
}

// windowSize is how much is read at once: large enough for the disk, small
// enough for an agent's memory.
const windowSize = 256 << 10

// view shows up to n bytes at off, fewer at the end of the file. The slice holds
// until the next call.
func (w *window) view(off int64, n int) ([]byte, error) {
	n = int(max(0, min(int64(n), w.size-off)))
	if off >= w.off && off+int64(n) <= w.off+int64(len(w.buf)) {
		return w.buf[off-w.off:][:n], nil
	}
	want := int(max(0, min(int64(max(n, windowSize)), w.size-off)))
	if cap(w.buf) < want {
		w.buf = make([]byte, want)
	}
	w.buf = w.buf[:want]
	w.off = off
	if k, err := w.r.ReadAt(w.buf, off); k < want {
		w.buf = w.buf[:0]
		return nil, fmt.Errorf("read at byte %d: %w", off+int64(k), err)
	}
	return w.buf[:n], nil
}

// frameAt parses the frame at off. errShort and errBad say that there is none.
func (w *window) frameAt(off int64) (frame, int, error) {
	b, err := w.view(off, frameHeader)
	if err != nil {
		return frame{}, 0, err
	}
	n, err := frameLength(b)
	if err != nil {
		return frame{}, 0, err
	}
	if b, err = w.view(off, n); err != nil {
		return frame{}, 0, err
	}
	return parseFrame(b)
}

// fresh forgets what was read and reports whether there is a whole frame at off
// now.
func (w *window) fresh(off int64) bool {
	w.buf = w.buf[:0]
	_, _, err := w.frameAt(off)
	return err == nil
}

// scanned is what a scan found.
type scanned struct {
	end  int64 // where the next frame goes
	torn int64 // bytes of a torn tail, from end to the last one that is not zero
}

// scan reads all frames from the header on into the tree and judges what stands
// after the last whole one. A *Damaged comes with what could be read before it.
func scan(ctx context.Context, r io.ReaderAt, size int64, t *tree) (scanned, error) {
	w := &window{r: r, size: size}
	at := int64(headerSize)
	s := scanned{end: at}
	type leaf struct {
		hash tlog.Hash
		at   int64
	}
	var group []leaf // of an AppendAll that is not complete yet
	damaged := func(why string, args ...any) (scanned, error) {
		return s, &Damaged{Offset: at, Records: t.size, Why: fmt.Sprintf(why, args...)}
	}
	for more := 0; ; {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		f, n, err := w.frameAt(at)
		if errors.Is(err, errShort) || errors.Is(err, errBad) {
			last, later, searchErr := w.search(at)
			switch {
			case searchErr != nil:
				return s, searchErr
			case later >= 0 && w.fresh(at):
				continue // a writer was at work between the two looks
			case later >= 0:
				return damaged("%s, and byte %d shows that it had been written", err, later)
			}
			s.torn = max(0, last+1-s.end)
			return s, nil
		}
		if errors.Is(err, errStrange) {
			return damaged("%s", err)
		}
		if err != nil {
			return s, err
		}
		expected := t.size + int64(len(group))
		switch {
		case f.number != expected:
			return damaged("record %d stands where %d belongs", f.number, expected)
		case f.durable > at:
			return damaged("a frame speaks of what stands after it")
		case more > 0 && (f.kindOf != typeRecord || f.more != more-1):
			return damaged("a group of records is broken off")
		}
		if f.kindOf == typeHead {
			root, err := t.root()
			if err != nil {
				return s, err
			}
			if !bytes.Equal(root[:], f.payload) {
				return damaged("the tree head over %d records is not the one that was written", t.size)
			}
		} else {
			group = append(group, leaf{tlog.RecordHash(f.leaf), at})
			more = f.more
		}
		at += int64(n)
		if more > 0 {
			continue
		}
		for _, l := range group {
			t.add(l.hash, l.at)
		}
		group = group[:0]
		s.end = at
	}
}

// search looks behind an offset at which no frame could be read. It returns the
// last byte that is not zero (at or after off, else off-1) and where a whole frame stands
// that had been written after off was durable, else -1.
func (w *window) search(off int64) (last, later int64, err error) {
	last, later = off-1, -1
	for p := off; p < w.size; {
		b, err := w.view(p, windowSize)
		if err != nil {
			return last, later, err
		}
		if n := len(bytes.TrimRight(b, "\x00")); n > 0 {
			last = p + int64(n) - 1
		}
		step := int64(len(b))
		for i := 0; ; i++ {
			j := bytes.Index(b[i:], frameMagic)
			if j < 0 {
				break
			}
			i += j
			if p+int64(i) == off {
				continue
			}
			f, _, err := w.frameAt(p + int64(i))
			if err == nil && f.durable > off {
				return last, p + int64(i), nil
			}
			if err != nil && !errors.Is(err, errShort) && !errors.Is(err, errBad) && !errors.Is(err, errStrange) {
				return last, later, err
			}
			if b, err = w.view(p, int(step)); err != nil { // frameAt may have moved the window
				return last, later, err
			}
		}
		if p+step < w.size && step > int64(len(frameMagic)) {
			step -= int64(len(frameMagic)) - 1 // a magic may lie across two windows
		}
		p += step
	}
	return last, later, nil
}
