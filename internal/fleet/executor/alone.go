package executor

import (
	"fmt"
	"sync"
	"time"

	"fettle/internal/fettle"
)

const (
	// aloneKeys is how many keys may be named within aloneSpan without a server's
	// signature. What a permit lets a host do is far less; each that is asked about is a
	// record of the journal.
	aloneKeys = 256
	aloneSpan = time.Hour
	// aloneBegin is how long a step under a permit may wait to begin where its action
	// names no time of its own: as long as it may then take (act/execute).
	aloneBegin = 2 * time.Minute
)

// alone counts what is handed over without a signature, under a standing permit.
type alone struct {
	mu    sync.Mutex
	since time.Time
	keys  map[string]bool
}

// admit reports whether one more may be.
func (a *alone) admit(key string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keys == nil || now.Sub(a.since) >= aloneSpan {
		a.since, a.keys = now, map[string]bool{}
	}
	if len(a.keys) >= aloneKeys && !a.keys[key] {
		return false
	}
	a.keys[key] = true
	return true
}

// underPermit is a dispatch that no server has signed, since there is none. Whether the
// permit that it names lets it, act/execute decides: that is signed, and kept here. By
// when it must begin is not the agent's to say.
func (e *Executor) underPermit(d fettle.Dispatch) (fettle.Dispatch, error) {
	now := e.o.Clock.Now()
	if len(d.Key) > maxAloneKey || !e.alone.admit(d.Key, now) {
		return d, fmt.Errorf("more than %d steps within %v are asked for without a server", aloneKeys, aloneSpan)
	}
	d.Token, d.Approval, d.Deadline = fettle.Token{}, nil, now.Add(e.within(d.Step))
	return d, nil
}

// maxAloneKey bounds such a key, in bytes, as act/execute does.
const maxAloneKey = 256

// within is how long a step may take, as its action's catalogue says.
func (e *Executor) within(s fettle.Step) time.Duration {
	for i := range e.o.Catalogues {
		if spec, ok := e.o.Catalogues[i].FindAction(s.Action); ok && spec.Timeout > 0 {
			return spec.Timeout
		}
	}
	return aloneBegin
}
