package spine

import (
	"testing"
	"time"
)

// patience bounds every wait. It is far above what anything here takes, so that
// reaching it means that the event did not come, not that the machine was busy.
const patience = 90 * time.Second

// pause is the time between two looks: of the order of what one look takes.
const pause = 50 * time.Millisecond

// Until looks again and again until ok says true, and fails the test, saying
// what was waited for, if that does not happen within a minute and a half.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.NewTimer(patience)
	defer end.Stop()
	again := time.NewTicker(pause)
	defer again.Stop()
	for !ok() {
		select {
		case <-again.C:
		case <-t.Context().Done():
			t.Fatalf("waiting for %s: the test was ended", what)
		case <-end.C:
			t.Fatalf("waited %v in vain for %s", patience, what)
		}
	}
}
