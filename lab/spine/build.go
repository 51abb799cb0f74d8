package spine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build builds the binary that is shipped, static, into dir, and returns its
// path. Tests call it once, from TestMain. It blocks for as long as the compiler
// takes: seconds, or minutes with cold caches. With build tags it is another binary,
// which is not shipped.
func Build(dir string, tags ...string) (string, error) {
	path := filepath.Join(dir, strings.Join(append([]string{"fettle"}, tags...), "-"))
	// As the Makefile builds it, so that both share the compiler's cache.
	cmd := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=lab", "-tags", strings.Join(tags, ","), "-o", path, "fettle/cmd/fettle")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build fettle: %w\n%s", err, out)
	}
	return path, nil
}
