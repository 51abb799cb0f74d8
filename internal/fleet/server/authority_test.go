package server_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
)

const overlapPassed = 30 * time.Hour // more than a standing permit's day and an hour

// changing is a fleet with some hosts whose authority can be changed.
func changing(t *testing.T, labels ...string) (*fleet, []*box) {
	t.Helper()
	f := newFleet(t, func(o *server.Options) { o.Shelf = pki.Folder(t.TempDir()) })
	var all []*box
	for _, label := range labels {
		b := f.box(label)
		b.connected(0, true)
		all = append(all, b)
	}
	return f, all
}

func (f *fleet) rotate(r *wire.RotateRequest) error {
	f.t.Helper()
	r.What, r.By = "authority", "ann"
	_, err := f.admin(pki.RoleAdmin).Rotate(f.t.Context(), r)
	return err
}

// phase waits until a change has come so far.
func (f *fleet) phase(begins string, ok func(*wire.AuthorityStatus) bool) *wire.AuthorityStatus {
	f.t.Helper()
	var got *wire.AuthorityStatus
	f.until("the change of the authority: "+begins, func(s *wire.StatusResponse) bool {
		got = s.GetAuthority()
		return (begins == "" && got.GetPhase() == "" || begins != "" && strings.HasPrefix(got.GetPhase(), begins)) && (ok == nil || ok(got))
	})
	return got
}

func waitsForNone(s *wire.AuthorityStatus) bool { return len(s.GetWaits()) == 0 }

// done waits until a change has ended with this authority alone.
func (f *fleet) changed(pin string) {
	f.t.Helper()
	f.phase("", func(s *wire.AuthorityStatus) bool { return slices.Equal(s.GetBelieved(), []string{pin}) })
}

// acts has a step done on a host.
func (b *box) acts(key string) {
	b.f.t.Helper()
	// A session that begins anew in between is no answer; the loop asks again then.
	var out fettle.Outcome
	var err error
	for try := range 5 {
		from := b.f.brain.mark()
		if inc, there := b.f.server.Incarnation(b.host); there {
			ctx, cancel := context.WithTimeout(b.f.t.Context(), patience)
			out, err = b.f.server.Do(ctx, b.dispatchTo(inc, fmt.Sprintf("%s.%d", key, try), b.f.token(5)))
			cancel()
			if err == nil && out.Fate == fettle.Done && out.Error == "" {
				return
			}
		}
		b.f.brain.awaitInput(b.f.t, from, "something to happen", func(incident.Input) bool { return true })
	}
	b.f.t.Fatalf("%s: %+v, %v", key, out, err)
}

// TestAuthorityRotates: the whole way, with work at each stage; at the end the old
// authority's certificates open nothing.
func TestAuthorityRotates(t *testing.T) {
	f, all := changing(t, "a", "b", "c")
	old := f.ca.Pin()
	stranger, err := f.ca.Mint(pki.RoleAdmin, "bob", time.Now(), pki.PersonLife)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.rotate(&wire.RotateRequest{OverlapNs: int64(time.Hour)}); err == nil || !strings.Contains(err.Error(), "24h") {
		t.Errorf("an overlap shorter than a permit holds: %v", err)
	}
	if err := f.rotate(&wire.RotateRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := f.rotate(&wire.RotateRequest{}); err == nil || !strings.Contains(err.Error(), "under way") {
		t.Errorf("a second change at once: %v", err)
	}
	st := f.phase("the new authority issues", waitsForNone)
	if len(st.GetBelieved()) != 2 || st.GetBelieved()[0] == old || !strings.Contains(st.GetHold(), "standing permits") {
		t.Fatalf("believed %v, hold %q", st.GetBelieved(), st.GetHold())
	}
	fresh := st.GetBelieved()[0]
	for _, b := range all {
		b.acts("overlap-" + b.id.Name.ID)
		id, err := pki.LoadIdentity(b.dir, pki.RoleAgent)
		if err != nil || id.Pin() != fresh {
			t.Errorf("it keeps a certificate of %v, %v", id, err)
		}
	}
	// Who did not hear of it is let in until the end.
	if _, err := wire.NewAdminServiceClient(f.dial(stranger)).Status(t.Context(), &wire.StatusRequest{}); err != nil {
		t.Errorf("a certificate of the old authority during the overlap: %v", err)
	}
	f.clock.set(overlapPassed)
	f.changed(fresh)
	for _, b := range all {
		b.acts("after-" + b.id.Name.ID)
	}
	if _, err := wire.NewAdminServiceClient(f.dial(stranger)).Status(t.Context(), &wire.StatusRequest{}); err == nil {
		t.Error("a certificate of the old authority is let in after the end")
	}
	if f.ca.Holds(old) {
		t.Error("the old key is still here")
	}
	again, err := pki.Open(f.dir + "/pki")
	if err != nil || again.Pin() != fresh || again.Holds(old) {
		t.Errorf("read from the disk: %v", err)
	}
	if !slices.ContainsFunc(f.brain.recorded(), func(k kept) bool { return k.kind == "rotate" && strings.Contains(k.text, "ann") }) {
		t.Errorf("nobody is in the log: %v", f.brain.recorded())
	}
}

// TestAuthorityWaitsForTheAbsent: who is away holds the change up, and is named; without
// it the change goes on, and it may come back while the old authority is believed.
func TestAuthorityWaitsForTheAbsent(t *testing.T) {
	f, all := changing(t, "a", "b", "c")
	old := f.ca.Pin()
	away, lost := all[1], all[2]
	away.stop()
	lost.stop()
	away.connected(0, false)
	lost.connected(0, false)
	if err := f.rotate(&wire.RotateRequest{}); err != nil {
		t.Fatal(err)
	}
	st := f.phase("the new authority is made known", func(s *wire.AuthorityStatus) bool { return len(s.GetWaits()) == 2 })
	for _, w := range st.GetWaits() {
		if w.GetHost() != away.id.Name.ID && w.GetHost() != lost.id.Name.ID || w.GetWhy() == "" {
			t.Errorf("it waits for %v", w)
		}
	}
	if err := f.rotate(&wire.RotateRequest{Without: []string{"nobody"}}); err == nil || !strings.Contains(err.Error(), "fettle hosts") {
		t.Errorf("without a host that is not there: %v", err)
	}
	if err := f.rotate(&wire.RotateRequest{Without: []string{away.id.Name.ID, lost.id.Name.ID}}); err != nil {
		t.Fatal(err)
	}
	st = f.phase("the new authority issues", waitsForNone)
	fresh := st.GetBelieved()[0]
	if len(st.GetWithout()) != 2 {
		t.Errorf("it goes on without %v", st.GetWithout())
	}
	// It knows the old authority only, and is shown a certificate of that one.
	away.start()
	away.connected(f.brain.mark(), true)
	f.until("it to have a certificate of the new authority", func(*wire.StatusResponse) bool {
		id, err := pki.LoadIdentity(away.dir, pki.RoleAgent)
		return err == nil && id.Pin() == fresh
	})
	f.clock.set(overlapPassed)
	f.changed(fresh)
	away.acts("back")
	// The other was away for all of it.
	id, err := pki.LoadIdentity(lost.dir, pki.RoleAgent)
	if err != nil || id.Pin() != old {
		t.Fatalf("%v, %v", id, err)
	}
	_, err = wire.NewEnrolServiceClient(f.dial(id)).Renew(t.Context(), &wire.RenewRequest{Schema: wire.Schema})
	if err == nil || !strings.Contains(status.Convert(err).Message(), "join anew with a token") {
		t.Errorf("who was away for all of it is told: %v", err)
	}
}

// TestAuthorityTakenBack: at each stage before the old authority is forgotten the change
// can be taken back, under a freeze too, and nothing is broken.
func TestAuthorityTakenBack(t *testing.T) {
	for _, stage := range []string{"the new authority is made known", "the new authority issues"} {
		t.Run(stage, func(t *testing.T) {
			f, all := changing(t, "a", "b")
			old := f.ca.Pin()
			if stage != "the new authority issues" {
				all[1].stop()
				all[1].connected(0, false)
			}
			if err := f.rotate(&wire.RotateRequest{Abort: true}); err == nil {
				t.Error("there is nothing to take back")
			}
			if err := f.rotate(&wire.RotateRequest{}); err != nil {
				t.Fatal(err)
			}
			f.phase(stage, nil)
			if _, err := f.admin(pki.RoleOperator).SetFreeze(t.Context(), &wire.SetFreezeRequest{Why: "test"}); err != nil {
				t.Fatal(err)
			}
			if err := f.rotate(&wire.RotateRequest{Abort: true}); err != nil {
				t.Fatal(err)
			}
			if stage == "the new authority issues" {
				f.phase("the change is taken back", waitsForNone)
				if err := f.rotate(&wire.RotateRequest{Abort: true}); err == nil || !strings.Contains(err.Error(), "already") {
					t.Errorf("taken back twice: %v", err)
				}
				f.clock.set(overlapPassed) // what the new one has signed holds as long
			} else {
				all[1].start()
			}
			f.changed(old)
			if _, err := f.admin(pki.RoleApprover).Thaw(t.Context(), &wire.ThawRequest{}); err != nil {
				t.Fatal(err)
			}
			for _, b := range all {
				f.until("a certificate of the old authority", func(*wire.StatusResponse) bool {
					id, err := pki.LoadIdentity(b.dir, pki.RoleAgent)
					return err == nil && id.Pin() == old
				})
				b.acts("after-" + b.id.Name.ID)
			}
			if len(f.ca.Trust().Pins()) != 1 {
				t.Errorf("believed are %v", f.ca.Trust().Pins())
			}
		})
	}
}

// TestAuthorityAnotherLeads: the server ends behind every record that it writes, and
// another process goes on from the folder, to the same end.
func TestAuthorityAnotherLeads(t *testing.T) {
	for n := 1; ; n++ {
		ended := false
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			shelf := &dying{Folder: pki.Folder(t.TempDir()), left: -1}
			f := newFleet(t, func(o *server.Options) { o.Shelf = shelf })
			b := f.box("a")
			b.connected(0, true)
			old := f.ca.Pin()
			shelf.set(n)
			if err := f.rotate(&wire.RotateRequest{}); err != nil && shelf.alive() {
				t.Fatal(err)
			}
			f.through(old, shelf.alive)
			ended = shelf.alive()
			// Another process, with what is on the disk.
			address := f.address
			f.stop()
			shelf.set(-1)
			ca, err := pki.Open(f.dir + "/pki")
			if err != nil {
				t.Fatal(err)
			}
			f.ca, f.options.CA = ca, ca
			f.options.Register = pki.NewRegister(ca, pki.Folder(f.dir))
			f.start(address)
			if f.ca.Pin() == old && f.ca.Trust().Serial() == 0 {
				if err := f.rotate(&wire.RotateRequest{}); err != nil && !strings.Contains(err.Error(), "under way") {
					t.Fatal(err)
				}
			}
			f.through(old, func() bool { return true })
			if f.ca.Holds(old) {
				t.Error("the old key is still here")
			}
			b.acts("after")
		})
		if ended || t.Failed() {
			if n < 8 {
				t.Errorf("it was ended at %d records only", n)
			}
			return
		}
	}
}

// through waits until a change from an authority has ended, or the server has, and lets
// the overlap pass when nothing else is waited for.
func (f *fleet) through(old string, alive func() bool) {
	f.t.Helper()
	for from := f.brain.mark(); alive(); from = f.brain.mark() {
		// Who asks is believed when it asks.
		s, err := f.admin(pki.RoleViewer).Status(f.t.Context(), &wire.StatusRequest{})
		if err != nil {
			f.t.Fatal(err)
		}
		a := s.GetAuthority()
		switch {
		case a.GetPhase() == "" && len(a.GetBelieved()) == 1 && a.GetBelieved()[0] != old:
			return
		case len(a.GetWaits()) == 0 && strings.HasPrefix(a.GetHold(), "what the authority"):
			f.clock.set(overlapPassed)
		}
		f.brain.awaitInput(f.t, from, "something to happen", func(incident.Input) bool { return true })
	}
}

// dying is a shelf that takes so many changes of this kind, and then none: as if the
// server had been killed.
type dying struct {
	pki.Folder
	mu   sync.Mutex
	left int // -1: any number
}

func (d *dying) set(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = n
}

func (d *dying) alive() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.left != 0
}

var errKilled = errors.New("killed")

func (d *dying) may(kind string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case kind != "authority" || d.left < 0:
	case d.left == 0:
		return errKilled
	default:
		d.left--
	}
	return nil
}

func (d *dying) Create(ctx context.Context, kind, id string, data []byte) error {
	if err := d.may(kind); err != nil {
		return err
	}
	return d.Folder.Create(ctx, kind, id, data)
}

func (d *dying) Remove(ctx context.Context, kind, id string) error {
	if err := d.may(kind); err != nil {
		return err
	}
	return d.Folder.Remove(ctx, kind, id)
}

// TestJoinWhileTheAuthorityChanges: a token names the authority of its time, and lets its
// bearer in while that one is believed; tokens that are out hold its end up, or are ended.
func TestJoinWhileTheAuthorityChanges(t *testing.T) {
	f, _ := changing(t, "a")
	before, err := f.options.Register.Invite(t.Context(), pki.RoleAgent, f.address, time.Now(), 48*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	unused, err := f.options.Register.Invite(t.Context(), pki.RoleAgent, f.address, time.Now(), 48*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.rotate(&wire.RotateRequest{}); err != nil {
		t.Fatal(err)
	}
	fresh := f.phase("the new authority issues", waitsForNone).GetBelieved()[0]
	dir := t.TempDir() + "/id"
	id, err := agent.Join(t.Context(), agent.JoinOptions{Token: before, Dir: dir, Label: "late", Wall: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	b := &box{f: f, id: id, dir: dir, state: t.TempDir(), host: id.Name.Host(), toy: newToy("main")}
	b.start()
	f.until("it to have a certificate of the new authority", func(*wire.StatusResponse) bool {
		id, err := pki.LoadIdentity(dir, pki.RoleAgent)
		return err == nil && id.Pin() == fresh && !id.Outdated()
	})
	newer := f.box("newer")
	f.phase("the new authority issues", waitsForNone)
	f.clock.set(overlapPassed)
	f.phase("the new authority issues", func(s *wire.AuthorityStatus) bool { return strings.Contains(s.GetHold(), "1 join tokens") })
	if _, err := f.admin(pki.RoleAdmin).Rotate(t.Context(), &wire.RotateRequest{What: "tokens", Now: true}); err != nil {
		t.Fatal(err)
	}
	f.changed(fresh)
	b.acts("late")
	newer.acts("newer")
	if _, err := agent.Join(t.Context(), agent.JoinOptions{Token: unused, Dir: t.TempDir() + "/id", Label: "never", Wall: time.Now}); err == nil {
		t.Error("a token that was ended lets somebody in")
	}
}

// TestPeopleRenew: a person's certificate is renewed over a connection that the old
// authority vouches for.
func TestPeopleRenew(t *testing.T) {
	f, _ := changing(t, "a")
	ann, err := f.ca.Mint(pki.RoleViewer, "ann", time.Now(), pki.PersonLife)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.rotate(&wire.RotateRequest{}); err != nil {
		t.Fatal(err)
	}
	fresh := f.phase("the new authority issues", waitsForNone).GetBelieved()[0]
	api := wire.NewAdminServiceClient(f.dial(ann))
	got, err := api.Authorities(t.Context(), &wire.AuthoritiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var words []pki.SignedWord
	for _, w := range got.GetWords() {
		words = append(words, pki.SignedWord{Note: w.GetNote(), Authorities: w.GetAuthorities()})
	}
	if ann, err = ann.Believing(words); err != nil || !ann.Outdated() {
		t.Fatalf("outdated: %v, %v", ann.Outdated(), err)
	}
	req, err := ann.Renewal()
	if err != nil {
		t.Fatal(err)
	}
	resp, err := api.Renew(t.Context(), &wire.RenewRequest{Schema: wire.Schema, Csr: req.CSR})
	if err != nil {
		t.Fatal(err)
	}
	if ann, err = req.Renewed(resp.GetCertificate(), ann); err != nil || ann.Pin() != fresh {
		t.Fatalf("%v", err)
	}
	f.clock.set(overlapPassed)
	f.changed(fresh)
	if _, err := wire.NewAdminServiceClient(f.dial(ann)).Status(t.Context(), &wire.StatusRequest{}); err != nil {
		t.Error(err)
	}
	other, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.NewAdminServiceClient(f.dial(ann)).Renew(t.Context(), &wire.RenewRequest{Schema: wire.Schema, Csr: other.CSR}); err == nil {
		t.Error("a renewal with another key is let through")
	}
	if _, err := wire.NewEnrolServiceClient(f.dial(ann)).AuthorityKey(t.Context(), &wire.AuthorityKeyRequest{Schema: wire.Schema, Pin: fresh}); err == nil {
		t.Error("a viewer gets the authority's key")
	}
}
