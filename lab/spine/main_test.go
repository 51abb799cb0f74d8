//go:build lab

package spine_test

import (
	"fmt"
	"os"
	"testing"

	"fettle/lab/spine"
)

// binary is what is tested, built once for all tests.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fettle-spine-")
	if err == nil {
		defer os.RemoveAll(dir)
		binary, err = spine.Build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
