package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/store/storetest"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// crashOptions are of the store whose keeper is killed.
func crashOptions(path string) store.EtcdOptions {
	return store.EtcdOptions{Dir: path, Fleet: storetest.Fleet, Limits: store.Limits{Quota: quota, SegmentEntries: 10, KeepEntries: 5, KeepIncidents: 3}}
}

// keeperOf forgets all incidents that have ended but the newest.
func keeperOf(e *store.Etcd, forget func([]string)) *store.Keeper {
	return store.NewKeeper(e, store.KeeperOptions{
		Forgettable: func(ctx context.Context, newest int, _ time.Time) ([]string, error) {
			s, err := e.Records(ctx)
			if err != nil {
				return nil, err
			}
			return s[:max(0, len(s)-newest)], nil
		},
		Forget: forget,
	})
}

// over is an incident that has ended, with a number that sorts.
func over(n int64) incident.Record {
	r := storetest.Record(fmt.Sprintf("i%06d", n), 1)
	r.State, r.Ended, r.Why = fettle.Resolved, time.Unix(n, 0).UTC(), strconv.FormatInt(n, 10)
	return r
}

// sealUntil commits and seals until the keeper has done a step so many times (STEP*N),
// and then kills its own process.
func sealUntil(at, path string) error {
	step, times, _ := strings.Cut(at, "*")
	left, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	ctx := context.Background()
	path, endpoint, outside := strings.Cut(path, "@")
	o := crashOptions(path)
	if outside {
		o.Existing = &store.Existing{Where: store.Where{Endpoints: []string{endpoint}}, Name: "one", Address: "nowhere:1"}
	}
	e, err := store.OpenEtcd(ctx, o)
	if err != nil {
		return err
	}
	if outside {
		if _, err := e.Campaign(ctx); err != nil {
			return err
		}
	}
	s, err := e.Load(ctx)
	if err != nil {
		return err
	}
	k := keeperOf(e, nil)
	store.StopAt(k, func(done string) {
		if done != step {
			return
		}
		if left--; left == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // it does not return
		}
	})
	for n := s.Head.Entries + 1; n < s.Head.Entries+1000; n += 4 {
		txn := loop.Txn{Token: s.Token, Records: []incident.Record{over(n)}}
		for i := range int64(4) {
			txn.Log = append(txn.Log, storetest.Entry(strconv.FormatInt(n+i, 10)))
		}
		if err := e.Commit(ctx, txn); err != nil {
			return err
		}
		fmt.Println(n)
		if err := k.Round(ctx); err != nil {
			return err
		}
	}
	return errors.New("the step was never done: " + at)
}

// TestKilledWhileSealing kills the process at each step of moving things to files, again
// and again on the same store: no entry and no incident is lost or doubled, and the next
// one goes on.
func TestKilledWhileSealing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	steps := []string{"made*1", "made*2", "in place*1", "in place*2", "offered*1", "offered*3", "held*2", "held*4", "sealed*1", "sealed*2", "dropped*1", "taken out*1", "held*9"}
	killedWhileSealing(t, steps, path, func() (*store.Etcd, loop.State, func() error) {
		e, s := loaded(t, crashOptions(path))
		return e, s, e.Close
	})
}

// killedWhileSealing has a child open the store in a folder (PATH, or PATH@ENDPOINT where it
// is in an existing etcd) and kills it at each of the steps.
func killedWhileSealing(t *testing.T, steps []string, path string, open func() (*store.Etcd, loop.State, func() error)) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	incidents := map[string]bool{}
	before := int64(0)
	for _, at := range steps {
		child := exec.CommandContext(t.Context(), self)
		child.Env = append(os.Environ(), childEnv+"="+at+"@"+path)
		child.Stderr = os.Stderr
		out, err := child.Output()
		if err == nil || child.ProcessState.ExitCode() != -1 {
			t.Fatalf("%s: the child was not killed: %v", at, child.ProcessState)
		}
		for _, n := range strings.Fields(string(out)) {
			number, err := strconv.ParseInt(n, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			incidents[over(number).ID] = true
		}
		e, s, closeIt := open()
		n, sealed := whole(t, e)
		if n <= before {
			t.Errorf("%s: %d entries, and %d before", at, n, before)
		}
		before = n
		everyIncident(t, e, s, incidents)
		k := keeperOf(e, nil)
		for range 6 {
			if err := k.Round(t.Context()); err != nil {
				t.Errorf("%s: %v", at, err)
			}
		}
		everyIncident(t, e, s, incidents)
		if after, _ := whole(t, e); after < n || after-n > 6 {
			t.Errorf("%s: %d entries, %d after the next rounds", at, n, after)
		}
		u, _ := e.Usage()
		if first, in, err := store.EntriesInStore(t.Context(), e); err != nil || first != u.InFiles+1 || in != u.InStore || in > 40 {
			t.Errorf("%s: %d entries in etcd from %d on, %+v, %v", at, in, first, u, err)
		}
		t.Logf("%s: %d entries, %d segments", at, n, sealed)
		if err := closeIt(); err != nil {
			t.Fatal(err)
		}
	}
}

// everyIncident finds each incident in etcd or in a file, and none that never was.
func everyIncident(t *testing.T, e *store.Etcd, s loop.State, want map[string]bool) {
	t.Helper()
	found := map[string]int{}
	ids, err := e.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		found[id]++
	}
	err = e.Ended(t.Context(), func(i fettle.Incident) error {
		if i.Why == "" || i.State != fettle.Resolved {
			return fmt.Errorf("%+v", i)
		}
		found[i.ID] += 10
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for id := range want {
		if n := found[id]; n == 0 {
			t.Errorf("incident %s is lost", id)
		}
	}
	for id, n := range found {
		// One more may have been kept without anybody having been told.
		if n > 11 || n > 1 && n < 10 {
			t.Errorf("incident %s: %d times", id, n)
		}
		if n >= 10 {
			if _, ok, err := e.EndedIncident(t.Context(), id); !ok || err != nil {
				t.Errorf("incident %s is not found: %v", id, err)
			}
		}
	}
}
