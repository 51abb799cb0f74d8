package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/etcdmain"

	"fettle/internal/act/journal"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/store/storetest"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// childEnv makes this test binary the child: KIND:PATH.
const childEnv = "FETTLE_STORE_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(etcdEnv) != "" {
		etcdmain.Main(append([]string{"etcd"}, os.Args[1:]...)) // does not return
	}
	if spec := os.Getenv(childEnv); spec != "" {
		if at, path, ok := strings.Cut(spec, "@"); ok {
			fmt.Fprintln(os.Stderr, sealUntil(at, path))
		} else {
			fmt.Fprintln(os.Stderr, commitForEver(spec))
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func openKind(ctx context.Context, kind, path string) (loop.Store, error) {
	if kind == "file" {
		return store.OpenFile(ctx, path, storetest.Fleet, journal.Options{Reserve: 64 << 10})
	}
	return store.OpenEtcd(ctx, store.EtcdOptions{Dir: path, Fleet: storetest.Fleet})
}

// commitForEver changes an incident, its intent and the log together, and says
// each number once it is kept.
func commitForEver(spec string) error {
	kind, path, _ := strings.Cut(spec, ":")
	ctx := context.Background()
	s, err := openKind(ctx, kind, path)
	if err != nil {
		return err
	}
	state, err := s.Load(ctx)
	if err != nil {
		return err
	}
	for n := state.Head.Entries + 1; ; n++ {
		r := storetest.Record("a", 1)
		r.Why = strconv.FormatInt(n, 10)
		txn := loop.Txn{
			Token: state.Token, Records: []incident.Record{r}, Log: []loop.Entry{storetest.Entry(r.Why)},
			Intents: []loop.Intent{storetest.Intent("k" + r.Why)}, Settled: []string{"k" + strconv.FormatInt(n-1, 10)},
		}
		if err := s.Commit(ctx, txn); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// TestKilledInMidCommit kills a process that commits all the time, again and
// again: what was acknowledged is there, all of it or nothing of what was not,
// and the chain is whole.
func TestKilledInMidCommit(t *testing.T) {
	for _, kind := range []string{"file", "etcd"} {
		t.Run(kind, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store")
			last := int64(0)
			for _, commits := range []int{1, 7, 40, 23} {
				last = killAfter(t, kind, path, commits)
				s, err := openKind(t.Context(), kind, path)
				if err != nil {
					t.Fatal(err)
				}
				verify(t, s, last)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if last < 71 {
				t.Errorf("only %d commits in all", last)
			}
		})
	}
}

// killAfter runs a child until it has acknowledged so many commits, kills it in
// the middle of a later one and returns the last number that it acknowledged.
func killAfter(t *testing.T, kind, path string, commits int) int64 {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self)
	child.Env = append(os.Environ(), childEnv+"="+kind+":"+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var last int64
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); {
		if last, err = strconv.ParseInt(lines.Text(), 10, 64); err != nil {
			t.Fatal(err)
		}
		if n++; n == commits {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := child.Wait(); err == nil || child.ProcessState.ExitCode() != -1 {
		t.Fatalf("the child was not killed: %v", child.ProcessState)
	}
	return last
}

func verify(t *testing.T, s loop.Store, acknowledged int64) {
	t.Helper()
	state, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// One more may have been kept without anybody having been told.
	if n != acknowledged && n != acknowledged+1 {
		t.Errorf("%d are kept, %d were acknowledged", n, acknowledged)
	}
	want := strconv.FormatInt(n, 10)
	if len(state.Records) != 1 || state.Records[0].Why != want {
		t.Errorf("entry %s is kept, and not its record: %+v", want, state.Records)
	}
	if len(state.Intents) != 1 || state.Intents[0].Dispatch.Key != "k"+want {
		t.Errorf("entry %s is kept, and not its intent: %+v", want, state.Intents)
	}
}
