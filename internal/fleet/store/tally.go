package store

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// tally is how many bytes the fleet's keys and values take in an existing etcd, as they
// are now. Its file is shared with others, and its owner says for how long it keeps what
// was overwritten, so neither is counted. All is read once, and then each change is told:
// a server hears of each write once, as its own member of a store would.
type tally struct {
	mu    sync.Mutex
	of    map[string]int64 // by key
	sum   int64
	told  bool // of every change
	stop  context.CancelFunc
	group sync.WaitGroup // who takes in what is told
}

// SizeInUse implements sized. 0 before the first count.
func (t *tally) SizeInUse() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sum
}

// Size implements sized.
func (t *tally) Size() int64 { return t.SizeInUse() }

// count begins to count, the first time, and where the store tells of no more changes. Not
// by two at once. What it begins ends with ctx, or with close.
func (t *tally) count(ctx context.Context, e *Etcd) error {
	t.mu.Lock()
	told := t.told
	t.mu.Unlock()
	if told {
		return nil
	}
	t.close()
	now, err := e.get(ctx, keyFleet)
	if err != nil {
		return fmt.Errorf("count the fleet's keys: %w", explain(err))
	}
	all := tally{of: map[string]int64{}}
	err = e.eachAt(ctx, now.Header.Revision, func(key string, value []byte) error {
		all.note(key, value, false)
		return nil
	})
	if err != nil {
		return fmt.Errorf("count the fleet's keys: %w", explain(err))
	}
	ctx, stop := context.WithCancel(clientv3.WithRequireLeader(ctx))
	changes := e.client.Watch(ctx, first, clientv3.WithRange(last), clientv3.WithRev(now.Header.Revision+1), clientv3.WithFragment())
	t.mu.Lock()
	t.of, t.sum, t.told, t.stop = all.of, all.sum, true, stop
	t.mu.Unlock()
	t.group.Go(func() { t.follow(changes) })
	return nil
}

// follow takes in changes until no more are told.
func (t *tally) follow(changes clientv3.WatchChan) {
	for r := range changes {
		t.mu.Lock()
		for _, event := range r.Events {
			t.note(string(event.Kv.Key), event.Kv.Value, event.Type == clientv3.EventTypeDelete)
		}
		t.mu.Unlock()
	}
	t.mu.Lock()
	t.told = false
	t.mu.Unlock()
}

func (t *tally) note(key string, value []byte, gone bool) {
	t.sum -= t.of[key]
	delete(t.of, key)
	if !gone {
		t.of[key] = int64(len(key) + len(value))
		t.sum += t.of[key]
	}
}

// close ends what count began, and waits for it.
func (t *tally) close() {
	t.mu.Lock()
	stop := t.stop
	t.mu.Unlock()
	if stop != nil {
		stop()
	}
	t.group.Wait()
}

const (
	// ownerEvery is how often an existing etcd is asked whether it takes writes.
	ownerEvery = 10 * time.Second
	// The alarms under which etcd takes no writes: its file has reached its quota, its
	// members have different content.
	noSpace, corrupt = "NOSPACE", "CORRUPT"
)

// outsideAlarm says why an existing etcd takes no writes, "" where it does. Any member
// knows it.
func (k *Keeper) outsideAlarm(ctx context.Context) string {
	now := k.o.Wall()
	if now.Sub(k.asked) < ownerEvery {
		return k.alarmText
	}
	for _, from := range k.e.o.Existing.Endpoints {
		bound, cancel := context.WithTimeout(ctx, statusWait)
		status, err := k.e.client.Status(bound, from)
		cancel()
		if err != nil {
			continue // the next one knows it, too; where none answers nothing is known anew
		}
		k.asked, k.alarmText = now, ""
		for _, raised := range status.Errors {
			for _, kind := range []string{noSpace, corrupt} {
				if strings.Contains(raised, kind) {
					k.alarmText = fmt.Sprintf("the etcd that holds the store has raised its %s alarm and takes no writes, of nobody; it is not Fettle's to mend (its owner looks with etcdctl endpoint status and etcdctl alarm list, and for want of space compacts and defragments it, or raises its --quota-backend-bytes, and then runs etcdctl alarm disarm)", kind)
				}
			}
		}
		return k.alarmText
	}
	return k.alarmText
}
