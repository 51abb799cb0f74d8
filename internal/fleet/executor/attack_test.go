package executor_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/warrant"
)

// An attacker who is the agent (has its socket, its key, and sees all that servers send)
// gets nothing done: each attempt differs from an order that is obeyed in one thing.
func TestAttackerGetsNothingDone(t *testing.T) {
	f, other := newFleet(t), newFleet(t)
	attacks := map[string]struct {
		attack func(h *host, d fettle.Dispatch) executor.Order
		change func(*executor.Options)
		says   string
	}{
		"not signed": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			o := h.order(d)
			o.Signed = nil
			return o
		}, says: "no server of the fleet has signed"},
		"signed by the agent": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			o := h.order(d)
			o.Signed = h.sign(h.compromise, warrant.Order{Say: warrant.Do, Body: warrant.HashOf(o.Body)})
			return o
		}, says: "who signed the order"},
		"signed by an approver": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			o := h.order(d)
			o.Signed = h.sign(h.approver, warrant.Order{Say: warrant.Do, Body: warrant.HashOf(o.Body)})
			return o
		}, says: "who signed the order"},
		"signed by a server of another fleet": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			o := h.order(d)
			o.Signed = h.sign(other.server, warrant.Order{Say: warrant.Do, Body: warrant.HashOf(o.Body)})
			return o
		}, says: "who signed the order"},
		"the agent's signature under a server's certificate": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			o := h.order(d)
			o.Signed = h.sign(h.compromise, warrant.Order{Say: warrant.Do, Body: warrant.HashOf(o.Body)})
			o.Signed.Certificate = h.server.Certificate()
			return o
		}, says: "the signed order"},
		"for another fleet": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			o := h.order(d)
			o.Signed = h.sign(h.server, warrant.Order{Fleet: other.ca.Fleet(), Say: warrant.Do, Body: warrant.HashOf(o.Body)})
			return o
		}, says: "of fleet"},
		"another body": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			o := h.order(d)
			o.Body = bytes.Replace(o.Body, []byte("lamp:h1/hall"), []byte("lamp:h1/wall"), 1)
			return o
		}, says: "not what was signed"},
		"a blank more": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			o := h.order(d)
			o.Body = append(o.Body, ' ')
			return o
		}, says: "not what was signed"},
		"a changed end": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			o := h.order(d)
			o.Signed.Note = bytes.Replace(o.Signed.Note, []byte("within 1"), []byte("within 91"), 1)
			return o
		}, says: "the signed order"},
		"a question as an order": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			o := h.order(d)
			o.Signed = h.sign(h.server, warrant.Order{Say: warrant.Recover, Body: warrant.HashOf(o.Body)})
			return o
		}, says: "handed over to do"},
		"a nonce of another host": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			o := h.order(d)
			p, err := h.fleet.host(filepath.Join(t.TempDir(), "other")).ex.Pulse(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			o.Signed = h.sign(h.server, warrant.Order{Say: warrant.Do, Nonce: p.Nonce, Body: warrant.HashOf(o.Body)})
			return o
		}, says: "another host"},
		"a nonce of its own making": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			o := h.order(d)
			o.Signed = h.sign(h.server, warrant.Order{Say: warrant.Do, Nonce: "zzzzzzzzzz.00000000000000000000000000000000", Body: warrant.HashOf(o.Body)})
			return o
		}, says: "another host"},
		"kept for too long": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			o := h.order(d)
			h.clock.pass(11*time.Second, 0)
			return o
		}, says: "its deadline passed"},
		"kept for much too long": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			o := h.order(d)
			h.clock.pass(2*time.Minute, 0)
			return o
		}, says: "its nonce is"},
		"an older leader's": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			first := h.dispatch("newer", light)
			first.Token.Revision = 9
			if out := h.do(h.ex, h.order(first)); out.Fate != fettle.Done {
				t.Fatal(out)
			}
			return h.order(d)
		}, says: "no longer the leader"},
		"a new epoch that nobody signed": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			if out := h.do(h.ex, h.order(h.dispatch("older", light))); out.Fate != fettle.Done {
				t.Fatal(out)
			}
			d.Token.Epoch = 2
			return h.order(d)
		}, says: "no administrator"},
		"for another host": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			d.Step.Host = "host:h2"
			return h.order(d)
		}, says: "this is host:h1"},
		"for an earlier start": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			d.Incarnation = "before"
			return h.order(d)
		}, says: "started anew"},
		"without the log's head": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			o := h.order(d)
			o.Log = nil
			return o
		}, says: "no head"},
		"with an earlier head": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			old := h.log()
			h.head = 9
			if why, err := h.ex.Follow(t.Context(), *h.log()); why != "" || err != nil {
				t.Fatal(why, err)
			}
			o := h.order(d)
			o.Log = &warrant.Signed{Note: append(bytes.Clone(old.Note), '\n'), Certificate: old.Certificate} // not the very one that was followed
			return o
		}, says: "cannot be believed"},
		"with a head that goes back": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			h.head = 9
			if why, err := h.ex.Follow(t.Context(), *h.log()); why != "" || err != nil {
				t.Fatal(why, err)
			}
			o := h.order(d)
			h.head = 5
			o.Log = h.log()
			return o
		}, says: "shorter"},
		"an action that is not allowed": {attack: func(h *host, d fettle.Dispatch) executor.Order { return h.order(d) },
			change: func(o *executor.Options) { rules(t, o, "never: [\"lamp.*\"]\n") }, says: "does not allow"},
		"an action that is not on the list": {attack: func(h *host, d fettle.Dispatch) executor.Order { return h.order(d) },
			change: func(o *executor.Options) { rules(t, o, "allow: [\"bulb.*\"]\n") }, says: "does not allow"},
		"rules of no use": {attack: func(h *host, d fettle.Dispatch) executor.Order { return h.order(d) },
			change: func(o *executor.Options) { rules(t, o, "allow: {lamp: yes}\n") }, says: "does not allow"},
		"rules that anybody may write": {attack: func(h *host, d fettle.Dispatch) executor.Order { return h.order(d) },
			change: func(o *executor.Options) {
				rules(t, o, "allow: [\"*\"]\n")
				if err := os.Chmod(o.ActionsFile, 0o666); err != nil {
					t.Fatal(err)
				}
			}, says: "does not allow"},
		"a frozen host": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			if err := executor.Freeze(h.dir, "hands off"); err != nil {
				t.Fatal(err)
			}
			return h.order(d)
		}, says: "frozen"},
		"what needs a person": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			d.Step.Action = smash
			return h.order(d)
		}, says: "only with a person's signed approval"},
		"too much": {attack: func(h *host, d fettle.Dispatch) executor.Order {
			o := h.order(d)
			o.Body = append(o.Body, bytes.Repeat([]byte{' '}, 10<<20)...)
			return o
		}, says: "at most"},
	}
	for name, a := range attacks {
		t.Run(name, func(t *testing.T) {
			var change []func(*executor.Options)
			if a.change != nil {
				change = append(change, a.change)
			}
			h := f.host(t.TempDir(), change...)
			o := a.attack(h, h.dispatch("k1", light))
			before := h.lamp.count()
			out := h.do(h.ex, o)
			if out.Class != fettle.Refused || !strings.Contains(out.Error, a.says) {
				t.Errorf("%+v, want a refusal that says %q", out, a.says)
			}
			if again := h.do(h.ex, o); again.Class != fettle.Refused {
				t.Errorf("the second time: %+v", again)
			}
			if n := h.lamp.count(); n != before {
				t.Errorf("it was done: %v", h.lamp.done)
			}
		})
	}
	t.Run("and what is right is done, once", func(t *testing.T) {
		h := f.host(t.TempDir())
		o := h.order(h.dispatch("k1", light))
		for i := range 3 {
			if out := h.do(h.ex, o); out.Fate != fettle.Done || out.Error != "" || out.Replay != (i > 0) {
				t.Errorf("%+v", out)
			}
		}
		if n := h.lamp.count(); n != 1 {
			t.Errorf("it was done %d times", n)
		}
		h.stop()
		again := f.host(h.dir)
		if out := again.do(again.ex, o); out.Class != fettle.Refused || again.lamp.count() != 0 {
			t.Errorf("replayed to the next start: %+v", out)
		}
	})
}

func rules(t *testing.T, o *executor.Options, text string) {
	t.Helper()
	if err := os.WriteFile(o.ActionsFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A forged question is no way round either: it would fence keys, and pass a token for
// the highest.
func TestForgedQuestionIsRefused(t *testing.T) {
	h := newFleet(t).host(t.TempDir())
	d := h.dispatch("k1", light)
	d.Token.Revision = 1 << 62
	body, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	o := executor.Order{Body: body, Signed: h.sign(h.compromise, warrant.Order{Say: warrant.Recover, Body: warrant.HashOf(body)})}
	out, err := h.ex.Recover(t.Context(), o)
	if err != nil || out.Class != fettle.Refused {
		t.Errorf("%+v, %v", out, err)
	}
	if out := h.do(h.ex, h.order(h.dispatch("k1", light))); out.Fate != fettle.Done {
		t.Errorf("the true one: %+v", out)
	}
	if p, err := h.ex.Preview(t.Context(), executor.Order{Body: body}); err == nil {
		t.Errorf("a preview that nobody signed: %+v", p)
	}
}

// Before a server was met nothing is done: who is between may have kept its head back.
func TestNotMet(t *testing.T) {
	h := newFleet(t).open(t.TempDir())
	if out := h.do(h.ex, h.order(h.dispatch("k1", light))); out.Class != fettle.Refused || h.lamp.count() != 0 || !strings.Contains(out.Error, "no server was met") {
		t.Errorf("%+v", out)
	}
}
