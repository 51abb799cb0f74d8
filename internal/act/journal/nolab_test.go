//go:build !lab

package journal

import "fmt"

// childModes has no more modes without the lab.
func childModes(mode, _ string) error { return fmt.Errorf("no child mode %q", mode) }
