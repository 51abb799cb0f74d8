package filesystem

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
)

// write compresses a file into a new one and returns the hash of what it read.
func (a compressLogs) write(ctx context.Context, f file, to string) ([]byte, error) {
	in, err := a.m.Files.Open(ctx, f.path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out, err := a.m.Files.Create(ctx, to, f.stat.Mode.Perm())
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	buffered := bufio.NewWriterSize(out, 1<<20)
	z := gzip.NewWriter(buffered)
	_, err = io.Copy(io.MultiWriter(z, h), in)
	err = errors.Join(err, z.Close(), buffered.Flush(), out.Sync(), out.Close())
	return h.Sum(nil), err
}

// verify reads a compressed file back and compares the hash of what it holds.
func (a compressLogs) verify(ctx context.Context, gz string, want []byte) error {
	in, err := a.m.Files.Open(ctx, gz)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := gzip.NewReader(bufio.NewReader(in))
	if err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(h, z); err != nil {
		return err
	}
	if got := h.Sum(nil); string(got) != string(want) {
		return errors.New("the compressed copy does not hold what the original does")
	}
	return nil
}

func (a compressLogs) sum(ctx context.Context, p string) ([]byte, error) {
	in, err := a.m.Files.Open(ctx, p)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	h := sha256.New()
	_, err = io.Copy(h, in)
	return h.Sum(nil), err
}

// quoted makes a path safe to paste into a shell.
func quoted(p string) string {
	if strings.Trim(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return p
	}
	return "'" + strings.ReplaceAll(p, "'", `'\''`) + "'"
}
