package control

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOneProcessAFolder: a second one is refused at once, with what to do; when
// the first has gone the folder is free.
func TestOneProcessAFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := lock(dir); !errors.Is(err, ErrRunning) || second != nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("a second process gets %v, %v", second, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("others may look into the folder: %v %v", info.Mode(), err)
	}
	file := filepath.Join(dir, "lock", "below-a-file")
	if _, err := lock(file); err == nil || errors.Is(err, ErrRunning) {
		t.Errorf("a folder that cannot be made: %v", err)
	}
}
