//go:build crash

package crash

import "testing"

// TestKilled kills at every moment.
func TestKilled(t *testing.T) {
	var list []result
	for _, s := range scenarios(t) {
		t.Run(s.name, func(t *testing.T) {
			list = append(list, disturb(t, s, func(all []death) []death { return all }))
		})
	}
	table(t, list)
}
