//go:build lab

package lab

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFailedBuildLeavesNothing(t *testing.T) {
	cache := t.TempDir()
	im := DefaultImage().With("no-such-package-of-debian")
	if _, err := im.Ensure(testContext(t), cache, testLog{t}); err == nil || !strings.Contains(err.Error(), "no-such-package-of-debian") {
		t.Errorf("got %v", err)
	}
	left, err := filepath.Glob(filepath.Join(cache, "*"))
	if err != nil || len(left) != 1 || !strings.HasSuffix(left[0], ".lock") {
		t.Errorf("left %q, %v", left, err)
	}
}

func TestImageIsFoundAgain(t *testing.T) {
	ctx := testContext(t)
	first, err := DefaultImage().Ensure(ctx, "", testLog{t})
	if err != nil {
		t.Fatal(err)
	}
	before, err1 := os.Stat(first)
	again, err2 := DefaultImage().Ensure(ctx, "", testLog{t})
	after, err3 := os.Stat(again)
	if err := errors.Join(err1, err2, err3); err != nil || again != first || !os.SameFile(before, after) {
		t.Errorf("built again: %s, then %s, %v", first, again, err)
	}
	// Nothing that hosts do is written to it.
	for _, path := range []string{"root/kept", "run/xtables.lock", "etc/hostname.lab", "etc/systemd/network/10-host0.network"} {
		if _, err := os.Stat(filepath.Join(first, path)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is in the image: %v", path, err)
		}
	}
}
