//go:build !labkill

package moment

import "testing"

// TestNothing: in what is shipped nobody asks what a moment is about, so nobody chooses
// one.
func TestNothing(t *testing.T) {
	for _, part := range []string{"server", "agent"} {
		Reached(part, func() string {
			t.Errorf("the %s is asked at what moment it is", part)
			return ""
		})
	}
}
