package executor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSpareNeedsNoRoom: replacing the file takes no block that it does not have.
func TestSpareNeedsNoRoom(t *testing.T) {
	s := Spare{Path: filepath.Join(t.TempDir(), "f")}
	inodes := map[uint64]bool{}
	for i := range 10 {
		text := fmt.Sprintf("text %d %s.", i, strings.Repeat("x", i*100))
		if err := s.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(s.Path)
		if err != nil || strings.TrimRight(string(got), " ") != text || len(got) != spareRoom {
			t.Fatalf("it holds %d bytes, %.40q, %v", len(got), got, err)
		}
		for _, path := range []string{s.Path, s.other()} {
			inodes[inode(t, path)] = true
		}
	}
	if len(inodes) != 2 {
		t.Errorf("%d files were made for ten times of writing, want 2", len(inodes))
	}
	if err := s.Write(bytes.Repeat([]byte{'y'}, 3*spareRoom)); err != nil {
		t.Fatal(err)
	}
	if err := s.Write([]byte("short")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(s.Path); err != nil || strings.TrimRight(string(got), " ") != "short" {
		t.Errorf("after a long text: %.20q, %v", got, err)
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}
