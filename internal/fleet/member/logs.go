package member

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// undecryptable is what memberlist says of gossip that no installed key opens: the
// only way in which it tells. The test with a wrong key fails when it changes.
const undecryptable = "no installed keys could decrypt"

// repeatWarning is how often a warning that goes on is given again.
const repeatWarning = time.Minute

// logs turns memberlist's log into ours: everything to debug, since what matters comes
// as events, and gossip with a wrong key to one warning, counted.
type logs struct {
	to *slog.Logger

	mu      sync.Mutex
	refused int       // packets and streams that no key opens
	warned  time.Time // when that was last said
	since   int       // refused since then
}

func (l *logs) logger() *log.Logger { return log.New(l, "", 0) }

// Write takes one line, as package log hands it over.
func (l *logs) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	l.to.DebugContext(context.Background(), text, "from", "memberlist")
	if strings.Contains(text, undecryptable) {
		l.countRefused(text)
	}
	return len(line), nil
}

func (l *logs) countRefused(text string) {
	l.mu.Lock()
	l.refused++
	l.since++
	now := time.Now()
	say := l.warned.IsZero() || now.Sub(l.warned) >= repeatWarning
	count := l.since
	if say {
		l.warned, l.since = now, 0
	}
	l.mu.Unlock()
	if !say {
		return
	}
	_, from, _ := strings.Cut(text, "from=")
	l.to.Warn("gossip that no installed key opens is refused: a member with an old key, one of another ring, or somebody who should not be there",
		"from", from, "times", count)
}

func (l *logs) undecrypted() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}
