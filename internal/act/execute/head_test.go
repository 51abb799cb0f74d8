package execute

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"fettle/internal/act/journal"
	"fettle/internal/fettle"
)

func head(epoch uint64, entries int64, hash string) *LogHead {
	return &LogHead{Epoch: epoch, Entries: entries, Hash: hash, Note: "note of " + hash, Certificate: []byte("certificate")}
}

// TestForkIsNotObeyed: after a head of another log nothing is done, recovered or
// taken for a leader's, until the right log is shown again; with the right one it is.
func TestForkIsNotObeyed(t *testing.T) {
	for _, c := range []struct {
		name   string
		meet   *LogHead
		there  string
		follow *LogHead
		why    string
	}{
		{name: "another entry", meet: head(1, 12, "ff"), there: "zz", why: "its entry 10 is another"},
		{name: "shorter", meet: head(1, 9, "ff"), why: "shorter"},
		{name: "another end", meet: head(1, 10, "ff"), there: "aa", why: "its entry 10 is another"},
		{name: "an old epoch", meet: head(1, 99, "ff"), there: "aa", why: "epoch that has ended"},
		{name: "a new epoch", meet: head(3, 99, "ff"), there: "aa", why: "no administrator has signed"},
		{name: "no head", why: "shows no head"},
		{name: "shorter later", meet: head(1, 12, "bb"), there: "aa", follow: head(1, 11, "cc"), why: "shorter"},
		{name: "another later", meet: head(1, 12, "bb"), there: "aa", follow: head(1, 12, "cc"), why: "its entry 12 is another"},
		{name: "another epoch later", meet: head(1, 12, "bb"), there: "aa", follow: head(2, 13, "cc"), why: "its epoch changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.action.apply = succeed
			kept := head(1, 10, "aa")
			if c.name == "an old epoch" {
				kept.Epoch = 2
			}
			if err := r.Meet(kept, ""); err != nil {
				t.Fatal(err)
			}
			want(t, r.Do(t.Context(), r.dispatch("k1")), fettle.Done, "")
			err := r.Meet(c.meet, c.there)
			if c.follow != nil {
				if err != nil {
					t.Fatal(err)
				}
				err = r.Follow(*c.follow)
				if again := r.Follow(*head(1, 99, "dd")); again == nil {
					t.Error("what comes after a fork is followed")
				}
			}
			var e *fettle.Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), c.why) || e.Hint == "" {
				t.Fatalf("it is refused with %v, want %q and a hint", err, c.why)
			}
			d := r.dispatch("k2")
			d.Token.Revision += 1000
			out := r.Do(t.Context(), d)
			want(t, out, fettle.NeverWillBe, fettle.Refused)
			if !strings.Contains(out.Error, c.why) || !strings.Contains(out.Error, e.Hint) {
				t.Errorf("the outcome does not say why, or what to do: %s", out.Error)
			}
			want(t, r.Recover(t.Context(), d), fettle.UnknownFate, fettle.Refused)
			if r.action.touched.Load() != 1 {
				t.Errorf("the machine was touched %d times", r.action.touched.Load())
			}
			if r.Highest().Revision == d.Token.Revision {
				t.Error("the token of a server that is not obeyed was taken for the highest")
			}
			// The right one is back.
			now, _ := r.Head()
			back := now
			back.Entries, back.Hash = back.Entries+1, "ee"
			if err := r.Meet(&back, now.Hash); err != nil {
				t.Fatal(err)
			}
			want(t, r.Do(t.Context(), r.dispatch("k3")), fettle.Done, "")
		})
	}
}

// TestHeadIsKeptWithTheIntent: the head that a step was sent with is durable when
// the step is begun, in the same write.
func TestHeadIsKeptWithTheIntent(t *testing.T) {
	r := newRig(t)
	commits := 0
	r.stop()
	r.start(nil)
	r.stop()
	log, err := journal.Open(context.Background(), r.path, journal.Options{OnDurable: func(journal.Seq, int) { commits++ }})
	if err != nil {
		t.Fatal(err)
	}
	r.log = log
	if r.Executor, err = New(Options{
		Journal: log, Clock: r.clock, Host: host, Fleet: "f1", Actions: map[string]fettle.Action{"test.do": r.action},
		Catalogues: []fettle.Catalogue{catalogue}, Allow: func(string) bool { return true },
	}); err != nil {
		t.Fatal(err)
	}
	if err := r.Meet(head(1, 9, "99"), ""); err != nil {
		t.Fatal(err)
	}
	if err := r.Follow(*head(1, 10, "aa")); err != nil {
		t.Fatal(err)
	}
	commits = 0
	r.action.apply = func(context.Context, fettle.Dispatch) (fettle.Result, error) {
		if commits != 1 {
			t.Errorf("%d writes before the touch, want 1", commits)
		}
		var last LogHead
		if err := r.log.Read(context.Background(), 0, func(rec journal.Record) error {
			var h headRecord
			if rec.Kind != KindHead {
				return nil
			}
			err := rec.Decode(&h)
			last = h.Head
			return err
		}); err != nil {
			t.Error(err)
		}
		if !last.same(*head(1, 10, "aa")) || last.Note != "note of aa" || string(last.Certificate) != "certificate" {
			t.Errorf("at the touch the journal has head %+v", last)
		}
		return fettle.Result{}, nil
	}
	want(t, r.Do(t.Context(), r.dispatch("k1")), fettle.Done, "")
	if err := r.Follow(*head(1, 11, "bb")); err != nil {
		t.Fatal(err)
	}
	if err := r.KeepHead(); err != nil {
		t.Fatal(err)
	}
	commits = 0
	if err := r.KeepHead(); err != nil || commits != 0 {
		t.Errorf("kept twice: %v, %d writes", err, commits)
	}
	if err := r.Follow(*head(1, 12, "cc")); err != nil {
		t.Fatal(err)
	}
	r.stop() // as by a kill: nothing was begun under the last head
	r.start(nil)
	got, ok := r.Head()
	if !ok || !got.same(*head(1, 11, "bb")) || string(got.Certificate) != "certificate" {
		t.Errorf("after a restart the head is %+v", got)
	}
	if err := r.Meet(head(1, 20, "ff"), "zz"); err == nil {
		t.Error("after a restart another log is followed")
	}
}

// TestIdleHeadIsKeptByTheHour: a head under which nothing is begun is durable too,
// some time.
func TestIdleHeadIsKeptByTheHour(t *testing.T) {
	r := newRig(t)
	if err := r.Meet(head(1, 10, "aa"), ""); err != nil {
		t.Fatal(err)
	}
	r.clock.ahead.Store(int64(headEvery + time.Minute))
	if err := r.Follow(*head(1, 11, "bb")); err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.start(nil)
	if got, _ := r.Head(); !got.same(*head(1, 11, "bb")) {
		t.Errorf("after a restart the head is %+v", got)
	}
}

// TestNewEpochBeginsANewLog: with an administrator's signature another log is taken,
// and the old one is refused from then on.
func TestNewEpochBeginsANewLog(t *testing.T) {
	r := newRig(t)
	r.stop()
	r.start(func(o *Options) {
		o.NewEpoch = func(highest, offered fettle.Token) error {
			if highest.Epoch != 1 || offered.Epoch != 2 {
				t.Errorf("asked for a change from %+v to %+v", highest, offered)
			}
			return nil
		}
	})
	if err := r.Meet(head(1, 10, "aa"), ""); err != nil {
		t.Fatal(err)
	}
	if err := r.Meet(head(2, 3, "dd"), ""); err != nil {
		t.Error(err)
	}
	if err := r.Meet(head(1, 12, "bb"), "aa"); err == nil {
		t.Error("the old epoch's log is followed")
	}
}

// TestWithoutHeads: who is never shown a head, by a server of an older version, works
// as before.
func TestWithoutHeads(t *testing.T) {
	r := newRig(t)
	r.action.apply = succeed
	if err := r.Meet(nil, ""); err != nil {
		t.Fatal(err)
	}
	want(t, r.Do(t.Context(), r.dispatch("k1")), fettle.Done, "")
	if _, ok := r.Head(); ok {
		t.Error("there is a head")
	}
}
