package spine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build builds the binary that is shipped, static, into dir, and returns its
// path. Tests call it once, from TestMain. It blocks for as long as the compiler
// takes: seconds, or minutes with cold caches.
func Build(dir string) (string, error) {
	path := filepath.Join(dir, "fettle")
	// As the Makefile builds it, so that both share the compiler's cache.
	cmd := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=lab", "-o", path, "fettle/cmd/fettle")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build fettle: %w\n%s", err, out)
	}
	return path, nil
}
