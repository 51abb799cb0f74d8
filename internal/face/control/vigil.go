package control

import (
	"context"
	"sync"
	"time"

	"fettle/internal/fleet/store"
)

// relieveEvery is how often it is tried to end the term of a leader that is gone. What
// the store's members pass on to a member that has died is lost, so one try is short;
// they elect another within a second.
const relieveEvery = 200 * time.Millisecond

// vigil watches the process of the server that leads, from one that does not. Where
// that ends its term ends at once: nobody waits until its lease does. Where its machine
// is gone or cut off, nothing can tell, and the lease is waited for.
type vigil struct {
	c     *Server
	group sync.WaitGroup
	at    store.Leader
	end   context.CancelFunc
}

// over watches whoever leads now, and nobody else. It is called by one goroutine, and
// does not block.
func (v *vigil) over(ctx context.Context, l store.Leader) {
	if l == v.at {
		return
	}
	v.close()
	if v.at = l; l.Name == "" || l.Name == v.c.srv.Subject().Name() {
		return
	}
	watching, end := context.WithCancel(ctx)
	v.end = end
	v.group.Go(func() {
		if !v.c.srv.Outlives(watching, l.Address) {
			return
		}
		v.c.o.Log.Warn("the server that led is gone: its term is ended", "server", l.Name, "address", l.Address)
		for watching.Err() == nil {
			try, stop := context.WithTimeout(watching, relieveEvery)
			err := v.c.st.Relieve(try, l)
			stop()
			if err == nil {
				return
			}
			pause(watching, relieveEvery/10)
		}
	})
}

// close ends the watch. Whoever ends it for good waits for the group.
func (v *vigil) close() {
	if v.end != nil {
		v.end()
		v.end = nil
	}
}
