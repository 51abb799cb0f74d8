package server

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"fettle/internal/fleet/loghead"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
	"fettle/internal/loop"
)

// chained is a History that can say where it ends and what stands where. Of one
// that cannot, agents are shown no heads.
type chained interface {
	// Tip does not wait for the disk.
	Tip(ctx context.Context) (loop.Tip, error)
	// HashAt returns "" where there is no entry of this number, and a *store.Broken
	// where it cannot be read for good.
	HashAt(ctx context.Context, seq int64) (string, error)
}

// heads signs the log's head, once for all agents.
type heads struct {
	mu     sync.Mutex
	tip    loop.Tip
	by     *pki.Identity
	signed *wire.SignedHead
}

// met is the head for an agent whose session begins, with what stands at the place
// of the last one that it keeps.
func (s *Server) met(ctx context.Context, x *session, kept *wire.LogHead) (*wire.SignedHead, error) {
	log, ok := s.o.History.(chained)
	if !ok {
		return nil, nil
	}
	tip, err := log.Tip(ctx)
	if err != nil {
		return nil, fmt.Errorf("the log's head: %w", err)
	}
	st := s.statement(tip)
	if kept.GetEpoch() != 0 {
		place := &loghead.Place{Seq: max(0, kept.GetEntries())}
		var broken *store.Broken
		if place.Seq > 0 && place.Seq <= tip.Entries {
			if place.Hash, err = log.HashAt(ctx, place.Seq); err == nil && place.Hash == "" {
				err = &store.Broken{Seq: place.Seq, Why: "it is not there"}
			}
		}
		switch {
		case errors.As(err, &broken): // nothing is said of it: the agent is told no lie, and tells what it sees
			s.o.Log.Error("what stands in the log where an agent keeps its head cannot be said", "host", x.host.subject, "label", x.label, "error", err)
		case err != nil:
			return nil, err // it may be read the next time that the agent calls
		default:
			st.Place = place
		}
		if st.Place != nil && kept.GetEpoch() == tip.Epoch && st.Place.Hash != kept.GetHash() {
			s.o.Log.Error("this server's log of decisions is not the one that an agent has seen: was an old copy of the store restored?",
				"host", x.host.subject, "label", x.label, "entries", tip.Entries, "agent's entry", kept.GetEntries(), "agent's hash", fmt.Sprintf("%.64s", kept.GetHash()), "hash here", st.Place.Hash)
		}
	}
	x.shown = tip
	return sign(st, s.identity.Load())
}

// present is the head as it is now. A failure is told to the log: an agent that was
// shown a head when the session began is bound by that one.
func (s *Server) present(ctx context.Context) (loop.Tip, *wire.SignedHead) {
	log, ok := s.o.History.(chained)
	if !ok {
		return loop.Tip{}, nil
	}
	tip, err := log.Tip(ctx)
	if err == nil {
		var signed *wire.SignedHead
		if signed, err = s.heads.sign(s.statement(tip), tip, s.identity.Load()); err == nil {
			return tip, signed
		}
	}
	s.o.Log.Error("the log's head cannot be shown to an agent", "error", err)
	return loop.Tip{}, nil
}

func (s *Server) statement(tip loop.Tip) loghead.Statement {
	return loghead.Statement{Fleet: s.o.CA.Fleet(), Epoch: tip.Epoch, Entries: tip.Entries, Hash: tip.Hash}
}

func (h *heads) sign(st loghead.Statement, tip loop.Tip, id *pki.Identity) (*wire.SignedHead, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.signed != nil && h.tip == tip && h.by == id {
		return h.signed, nil
	}
	signed, err := sign(st, id)
	if err == nil {
		h.tip, h.by, h.signed = tip, id, signed
	}
	return signed, err
}

func sign(st loghead.Statement, id *pki.Identity) (*wire.SignedHead, error) {
	msg, err := loghead.Sign(st, id.NoteSigner())
	if err != nil {
		return nil, err
	}
	return &wire.SignedHead{Note: msg, Certificate: id.Certificate()}, nil
}

// withHead puts the log's head into a message that carries it: into every dispatch,
// so that the agent keeps the head that has its intent; into a ping where it has
// moved. Called by the one that writes, so that heads go out in order.
func (x *session) withHead(m *wire.SessionResponse) {
	switch w := m.GetWhat().(type) {
	case *wire.SessionResponse_Dispatch:
		x.shown, w.Dispatch.Log = x.host.s.present(x.ctx)
	case *wire.SessionResponse_Ping:
		if tip, signed := x.host.s.present(x.ctx); tip != x.shown {
			x.shown, w.Ping.Log = tip, signed
		}
	}
}
