//go:build crash

package crash

import "testing"

// TestKilled kills at every moment.
func TestKilled(t *testing.T) {
	killed(t, scenarios(t), func(_ int, all []death) []death { return all })
}
