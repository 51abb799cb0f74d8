package cli

import (
	"testing"
	"time"
)

func TestMoment(t *testing.T) {
	zone := time.FixedZone("here", 2*3600)
	now := time.Date(2026, 12, 1, 22, 30, 0, 0, zone)
	for text, want := range map[string]string{
		"2026-12-05 02:00":     "2026-12-05T02:00:00+02:00",
		"2026-12-05T02:00":     "2026-12-05T02:00:00+02:00",
		"2026-12-05T02:00:00Z": "2026-12-05T02:00:00Z",
		"23:00":                "2026-12-01T23:00:00+02:00",
		"02:00":                "2026-12-02T02:00:00+02:00",
	} {
		if got, err := moment(text, now); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%s: %v %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "tomorrow", "25:00", "2026-13-01 00:00"} {
		if got, err := moment(text, now); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}
