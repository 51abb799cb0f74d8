package server_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
)

// gossiping is a fleet whose agents gossip, each on a port of its own.
func gossiping(t *testing.T, labels ...string) (*fleet, []*box) {
	t.Helper()
	f := newFleet(t, func(o *server.Options) { o.Shelf = pki.Folder(t.TempDir()) })
	var all []*box
	for _, label := range labels {
		id, dir := f.join(label)
		b := &box{f: f, id: id, dir: dir, state: t.TempDir(), host: id.Name.Host(), toy: newToy("main")}
		b.gossip()
		all = append(all, b)
	}
	f.gossips(len(all))
	return f, all
}

// gossip starts the agent with gossip.
func (b *box) gossip() {
	b.f.t.Helper()
	b.start(func(o *agent.Options) { o.GossipListen = "127.0.0.1:0" })
}

// status asks as a viewer until it is as wanted.
func (f *fleet) until(what string, ok func(*wire.StatusResponse) bool) *wire.StatusResponse {
	f.t.Helper()
	api := f.admin(pki.RoleViewer)
	var last *wire.StatusResponse
	for from := f.brain.mark(); ; {
		var err error
		if last, err = api.Status(f.t.Context(), &wire.StatusRequest{}); err != nil {
			f.t.Fatal(err)
		}
		if ok(last) {
			return last
		}
		// Something is fed at every sign of life of an agent and of the server itself.
		f.brain.awaitInput(f.t, from, what+": something to happen", func(incident.Input) bool { return true })
		from = f.brain.mark()
	}
}

// gossips waits until that many agents have confirmed their ring.
func (f *fleet) gossips(n int) {
	f.t.Helper()
	f.until("all to gossip", func(s *wire.StatusResponse) bool { return int(s.GetGossip().GetMembers()) == n })
}

// judged waits until a host is judged so.
func (b *box) judged(from int, life string) fettle.Observation {
	b.f.t.Helper()
	return b.f.brain.await(b.f.t, from, b.id.Name.ID+" to be "+life, func(o fettle.Observation) bool {
		is, _ := o.Facts.Str("life")
		return o.Probe == server.WitnessProbe && o.Subject == b.host && is == life
	})
}

// TestAgentGoneIsNoDeadHost: the connection of an agent that ended is the kernel's word
// that the host is there; its port, which is refused, says so again.
func TestAgentGoneIsNoDeadHost(t *testing.T) {
	f, all := gossiping(t, "a", "b", "c", "d")
	for _, b := range all {
		b.judged(0, "alive")
	}
	from := f.brain.mark()
	all[1].stop()
	o := all[1].judged(from, "agent_dead")
	if dead, ok := o.Facts.Bool("dead"); !ok || dead {
		t.Errorf("it is told as %v", o.Facts)
	}
	// A peer may hear its last word a moment after its connection ended: then it is alive
	// until the next looks at its port.
	wrong := func() (what string) {
		hosts, err := f.admin(pki.RoleViewer).Hosts(t.Context(), &wire.HostsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts.GetHosts() {
			want := "alive"
			if h.GetId() == all[1].id.Name.ID {
				want = "agent_dead"
			}
			if h.GetLife() != want || len(h.GetLifeWhy()) == 0 {
				what += fmt.Sprintf("%s is %q because of %q, want %s; ", h.GetLabel(), h.GetLife(), h.GetLifeWhy(), want)
			}
		}
		return what
	}
	for from := f.brain.mark(); ; from = f.brain.mark() {
		what := wrong()
		if what == "" {
			break
		}
		f.brain.awaitInput(t, from, what, func(incident.Input) bool { return true })
	}
	from = f.brain.mark()
	all[1].gossip()
	all[1].judged(from, "alive")
	f.gossips(4)
}

// TestGossipWithoutServers: an agent that is started while no server is there takes part
// in the ring that it keeps; a server that comes back finds all in it, under the same key.
func TestGossipWithoutServers(t *testing.T) {
	f, all := gossiping(t, "a", "b", "c")
	key := f.until("a key", func(s *wire.StatusResponse) bool { return s.GetGossip().GetKey() != "" }).GetGossip().GetKey()
	address := f.address
	f.stop()
	all[0].stop()
	began := make(chan struct{}, 1)
	all[0].start(func(o *agent.Options) {
		o.GossipListen = "127.0.0.1:0"
		o.Log = slog.New(slog.NewTextHandler(heard{"gossip has begun", began}, nil))
	})
	select {
	case <-began:
	case <-time.After(patience):
		t.Fatal("it does not gossip without a server")
	}
	f.start(address)
	f.gossips(3)
	st := f.until("each to see both others", func(s *wire.StatusResponse) bool { return s.GetGossip().GetSeen() == 2 })
	if got := st.GetGossip().GetKey(); got != key {
		t.Errorf("the key is %s, and was %s", got, key)
	}
}

// heard is a log that waits for a line.
type heard struct {
	text string
	came chan<- struct{}
}

func (h heard) Write(p []byte) (int, error) {
	if strings.Contains(string(p), h.text) {
		select {
		case h.came <- struct{}{}:
		default:
		}
	}
	return len(p), nil
}

// TestRotation: a new key reaches all, is used, and the old one goes; a host that is away
// holds that up and is named; nobody falls out of the ring meanwhile, and it is in the log
// who asked for it.
func TestRotation(t *testing.T) {
	f, all := gossiping(t, "a", "b", "c", "d")
	before := f.until("a key", func(s *wire.StatusResponse) bool { return s.GetGossip().GetKey() != "" }).GetGossip().GetKey()
	if _, err := f.admin(pki.RoleApprover).Rotate(t.Context(), &wire.RotateRequest{What: "gossip"}); err == nil {
		t.Error("an approver rotates keys")
	}
	api := f.admin(pki.RoleAdmin)
	if _, err := api.Rotate(t.Context(), &wire.RotateRequest{What: "else"}); err == nil {
		t.Error("something else is rotated")
	}
	from := f.brain.mark()
	all[3].stop()
	all[3].judged(from, "agent_dead")
	if _, err := api.Rotate(t.Context(), &wire.RotateRequest{What: "gossip", By: "eve"}); err != nil {
		t.Fatal(err)
	}
	held := f.until("all who are there to confirm", func(s *wire.StatusResponse) bool {
		return slices.Equal(s.GetGossip().GetWaits(), []string{all[3].id.Name.ID})
	})
	if g := held.GetGossip(); g.GetKey() != before || g.GetRotation() == "" {
		t.Errorf("while one host has not confirmed: %v", g)
	}
	if _, err := api.Rotate(t.Context(), &wire.RotateRequest{What: "gossip"}); err == nil || !strings.Contains(err.Error(), "under way") {
		t.Errorf("a second rotation: %v", err)
	}
	all[3].gossip()
	after := f.until("the rotation to end", func(s *wire.StatusResponse) bool {
		return s.GetGossip().GetRotation() == "" && s.GetGossip().GetKey() != before
	})
	if got := after.GetGossip().GetMembers(); got != 4 {
		t.Errorf("%d members are left", got)
	}
	kept := f.brain.recorded()
	if len(kept) == 0 || kept[0].kind != "rotate" || !strings.Contains(kept[0].text, "ann (eve)") {
		t.Errorf("the log has %+v", kept)
	}
}

// pages is a place where text ends up.
type pages struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (p *pages) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

// String is what has ended up there: connections of the gossip may still be written of.
func (p *pages) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// TestGossipKeysStaySecret: the keys go to agents and nowhere else: no log at any level,
// no answer to people, nothing that is fed or recorded has one (S14).
func TestGossipKeysStaySecret(t *testing.T) {
	shelf, all := t.TempDir(), &pages{}
	log := slog.New(slog.NewTextHandler(all, &slog.HandlerOptions{Level: slog.LevelDebug}))
	f := newFleet(t, func(o *server.Options) { o.Shelf, o.Log = pki.Folder(shelf), log })
	var boxes []*box
	for _, label := range []string{"a", "b", "c"} {
		id, dir := f.join(label)
		b := &box{f: f, id: id, dir: dir, state: t.TempDir(), host: id.Name.Host(), toy: newToy("main")}
		b.start(func(o *agent.Options) { o.GossipListen, o.Log = "127.0.0.1:0", log })
		boxes = append(boxes, b)
	}
	f.gossips(3)
	before := f.until("a key", func(s *wire.StatusResponse) bool { return s.GetGossip().GetKey() != "" }).GetGossip().GetKey()
	secrets := secretsIn(t, shelf)
	if _, err := f.admin(pki.RoleAdmin).Rotate(t.Context(), &wire.RotateRequest{What: "gossip"}); err != nil {
		t.Fatal(err)
	}
	st := f.until("the rotation to end", func(s *wire.StatusResponse) bool {
		return s.GetGossip().GetRotation() == "" && s.GetGossip().GetKey() != before
	})
	secrets = append(secrets, secretsIn(t, shelf)...)
	hosts, err := f.admin(pki.RoleViewer).Hosts(t.Context(), &wire.HostsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(all, st, hosts, f.brain.recorded())
	for _, b := range boxes {
		b.stop()
		if journal, err := os.ReadFile(filepath.Join(b.state, "journal")); err == nil {
			_, _ = all.Write(journal)
		}
	}
	f.stop()
	f.brain.mu.Lock()
	fmt.Fprintf(all, "%+v", f.brain.fed)
	f.brain.mu.Unlock()
	if len(secrets) != 2 || !strings.Contains(all.String(), "gossip has begun") {
		t.Fatalf("%d secrets; the pages are not what they should be", len(secrets))
	}
	for _, key := range secrets {
		for _, form := range []string{string(key), base64.StdEncoding.EncodeToString(key)[:20], hex.EncodeToString(key)[:20], fmt.Sprint(key)[1:20]} {
			if strings.Contains(all.String(), form) {
				t.Errorf("a key is on a page, as %.8q…", form)
			}
		}
	}
}

// secretsIn are the keys on a shelf.
func secretsIn(t *testing.T, shelf string) [][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(shelf, "gossip", "key-*.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list [][]byte
	for _, name := range names {
		data, err := os.ReadFile(name)
		var r struct{ Secret []byte }
		if err == nil {
			err = json.Unmarshal(data, &r)
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r.Secret)
	}
	return list
}
