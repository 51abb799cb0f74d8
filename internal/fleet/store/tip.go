package store

import (
	"errors"
	"sync/atomic"

	"fettle/internal/loop"
)

// errNotLoaded says that nobody leads with this store yet, or any more.
var errNotLoaded = errors.New("the store is not loaded")

// tip is the end of the log as it was last committed under this process's token. It
// is read without waiting for a commit under way.
type tip struct{ at atomic.Pointer[loop.Tip] }

func (t *tip) set(epoch uint64, head loop.Head) { t.at.Store(&loop.Tip{Epoch: epoch, Head: head}) }

func (t *tip) get() (loop.Tip, error) {
	at := t.at.Load()
	if at == nil {
		return loop.Tip{}, errNotLoaded
	}
	return *at, nil
}
