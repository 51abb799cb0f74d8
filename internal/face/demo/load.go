package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// writers is how many clients write and read all the time. Four keep a small
// cluster busy without taking the two cores from the repair.
const writers = 4

// callTimeout is how long a client waits for one answer before it counts the
// call as failed and tries again.
const callTimeout = 700 * time.Millisecond

// load writes to the cluster and reads from it all the time, as its users would,
// and remembers every write that was acknowledged.
type load struct {
	endpoints []string

	mu    sync.Mutex
	acked map[string]string

	wrong  atomic.Int64 // reads that did not return what had been acknowledged
	lastOK atomic.Int64 // of a write, unix nanoseconds
}

func newLoad(endpoints []string) *load {
	return &load{endpoints: endpoints, acked: map[string]string{}}
}

// quiet silences etcd's client, which logs every retry.
func client(endpoints ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: time.Second, Logger: zap.NewNop()})
}

// Run writes and reads until ctx ends.
func (l *load) Run(ctx context.Context) error {
	var group sync.WaitGroup
	errs := make([]error, writers)
	for n := range writers {
		group.Go(func() { errs[n] = l.one(ctx, n) })
	}
	group.Wait()
	return errors.Join(errs...)
}

func (l *load) one(ctx context.Context, n int) error {
	c, err := client(l.endpoints...)
	if err != nil {
		return fmt.Errorf("client %d: %w", n, err)
	}
	defer c.Close()
	for i := 0; ctx.Err() == nil; i++ {
		l.write(ctx, c, fmt.Sprintf("demo/client%d/%06d", n, i), fmt.Sprintf("value %d of client %d", i, n))
		l.read(ctx, c)
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			break
		}
	}
	return nil
}

// pause waits, or returns when ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *load) write(ctx context.Context, c *clientv3.Client, key, value string) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := c.Put(ctx, key, value); err != nil {
		return // not acknowledged: it may be there or not
	}
	l.lastOK.Store(time.Now().UnixNano())
	l.mu.Lock()
	l.acked[key] = value
	l.mu.Unlock()
}

// read reads back a write that was acknowledged and counts what is not as it was
// written.
func (l *load) read(ctx context.Context, c *clientv3.Client) {
	l.mu.Lock()
	var key, want string
	skip := rand.IntN(8)
	for k, v := range l.acked {
		key, want = k, v
		if skip--; skip < 0 {
			break
		}
	}
	l.mu.Unlock()
	if key == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := c.Get(ctx, key)
	if err != nil {
		return // no answer is no wrong answer
	}
	if len(r.Kvs) != 1 || string(r.Kvs[0].Value) != want {
		l.wrong.Add(1)
	}
}

// snapshot returns the acknowledged writes so far.
func (l *load) snapshot() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]string, len(l.acked))
	for k, v := range l.acked {
		out[k] = v
	}
	return out
}

// lost looks up every acknowledged write, key and value, on one member alone,
// and returns the keys that it does not hold as they were written. A member that
// cannot be asked is an error, never "nothing lost".
func lost(ctx context.Context, endpoint string, acked map[string]string) ([]string, error) {
	c, err := client(endpoint)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	have := make(map[string]string, len(acked))
	from := "demo/"
	for {
		r, err := c.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd("demo/")), clientv3.WithLimit(5000), clientv3.WithSerializable())
		if err != nil {
			return nil, fmt.Errorf("read everything from %s: %w", endpoint, err)
		}
		for _, kv := range r.Kvs {
			have[string(kv.Key)] = string(kv.Value)
		}
		if !r.More {
			break
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
	var missing []string
	for k, v := range acked {
		if have[k] != v {
			missing = append(missing, k)
		}
	}
	slices.Sort(missing)
	return missing, nil
}

// fillQuota writes large values until the cluster says that its space is used
// up. They are the demo's own and are deleted afterwards by nobody: what makes
// room is compaction, which is what Fettle must find out.
func fillQuota(ctx context.Context, endpoints []string, progress io.Writer) error {
	c, err := client(endpoints...)
	if err != nil {
		return err
	}
	defer c.Close()
	value := make([]byte, 512<<10)
	for i := range value {
		value[i] = byte(i)
	}
	for i := range 4096 {
		callCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := c.Put(callCtx, "fill/one-key", string(value))
		cancel()
		switch {
		case err != nil && isNoSpace(err):
			fmt.Fprintf(progress, "  %d overwrites of one key later the quota is used up by its history\n", i)
			return nil
		case err != nil:
			return fmt.Errorf("fill the quota: %w", err)
		}
	}
	return errors.New("the quota was never reached")
}
