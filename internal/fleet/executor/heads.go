package executor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"

	"fettle/internal/act/execute"
	"fettle/internal/fettle"
	"fettle/internal/fleet/charter"
	"fettle/internal/fleet/loghead"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
	"fettle/internal/machine"
)

// distrustHint is what to do about a head that cannot be believed.
const distrustHint = "find out who answers as this fleet's server; nothing is done at its word until it shows a head of its log that a server of the fleet has signed"

// manyHeads is how many heads are remembered that were followed: one comes with a ping
// or a dispatch, and again with the dispatch's order.
const manyHeads = 128

// verifiedFor is how long a certificate that was verified counts as valid: an hour past
// its end of three months.
const verifiedFor = time.Hour

// heads holds servers to their log, and knows the administrator's word that was shown
// last.
type heads struct {
	trust func() *pki.Trust
	clock machine.Clock
	log   *slog.Logger
	ex    *execute.Executor
	last  atomic.Pointer[charter.Charter]

	mu       sync.Mutex
	known    note.Verifier // of the certificate that was verified last
	by       []byte
	of       *pki.Trust // by whom it was
	since    time.Time
	followed [][sha256.Size]byte // the latest, oldest first
}

// Meet implements Hands. What is wrong with a server ends no session: the machine is
// still observed; only nothing is done.
func (e *Executor) Meet(_ context.Context, in Introduction) (string, error) {
	h := &e.heads
	h.shown(in.Charter)
	e.met.Store(true)
	if in.Log == nil {
		return text(e.ex.Meet(nil, "")), nil
	}
	head, st, err := h.opened(*in.Log)
	switch {
	case err != nil:
	case in.Asked == nil:
		err = e.ex.Meet(&head, "")
	case st.Place == nil || st.Place.Seq != in.Asked.Entries:
		err = e.ex.Distrust(distrustHint, fmt.Sprintf("the server does not say what stands at entry %d of its log", in.Asked.Entries))
	default:
		err = e.ex.Meet(&head, st.Place.Hash)
	}
	return text(err), nil
}

// Follow implements Hands.
func (e *Executor) Follow(_ context.Context, head warrant.Signed) (string, error) {
	return text(e.heads.follow(head)), nil
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// follow takes a later head. One that was followed already says nothing new: orders
// that are handed over at once may overtake each other.
func (h *heads) follow(s warrant.Signed) error {
	sum := sha256.Sum256(s.Note)
	h.mu.Lock()
	again := slices.Contains(h.followed, sum)
	h.mu.Unlock()
	if again {
		return nil
	}
	head, _, err := h.opened(s)
	if err == nil {
		err = h.ex.Follow(head)
	}
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.followed = append(h.followed, sum)
	if len(h.followed) > manyHeads {
		h.followed = slices.Delete(h.followed, 0, len(h.followed)-manyHeads)
	}
	return nil
}

// opened verifies a head. One that cannot be believed is one of a server that is not
// obeyed.
func (h *heads) opened(s warrant.Signed) (execute.LogHead, loghead.Statement, error) {
	var st loghead.Statement
	known, err := h.verifier(s.Certificate)
	if err == nil {
		st, err = loghead.Open(s.Note, known)
	}
	if err == nil && st.Fleet != h.trust().Fleet {
		err = fmt.Errorf("it is of fleet %s", st.Fleet)
	}
	if err != nil {
		return execute.LogHead{}, st, h.ex.Distrust(distrustHint, "the head that the server shows of its log cannot be believed: "+err.Error())
	}
	return execute.LogHead{Epoch: st.Epoch, Entries: st.Entries, Hash: st.Hash, Note: string(s.Note), Certificate: s.Certificate}, st, nil
}

// verifier is what verifies the notes of a server's certificate. The last one is not
// verified anew until it is an hour old: it comes with every order.
func (h *heads) verifier(certificate []byte) (note.Verifier, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now, trust := h.clock.Now(), h.trust()
	if h.known != nil && h.of == trust && bytes.Equal(h.by, certificate) && now.Sub(h.since) < verifiedFor {
		return h.known, nil
	}
	known, err := trust.ServerNotes(certificate, h.clock.Wall())
	if err != nil {
		return nil, err
	}
	h.known, h.by, h.since, h.of = known, bytes.Clone(certificate), now, trust
	return known, nil
}

// shown takes in what a server shows of the epoch. What is not an administrator's word
// is passed over, and told to the log: without it the epoch that the server is in is
// refused, if it is a new one.
func (h *heads) shown(signed *warrant.Signed) {
	if signed == nil {
		return
	}
	c, err := charter.Open(charter.Signed{Note: signed.Note, Certificate: signed.Certificate}, h.trust())
	if err != nil {
		h.log.Error("the server shows an epoch that no administrator of this fleet has signed", "error", err)
		return
	}
	if before := h.last.Swap(&c); before == nil || before.Epoch != c.Epoch {
		h.log.Info("an administrator has let an epoch begin", "epoch", c.Epoch, "why", c.Why, "at", c.At)
	}
}

// newEpoch is execute.Options.NewEpoch.
func (h *heads) newEpoch(highest, offered fettle.Token) error {
	c := h.last.Load()
	if c == nil || c.Epoch != offered.Epoch {
		return fmt.Errorf("its epoch is %d, this host knows %d, and no administrator of the fleet has signed the change", offered.Epoch, highest.Epoch)
	}
	return nil
}
