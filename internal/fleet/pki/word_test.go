package pki

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// prepared is an authority with a further one whose key is there.
func prepared(t *testing.T) (ca *CA, old, fresh string) {
	t.Helper()
	ca = newCA(t)
	der, err := ca.Prepare(now)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err = PinOf(der)
	if err != nil {
		t.Fatal(err)
	}
	return ca, ca.Pin(), fresh
}

// says has the authority say a word and believe it.
func says(t *testing.T, ca *CA, w Word) SignedWord {
	t.Helper()
	w.At, w.Serial = now, ca.Trust().Serial()+1
	s, err := ca.Say(w)
	if err == nil {
		err = ca.Believe([]SignedWord{s})
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestEveryStepIsOverADisk: behind each word the folder says the same as the process; a
// change of the files that was broken off is ended by opening them.
func TestEveryStepIsOverADisk(t *testing.T) {
	ca, old, fresh := prepared(t)
	check := func(what, issues string, believed ...string) {
		t.Helper()
		again, err := Open(ca.dir)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, c := range []*CA{ca, again} {
			if c.Pin() != issues || !slices.Equal(c.Trust().Pins(), believed) {
				t.Errorf("%s: %s issues, %v are believed", what, c.Pin(), c.Trust().Pins())
			}
		}
		key, err := os.ReadFile(filepath.Join(ca.dir, caFile))
		if err != nil {
			t.Fatal(err)
		}
		if a, err := decodeAuthority(key); err != nil || a.pin() != issues {
			t.Errorf("%s: the file holds another: %v", what, err)
		}
	}
	check("before", old, old)
	if gone, err := ca.Destroy(fresh); err != nil || len(gone) > 0 {
		t.Errorf("one that is prepared is destroyed: %v, %v", gone, err)
	}
	says(t, ca, Word{Trust: []string{old, fresh}, Use: old, Goal: fresh})
	check("both believed", old, old, fresh)
	before, err := os.ReadFile(filepath.Join(ca.dir, caFile))
	if err != nil {
		t.Fatal(err)
	}
	says(t, ca, Word{Trust: []string{old, fresh}, Use: fresh, Goal: fresh})
	check("the new one issues", fresh, old, fresh)
	// Killed between the words and the authority that they have issue.
	if err := os.WriteFile(filepath.Join(ca.dir, caFile), before, 0o600); err != nil {
		t.Fatal(err)
	}
	check("broken off", fresh, old, fresh)
	says(t, ca, Word{Trust: []string{fresh}, Use: fresh, Goal: fresh})
	if gone, err := ca.Destroy(""); err != nil || !slices.Equal(gone, []string{old}) {
		t.Errorf("destroyed are %v, %v", gone, err)
	}
	check("the old one is gone", fresh, fresh)
	if _, err := ca.ExportKey(old); !errors.Is(err, ErrNoKey) {
		t.Errorf("the old key: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(ca.dir, "*"+old[:16]+"*")); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// TestWordsOfABackup: what Files returned makes the same authority elsewhere, in the midst
// of a change.
func TestWordsOfABackup(t *testing.T) {
	ca, old, fresh := prepared(t)
	says(t, ca, Word{Trust: []string{old, fresh}, Use: old, Goal: fresh})
	says(t, ca, Word{Trust: []string{old, fresh}, Use: fresh, Goal: fresh})
	key, err := ca.Export()
	if err != nil {
		t.Fatal(err)
	}
	files, err := ca.Files()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ImportAll(filepath.Join(t.TempDir(), "ca"), key, files)
	if err != nil {
		t.Fatal(err)
	}
	if again.Pin() != fresh || !again.Holds(old) || again.Trust().Serial() != 2 {
		t.Errorf("%s issues, serial %d", again.Pin(), again.Trust().Serial())
	}
	if _, err := ImportAll(filepath.Join(t.TempDir(), "ca"), key, map[string][]byte{"../x": nil}); err == nil {
		t.Error("a file elsewhere is written")
	}
}

// TestIdentityOverAChange: whom it believes is with it over a start; a word that would
// leave it with a certificate that nobody believes is not followed.
func TestIdentityOverAChange(t *testing.T) {
	ca, old, fresh := prepared(t)
	id := mustMint(t, ca, RoleAgent, "h1")
	both := says(t, ca, Word{Trust: []string{old, fresh}, Use: old, Goal: fresh})
	issues := says(t, ca, Word{Trust: []string{old, fresh}, Use: fresh, Goal: fresh})
	only := says(t, ca, Word{Trust: []string{fresh}, Use: fresh, Goal: fresh})
	id, err := id.Believing([]SignedWord{issues, both}) // in any order
	if err != nil || !id.Outdated() || id.Serial() != 2 {
		t.Fatalf("%v, serial %d", err, id.Serial())
	}
	if _, err := id.Believing([]SignedWord{only}); err == nil || !strings.Contains(err.Error(), "join again") {
		t.Errorf("a word that drops its own issuer: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "id")
	if err := id.Save(dir); err != nil {
		t.Fatal(err)
	}
	if id, err = LoadIdentity(dir, RoleAgent); err != nil || !id.Outdated() || id.Serial() != 2 || len(id.Trust().Pins()) != 2 {
		t.Fatalf("read back: %v", err)
	}
	req, err := id.Renewal()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Sign(req.CSR, id.Name, now, AgentLife)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := req.Renewed(mustMint(t, ca, RoleAgent, "h1").Certificate(), id); err == nil {
		t.Error("a certificate for another key")
	}
	if id, err = req.Renewed(cert, id); err != nil || id.Outdated() || id.Pin() != fresh {
		t.Fatalf("renewed: %v", err)
	}
	if id, err = id.Believing([]SignedWord{only}); err != nil || len(id.Trust().Pins()) != 1 {
		t.Fatalf("%v", err)
	}
	data, err := os.ReadFile(IdentityFile(dir, RoleAgent))
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.Replace(string(data), believedHeader+": 2", believedHeader+": x", 1)
	if err := os.WriteFile(IdentityFile(dir, RoleAgent), []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIdentity(dir, RoleAgent); err == nil {
		t.Error("what it says of the authorities is not read")
	}
}

// TestRevoke: tokens that are out end in time, or at once; those that end sooner by
// themselves are left.
func TestRevoke(t *testing.T) {
	ca := newCA(t)
	reg, _ := newRegister(t, ca)
	invite := func(life time.Duration) Token {
		t.Helper()
		tok, err := reg.Invite(t.Context(), RoleAgent, "h:1", now, life)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	long, brief := invite(48*time.Hour), invite(time.Minute)
	if n, last, err := reg.Outstanding(t.Context(), ca.Pin(), now); err != nil || n != 2 || !last.Equal(now.Add(48*time.Hour)) {
		t.Errorf("%d are out until %s, %v", n, last, err)
	}
	if n, err := reg.Revoke(t.Context(), now, TokenLife); err != nil || n != 1 {
		t.Errorf("%d were shortened, %v", n, err)
	}
	if _, err := reg.Redeem(t.Context(), RoleAgent, long.ID, long.Secret, now.Add(TokenLife)); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("one that was shortened: %v", err)
	}
	if pin, err := reg.Redeem(t.Context(), RoleAgent, brief.ID, brief.Secret, now); err != nil || pin != ca.Pin() {
		t.Errorf("one that was not: %s, %v", pin, err)
	}
	late := invite(time.Hour)
	if n, err := reg.Revoke(t.Context(), now, 0); err != nil || n != 2 {
		t.Errorf("%d ended, %v", n, err)
	}
	if _, err := reg.Redeem(t.Context(), RoleAgent, late.ID, late.Secret, now); !errors.Is(err, ErrToken) {
		t.Errorf("one that was ended: %v", err)
	}
}

func FuzzWord(f *testing.F) {
	pin := strings.Repeat("0a", pinLength/2)
	good := Word{Fleet: "f", Serial: 7, Trust: []string{pin, strings.Repeat("1", pinLength)}, Use: pin, Goal: pin, Overlap: time.Hour, At: now}
	f.Add(good.text())
	f.Add(strings.Replace(good.text(), "serial 7", "serial -7", 1))
	f.Add(good.text() + "more of a newer version\n")
	f.Add("fettle authorities 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		w, err := parseWord(text)
		if err != nil {
			return
		}
		if !strings.HasPrefix(text, w.text()) {
			t.Errorf("%q is read as %q", text, w.text())
		}
		if w.Serial < 1 || len(w.Trust) > maxBelieved || !slices.Contains(w.Trust, w.Use) || !slices.Contains(w.Trust, w.Goal) {
			t.Errorf("%+v", w)
		}
	})
}
