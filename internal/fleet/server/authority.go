package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

// authority is this server's part in a change of the fleet's authority.
type authority struct {
	wake chan struct{}
	// changing is held while keys and records change, so that a key that is being
	// prepared is not taken for one that nobody wants.
	changing sync.Mutex

	mu     sync.Mutex
	ledger ledger          // as it was read last
	status authorityStatus // of the present term
}

// stayBelieved does what the authority's words say, on every server, and, on the one that
// leads, takes a change on, until ctx ends. What fails is said once, and tried again.
func (s *Server) stayBelieved(ctx context.Context) {
	if s.o.Shelf == nil {
		return
	}
	last := ""
	for {
		text := ""
		if err := s.believe(ctx); err != nil {
			text = err.Error()
		}
		if text != "" && text != last && ctx.Err() == nil {
			s.o.Log.Error("the fleet's authority is not as it should be; it is tried again", "error", text)
		}
		last = text
		if !pass(ctx, s.o.Clock, s.o.Interval, s.authority.wake) {
			return
		}
	}
}

func (s *Server) believe(ctx context.Context) error {
	a := &s.authority
	a.changing.Lock()
	defer a.changing.Unlock()
	l, err := readLedger(ctx, s.o.Shelf)
	if err != nil {
		return err
	}
	t := s.term.Load()
	if t != nil {
		if l, err = s.republish(ctx, l); err != nil {
			return err
		}
	}
	if err = s.obey(ctx, l); err == nil {
		l, err = readLedger(ctx, s.o.Shelf)
	}
	a.mu.Lock()
	a.ledger = l
	a.mu.Unlock()
	if err != nil || t == nil {
		return err
	}
	return s.turnAuthority(ctx, t, l)
}

// republish puts the words that this server keeps and the store does not, since it was
// restored from before them, into it.
func (s *Server) republish(ctx context.Context, l ledger) (ledger, error) {
	had := int64(0)
	if last := l.last(); last != nil {
		had = last.Serial
	}
	for _, w := range s.o.CA.Words() {
		word, err := pki.ParseWord(w)
		if err != nil || word.Serial <= had {
			continue
		}
		if err := l.publish(ctx, s.o.Shelf, w); err != nil {
			return l, err
		}
		s.o.Log.Warn("the store did not know a word of the fleet's authority that this server keeps: it was restored from before that", "serial", word.Serial)
		if l, err = readLedger(ctx, s.o.Shelf); err != nil {
			return l, err
		}
	}
	return l, nil
}

// obey does what stands in the ledger here, and notes it when all is done.
func (s *Server) obey(ctx context.Context, l ledger) error {
	self := s.identity.Load().Name.ID
	prepared := ""
	if l.next != nil {
		prepared = l.next.Pin
		if err := s.fetch(ctx, prepared); err != nil && !errors.Is(err, pki.ErrNoKey) {
			return err
		}
		if s.o.CA.Holds(prepared) && !l.holds[holdsID(self, prepared)] {
			if err := note(ctx, s.o.Shelf, holdsPrefix+holdsID(self, prepared), whoRecord{Schema: 1, Server: self, At: s.o.Clock.Wall().UTC()}); err != nil {
				return err
			}
		}
	}
	if words := l.after(s.o.CA.Trust().Serial()); len(words) > 0 {
		for _, pin := range l.last().Trust {
			if err := s.fetch(ctx, pin); err != nil {
				return err
			}
		}
		if err := s.o.CA.Believe(words); err != nil {
			return err
		}
		s.o.Log.Info("the fleet's authority says whom to believe from now on", "serial", s.o.CA.Trust().Serial(), "authorities", s.o.CA.Trust().Pins(), "issues", s.o.CA.Pin())
	}
	trust := s.o.CA.Trust()
	if was := s.identity.Load(); was.Serial() != trust.Serial() || was.Pin() != s.o.CA.Pin() {
		if err := s.renew(); err != nil {
			return err
		}
		if s.identity.Load().Pin() != was.Pin() || len(trust.Pins()) < len(was.Trust().Pins()) {
			s.relays.anew()
		}
	}
	// Not before nothing here is of it.
	gone, err := s.o.CA.Destroy(prepared)
	if err != nil {
		return err
	}
	if len(gone) > 0 {
		s.o.Log.Warn("the keys of authorities that nobody believes any more were destroyed on this server", "authorities", gone)
	}
	s.disbelieve(trust)
	if last := l.last(); last == nil || last.Serial != trust.Serial() {
		return nil
	}
	return s.settleStore(ctx, l, trust, gone)
}

// settleStore has this server's part of the store believe the same, for which it starts
// anew, one server at a time and the one that leads last, and notes then that all is done
// here.
func (s *Server) settleStore(ctx context.Context, l ledger, trust *pki.Trust, gone []string) error {
	self := s.identity.Load().Name.ID
	again := false
	if s.o.Believed != nil {
		var err error
		if again, err = s.o.Believed(trust.Authorities()); err != nil {
			return err
		}
	}
	switch {
	case again && l.restart == nil && (s.term.Load() == nil || s.othersDid(ctx, l)):
		// Of two that try, one makes the record.
		if err := note(ctx, s.o.Shelf, restartRecord, whoRecord{Schema: 1, Server: self, At: s.o.Clock.Wall().UTC()}); err != nil {
			return err
		}
		poke(s.authority.wake)
		return nil
	case again && l.restart != nil && l.restart.Server == self:
		s.o.Log.Info("this server's part of the store starts anew, to believe whom the fleet believes")
		s.o.Again()
		return nil
	case again:
		return nil // it is another's turn
	}
	if l.restart != nil && l.restart.Server == self {
		if err := unnote(ctx, s.o.Shelf, restartRecord); err != nil {
			return err
		}
	}
	id := didID(self, trust.Serial())
	if _, noted := l.did[id]; noted {
		return nil
	}
	return note(ctx, s.o.Shelf, didPrefix+id, whoRecord{Schema: 1, Server: self, At: s.o.Clock.Wall().UTC(), Destroyed: gone})
}

// othersDid reports whether all other servers do what the last word says.
func (s *Server) othersDid(ctx context.Context, l ledger) bool {
	servers, err := s.servers(ctx)
	self := s.identity.Load().Name.ID
	return err == nil && !slices.ContainsFunc(servers, func(id string) bool {
		_, did := l.did[didID(id, l.last().Serial)]
		return id != self && !did
	})
}

// servers are the identities of all servers of the fleet, this one among them.
func (s *Server) servers(ctx context.Context) ([]string, error) {
	joined, err := s.o.Register.Servers(ctx)
	if err != nil {
		return nil, err
	}
	list := []string{s.identity.Load().Name.ID}
	for _, j := range joined {
		if j.ID != list[0] {
			list = append(list, j.ID)
		}
	}
	return list, nil
}

// fetch gets the key of an authority from the server that leads, unless it is here. The
// error wraps pki.ErrNoKey where that is this one.
func (s *Server) fetch(ctx context.Context, pin string) error {
	if s.o.CA.Holds(pin) {
		return nil
	}
	none := fmt.Errorf("authority %.16s: %w", pin, pki.ErrNoKey)
	if s.o.Cluster == nil || s.term.Load() != nil {
		return none
	}
	leader, ok := s.o.Cluster.Leader()
	if !ok || leader.Name == s.identity.Load().Name.ID {
		return none
	}
	conn, err := wire.Dial(leader.Address, pki.ClientTLS(s.identity.Load, s.o.Clock.Wall))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, wire.CallTimeout)
	defer cancel()
	got, err := wire.NewEnrolServiceClient(conn).AuthorityKey(ctx, &wire.AuthorityKeyRequest{Schema: wire.Schema, Pin: pin})
	if err != nil {
		return fmt.Errorf("fetch the key of authority %.16s from the server that leads: %w", pin, err)
	}
	return s.o.CA.TakeKey(got.GetAuthorityKey(), pin)
}

// errDisbelieved ends what was begun with a certificate that nobody believes any more.
var errDisbelieved = errors.New("its certificate is of an authority that the fleet does not believe any more (join again with a new token)")

// disbelieve ends the sessions that began under an authority that is not believed.
func (s *Server) disbelieve(trust *pki.Trust) {
	for _, h := range s.all() {
		if x := h.current(); x != nil && !slices.Contains(trust.Pins(), x.issuer) {
			x.end(errDisbelieved)
		}
	}
}

// tellAuthority tells every agent the words that it has not heard.
func (s *Server) tellAuthority(l ledger) {
	for _, h := range s.all() {
		x := h.current()
		if x == nil || !x.believes {
			continue
		}
		h.mu.Lock()
		words := l.after(max(x.told, h.authority.serial))
		if last := l.last(); last != nil {
			x.told = last.Serial
		}
		h.mu.Unlock()
		if len(words) > 0 {
			x.push(&wire.SessionResponse{What: &wire.SessionResponse_Authorities{Authorities: &wire.Authorities{Words: wireWords(words)}}})
		}
	}
}

// wordsFor are the words for an agent whose session begins.
func (s *Server) wordsFor(x *session, serial int64) []*wire.AuthorityWord {
	if s.o.Shelf == nil || !x.believes {
		return nil
	}
	s.authority.mu.Lock()
	l := s.authority.ledger
	s.authority.mu.Unlock()
	if last := l.last(); last != nil {
		x.told = last.Serial
	}
	return wireWords(l.after(serial))
}

// authorityState is how far a host follows the authority's words.
type authorityState struct {
	serial int64 // of the last that its agent and its executor keep
	why    string
}

// followsAuthority takes in how far an agent and its executor have got.
func (x *session) followsAuthority(w *wire.AuthorityState) {
	x.host.mu.Lock()
	x.host.authority = authorityState{serial: w.GetSerial(), why: cut(w.GetError(), maxWhy)}
	x.host.mu.Unlock()
	poke(x.host.s.authority.wake)
}

// unknownHost says of hosts that are named what is wrong with them.
func (s *Server) unknownHost(ctx context.Context, id string) error {
	in, err := s.o.Register.Admitted(ctx, pki.Name{Role: pki.RoleAgent, ID: id})
	if err == nil && !in {
		err = fmt.Errorf("no host %.40q has joined (see `fettle hosts`): %w", id, fs.ErrNotExist)
	}
	return err
}

func hostOf(id string) fettle.Subject { return fettle.HostSubject(id) }
