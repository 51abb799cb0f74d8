//go:build lab

package spine_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/lab/spine"
)

const (
	loadPrefix = "load/"
	// loadPace is the time between two writes: a client that is always there, and
	// leaves the machine to what is tested.
	loadPace = 10 * time.Millisecond
	// loadPatience is how long the client waits for an answer.
	loadPatience = time.Second
)

// etcdLoad is a client that writes all the time, each key once, and remembers
// what was acknowledged.
type etcdLoad struct {
	t    *testing.T
	stop func() // ends it and waits for that; may be called again

	mu     sync.Mutex
	acked  map[string]string
	failed int
}

func startLoad(t *testing.T, c *etcdCluster) *etcdLoad {
	ctx, cancel := context.WithCancel(t.Context())
	l := &etcdLoad{t: t, acked: map[string]string{}}
	cl := c.client(c.Hosts()...)
	var group sync.WaitGroup
	group.Go(func() { l.run(ctx, cl) })
	l.stop = sync.OnceFunc(func() {
		cancel()
		group.Wait()
		cl.Close()
	})
	t.Cleanup(l.stop)
	return l
}

func (l *etcdLoad) run(ctx context.Context, cl *clientv3.Client) {
	pace := time.NewTicker(loadPace)
	defer pace.Stop()
	for i := 0; ; i++ {
		key, value := fmt.Sprintf("%s%06d", loadPrefix, i), fmt.Sprintf("value %d %s", i, strings.Repeat("x", i%200))
		callCtx, cancel := context.WithTimeout(ctx, loadPatience)
		_, err := cl.Put(callCtx, key, value)
		cancel()
		l.mu.Lock()
		if err == nil {
			l.acked[key] = value
		} else {
			l.failed++
		}
		l.mu.Unlock()
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
	}
}

func (l *etcdLoad) acknowledged() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.acked)
}

func (l *etcdLoad) failures() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// waitMore waits until so many further writes were acknowledged.
func (l *etcdLoad) waitMore(n int) {
	l.t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.acked)
	}
	until := count() + n
	spine.Until(l.t, fmt.Sprintf("%d further writes", n), func() bool { return count() >= until })
}
