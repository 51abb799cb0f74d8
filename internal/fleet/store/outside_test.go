package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"fettle/internal/fleet/store"
	"fettle/internal/fleet/store/storetest"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
	"fettle/internal/machine/loopback"
)

// etcdEnv makes this test binary an etcd server with its arguments.
const etcdEnv = "FETTLE_STORE_ETCD"

// outsider is an etcd cluster of real processes that is nobody's here: with the settings
// that etcd has out of the box.
type outsider struct {
	t         *testing.T
	endpoints []string
	processes []*os.Process
	limits    store.Limits
	dirs      map[string]string // of servers, by prefix and name
	*clientv3.Client
}

func startOutsider(t *testing.T, members int, more ...string) *outsider {
	t.Helper()
	o := &outsider{t: t, dirs: map[string]string{}}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var peers, all []string
	for i := range members {
		peers = append(peers, "http://"+loopback.Address(t))
		o.endpoints = append(o.endpoints, "http://"+loopback.Address(t))
		all = append(all, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	for i := range members {
		args := []string{"--name", fmt.Sprint("m", i), "--data-dir", filepath.Join(t.TempDir(), "data"), "--log-level", "error", "--unsafe-no-fsync",
			"--listen-client-urls", o.endpoints[i], "--advertise-client-urls", o.endpoints[i], "--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
			"--initial-cluster", strings.Join(all, ",")}
		cmd := exec.CommandContext(context.Background(), self, slices.Concat(args, more)...)
		cmd.Env, cmd.Stderr = append(os.Environ(), etcdEnv+"=1"), os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // it is not asked to end in good order
			_ = cmd.Wait()
		})
		o.processes = append(o.processes, cmd.Process)
	}
	o.Client = o.as("", "")
	return o
}

// as connects as a user.
func (o *outsider) as(user, password string) *clientv3.Client {
	o.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: o.endpoints, DialTimeout: 20 * time.Second, Username: user, Password: password, Logger: zap.NewNop()})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { _ = c.Close() }) // the processes end, too
	return c
}

func (o *outsider) where(prefix string) store.Where {
	return store.Where{Endpoints: o.endpoints, Prefix: prefix}
}

// put writes somebody's key, once the cluster answers.
func (o *outsider) put(key, value string) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), time.Minute)
	defer cancel()
	for {
		try, stop := context.WithTimeout(ctx, 2*time.Second)
		_, err := o.Put(try, key, value)
		stop()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			o.t.Fatal(err)
		}
	}
}

// keys are all that is there, but for what is below a prefix.
func (o *outsider) keys(but string) string {
	o.t.Helper()
	got, err := o.Get(o.t.Context(), "\x00", clientv3.WithFromKey())
	if err != nil {
		o.t.Fatal(err)
	}
	var list []string
	for _, kv := range got.Kvs {
		if !strings.HasPrefix(string(kv.Key), but) {
			list = append(list, fmt.Sprintf("%s=%s", kv.Key, kv.Value))
		}
	}
	return strings.Join(list, " ")
}

// dir is the folder of a server, the same whenever it is opened.
func (o *outsider) dir(prefix, name string) string {
	of := prefix + " " + name
	if o.dirs[of] == "" {
		o.dirs[of] = o.t.TempDir()
	}
	return o.dirs[of]
}

func (o *outsider) open(e store.Existing, fleet string) (*store.Etcd, error) {
	s, err := store.OpenEtcd(o.t.Context(), store.EtcdOptions{Dir: o.dir(e.Prefix, e.Name), Fleet: fleet, Existing: &e, Limits: o.limits})
	if err == nil {
		o.t.Cleanup(func() { _ = s.Close() }) // again, where the test did
	}
	return s, err
}

// must opens what has to be possible.
func (o *outsider) must(prefix, name string) *store.Etcd {
	o.t.Helper()
	s, err := o.open(store.Existing{Where: o.where(prefix), Name: name, Address: "nowhere:1", Found: true}, storetest.Fleet)
	if err != nil {
		o.t.Fatal(err)
	}
	enter(o.t, s, name)
	return s
}

// enter makes a server one of the fleet's.
func enter(t *testing.T, s *store.Etcd, name string) {
	t.Helper()
	if err := s.Shelf().Create(t.Context(), "servers", name, []byte(`{}`)); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
}

// elected is a store whose Load is preceded by an election, as in a server.
type elected struct {
	*store.Etcd
	term *store.Term
}

func (e *elected) resign() {
	if e.term != nil {
		_ = e.term.Resign() // where it cannot be said, the lease says it
		e.term = nil
	}
}

func (e *elected) Load(ctx context.Context) (loop.State, error) {
	e.resign()
	var err error
	if e.term, err = e.Campaign(ctx); err != nil {
		return loop.State{}, err
	}
	return e.Etcd.Load(ctx)
}

func (e *elected) Close() error {
	e.resign()
	return e.Etcd.Close()
}

// lead opens a store and has it elected.
func (o *outsider) lead(prefix, name string) (*elected, loop.State) {
	o.t.Helper()
	e := &elected{Etcd: o.must(prefix, name)}
	s, err := e.Load(o.t.Context())
	if err != nil {
		o.t.Fatal(err)
	}
	return e, s
}

// TestExisting: an etcd that is there is a store like every other, with changes that are
// larger than it takes at once; and what others keep in it stays as it is.
func TestExisting(t *testing.T) {
	o := startOutsider(t, 1)
	o.put("/fettl", "a")
	o.put("/fettle/", "b")
	o.put("/fettle/s1x", "c")
	o.put("/registry/pods/x", "d")
	o.put("zzz", "e")
	before, n := o.keys("nothing"), 0
	storetest.Run(t, func(t *testing.T) storetest.Open {
		n++
		prefix := fmt.Sprintf("/fettle/s%d/x", n)
		return func(t *testing.T) loop.Store { return closing(t, &elected{Etcd: o.must(prefix, "one")}) }
	})
	got, err := o.Get(t.Context(), "\x00", clientv3.WithFromKey(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	var rest []string
	for _, kv := range got.Kvs {
		if key := string(kv.Key); strings.Contains(key, "/stage") || strings.Contains(key, "/trial") {
			t.Errorf("%s was left behind", key)
		} else if parts := strings.SplitN(key, "/", 5); len(parts) < 5 || parts[1] != "fettle" || parts[3] != "x" {
			rest = append(rest, key)
		}
	}
	if want := "/fettl /fettle/ /fettle/s1x /registry/pods/x zzz"; strings.Join(rest, " ") != want {
		t.Errorf("outside of the prefixes is %v, want %v", rest, want)
	}
	for _, pair := range strings.Fields(before) {
		key, value, _ := strings.Cut(pair, "=")
		if got, err := o.Get(t.Context(), key); err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != value {
			t.Errorf("%s: %v, %v", pair, got, err)
		}
	}
}

// TestExistingIsLinearizable: as TestLinearizable, in a cluster of three processes, of
// which one after the other stands still, while one server after the other cannot reach
// any.
func TestExistingIsLinearizable(t *testing.T) {
	o := startOutsider(t, 3)
	o.put("others", "theirs")
	var stores []*store.Etcd
	var cuts []func(bool)
	for i := range 3 {
		var links []*link
		var endpoints []string
		for _, e := range o.endpoints {
			u, err := url.Parse(e)
			if err != nil {
				t.Fatal(err)
			}
			k := newLink(t, u.Host)
			t.Cleanup(k.close)
			links, endpoints = append(links, k), append(endpoints, "http://"+k.l.Addr().String())
		}
		s, err := o.open(store.Existing{Where: store.Where{Endpoints: endpoints}, Name: fmt.Sprint("s", i), Address: "nowhere:1", Found: true}, storetest.Fleet)
		if err != nil {
			t.Fatal(err)
		}
		enter(t, s, fmt.Sprint("s", i))
		stores = append(stores, s)
		cuts = append(cuts, func(cut bool) {
			for _, k := range links {
				k.set(cut)
			}
		})
	}
	cuts = append(cuts, func(still bool) {
		sig := syscall.SIGCONT
		if still {
			sig = syscall.SIGSTOP
		}
		if err := o.processes[1].Signal(sig); err != nil {
			t.Error(err)
		}
	})
	linearizable(t, stores, cuts, 1)
	if rest := o.keys(store.DefaultPrefix + "/"); rest != "others=theirs" {
		t.Errorf("outside of the prefix is %s", rest)
	}
}

// TestLargeChangeIsBrokenOff: a server dies when a change that is larger than the store
// takes at once is kept, and nothing of it is in its place yet. The next one finishes it
// before it reads anything. One that dies before it is kept leaves nothing.
func TestLargeChangeIsBrokenOff(t *testing.T) {
	o := startOutsider(t, 1)
	large := func(token loop.State) loop.Txn {
		txn := loop.Txn{Token: token.Token}
		for i := range 400 {
			e := storetest.Entry(fmt.Sprint(i))
			e.Text = strings.Repeat("x", 8<<10)
			txn.Log = append(txn.Log, e)
			txn.Intents = append(txn.Intents, storetest.Intent(fmt.Sprint("k", i)))
		}
		return txn
	}
	for name, c := range map[string]struct {
		after int
		want  int64
	}{"before it is kept": {-1, 0}, "when it is kept": {0, 400}, "half of it in its place": {4, 400}} {
		t.Run(name, func(t *testing.T) {
			prefix := "/fettle/" + strings.ReplaceAll(name, " ", "-")
			one, state := o.lead(prefix, "one")
			store.DieAfter(one.Etcd, c.after)
			if err := one.Commit(t.Context(), large(state)); err == nil || !strings.Contains(err.Error(), store.ErrDied.Error()) {
				t.Fatalf("the server did not die: %v", err)
			}
			one.resign()
			two, after := o.lead(prefix, "two")
			if n, err := two.Check(t.Context()); n != c.want || err != nil {
				t.Errorf("%d entries, %v; want %d", n, err, c.want)
			}
			if left, err := o.Get(t.Context(), prefix+"/stage", clientv3.WithPrefix(), clientv3.WithCountOnly()); err != nil || left.Count != 0 {
				t.Errorf("%d pieces are left of it, %v", left.Count, err)
			}
			if len(after.Intents) != int(c.want) || after.Head.Entries != c.want {
				t.Errorf("%d intents and head %+v, want %d of each", len(after.Intents), after.Head, c.want)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // the machine may be busy
			defer cancel()
			if err := two.Commit(ctx, large(after)); err != nil {
				t.Errorf("the next large one: %v", err)
			}
			if n, err := two.Check(t.Context()); n != c.want+400 || err != nil {
				t.Errorf("%d entries, %v", n, err)
			}
		})
	}
}

// TestLargeChangeIsInterrupted: the store cannot be reached for a moment while a large
// change is on its way to its place. What the same server changes next comes after it.
func TestLargeChangeIsInterrupted(t *testing.T) {
	o := startOutsider(t, 1)
	for _, after := range []int{0, 3} {
		e, state := o.lead(fmt.Sprint("/fettle/after-", after), "one")
		large := loop.Txn{Token: state.Token}
		for i := range 400 {
			r := storetest.Record(fmt.Sprintf("r%03d", i), 0)
			r.Why = "old"
			large.Records, large.Log = append(large.Records, r), append(large.Log, storetest.Entry("old"))
		}
		store.DieAfter(e.Etcd, after)
		if err := e.Commit(t.Context(), large); err == nil || !strings.Contains(err.Error(), "it is kept") {
			t.Fatalf("it was not interrupted: %v", err)
		}
		store.Revive(e.Etcd)
		if after > 0 { // it is not taken for tampering
			if n, err := e.Check(t.Context()); n != 400 || err != nil {
				t.Errorf("%d entries, %v", n, err)
			}
		}
		newer := large.Records[399]
		newer.Why = "new"
		if err := e.Commit(t.Context(), loop.Txn{Token: state.Token, Records: []incident.Record{newer}}); err != nil {
			t.Fatal(err)
		}
		if n, err := e.Check(t.Context()); n != 400 || err != nil {
			t.Errorf("%d entries, %v", n, err)
		}
		kept, err := e.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(kept.Records) != 400 || kept.Records[399].Why != "new" || kept.Records[0].Why != "old" {
			t.Errorf("after %d: %d records, the last is %q", after, len(kept.Records), kept.Records[len(kept.Records)-1].Why)
		}
	}
}

// TestExistingBackup: a backup of a fleet's prefix holds nothing of others', and is
// restored in another place of the same cluster, as a new epoch; never over what is there.
func TestExistingBackup(t *testing.T) {
	o := startOutsider(t, 1)
	o.put("/fettle/other/secret", "theirs")
	one, state := o.lead("/fettle/one", "one")
	txn := loop.Txn{Token: state.Token}
	for i := range 300 {
		txn.Log = append(txn.Log, storetest.Entry(fmt.Sprint(i)))
	}
	if err := one.Commit(t.Context(), txn); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := one.Backup(t.Context(), &b, time.Unix(9, 0)); err != nil {
		t.Fatal(err)
	}
	n := 0
	if _, err := store.ReadBackup(bytes.NewReader(b.Bytes()), func(key string, value []byte) error {
		n++
		if bytes.Contains(value, []byte("theirs")) || strings.Contains(key, "/fettle/") {
			return fmt.Errorf("key %s is in it", key)
		}
		return nil
	}); err != nil || n < 300 {
		t.Errorf("%d keys, %v", n, err)
	}
	restore := func(prefix string, data []byte) error {
		_, err := store.RestoreExisting(t.Context(), o.where(prefix), t.TempDir(), "by a test", bytes.NewReader(data), 7, []byte("signed"))
		return err
	}
	if err := restore("/fettle/one", b.Bytes()); err == nil || !strings.Contains(err.Error(), storetest.Fleet) {
		t.Errorf("over the store that is there: %v", err)
	}
	if err := restore("/fettle/other", b.Bytes()); err == nil || !strings.Contains(err.Error(), "/fettle/other/secret") {
		t.Errorf("over others' keys: %v", err)
	}
	if err := restore("/fettle/two", b.Bytes()[:b.Len()/2]); err == nil {
		t.Error("half a backup was restored")
	}
	if err := restore("/fettle/two", b.Bytes()); err != nil { // nothing stayed of the half
		t.Fatal(err)
	}
	two, after := o.lead("/fettle/two", "two")
	if after.Token.Epoch != 7 || !state.Token.Less(after.Token) || after.Head.Entries != 300 {
		t.Errorf("%+v", after)
	}
	if n, err := two.Check(t.Context()); n != 300 || err != nil {
		t.Errorf("%d entries, %v", n, err)
	}
	if c, err := two.Charter(t.Context()); string(c) != "signed" || err != nil {
		t.Errorf("the charter: %q, %v", c, err)
	}
	if rest := o.keys("/fettle/one/"); !strings.HasPrefix(rest, "/fettle/other/secret=theirs ") {
		t.Errorf("others' keys: %.80s", rest)
	}
}
