package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
)

// What a change of the authority waits for.
const (
	preparing = "the new authority's key goes to every server"
	adding    = "the new authority is made known: every server and host must believe it before anything is issued by it"
	issuing   = "the new authority issues: every server and host gets a certificate of it, and the old one is still believed"
	returning = "the change is taken back: every server and host gets a certificate of the old authority again"
	looking   = "this server has just begun to lead, and looks how far a change of the authority is"
	dropping  = "the authority that was given up is believed no more; it is being forgotten everywhere"
)

// authorityStatus is how far a change is, as it was found last.
type authorityStatus struct {
	phase string // "": nothing is under way
	since time.Time
	waits []*wire.AuthorityWait
	hold  string // what else it waits for
	back  bool
}

// turnAuthority looks who has confirmed the present phase, and takes a change on.
func (s *Server) turnAuthority(ctx context.Context, t *term, l ledger) error {
	s.tellAuthority(l)
	st, err := s.examine(ctx, l)
	if err != nil {
		return err
	}
	s.authority.mu.Lock()
	s.authority.status = st
	s.authority.mu.Unlock()
	if l.restart != nil {
		if err := s.freeRestart(ctx, l); err != nil {
			return err
		}
	}
	if st.phase == "" || st.phase == dropping || len(st.waits) > 0 || st.hold != "" {
		return nil
	}
	w, text := pki.Word{}, ""
	last := l.last()
	switch st.phase {
	case preparing:
		old := s.o.CA.Pin()
		w = pki.Word{Trust: []string{old, l.next.Pin}, Use: old, Goal: l.next.Pin, Overlap: l.next.Overlap}
		text = "the new authority " + short16(l.next.Pin) + " is believed besides " + short16(old)
	case adding:
		w = last.Word
		w.Use = w.Goal
		text = "authority " + short16(w.Goal) + " issues from now on; " + short16(w.Other()) + " is still believed"
	case issuing, returning:
		w = last.Word
		text = "authority " + short16(w.Other()) + " is believed no more, and its keys are destroyed"
		w.Trust = []string{w.Goal}
	}
	if err := s.say(ctx, t, l, w, "the server that leads", text); err != nil {
		return err
	}
	if st.phase == preparing {
		if err := unnote(ctx, s.o.Shelf, nextRecord); err != nil {
			return err
		}
	}
	poke(s.authority.wake)
	return nil
}

func short16(pin string) string { return pin[:16] }

// say records what happens, and has the authority say it.
func (s *Server) say(ctx context.Context, t *term, l ledger, w pki.Word, by, text string) error {
	w.At = s.o.Clock.Wall()
	w.Serial = max(s.o.CA.Trust().Serial()+1, w.At.Unix())
	signed, err := s.o.CA.Say(w)
	if err != nil {
		return err
	}
	log, ok := t.brain.(recorder)
	if !ok {
		return errors.New("this server keeps no log of what people do, so the authority is not changed")
	}
	if err := log.Record(ctx, "rotate", by+": "+text, map[string]string{"by": by, "what": "authority", "serial": strconv.FormatInt(w.Serial, 10),
		"trust": strings.Join(w.Trust, ","), "use": w.Use, "goal": w.Goal}); err != nil {
		return err
	}
	return l.publish(ctx, s.o.Shelf, signed)
}

// freeRestart takes a server's turn to start its part of the store anew from one that is
// of the fleet no more.
func (s *Server) freeRestart(ctx context.Context, l ledger) error {
	servers, err := s.servers(ctx)
	if err != nil || slices.Contains(servers, l.restart.Server) {
		return err
	}
	return unnote(ctx, s.o.Shelf, restartRecord)
}

// examine says how far the change is, and whom it waits for.
func (s *Server) examine(ctx context.Context, l ledger) (authorityStatus, error) {
	last := l.last()
	if l.next != nil && last != nil && slices.Contains(last.Trust, l.next.Pin) { // it was broken off behind the word
		return authorityStatus{}, unnote(ctx, s.o.Shelf, nextRecord)
	}
	var st authorityStatus
	var err error
	switch {
	case l.next != nil:
		st.phase, st.since = preparing, l.next.At
		if !s.o.CA.Holds(l.next.Pin) {
			return st, s.prepareAnew(ctx, *l.next)
		}
		st.waits, err = s.serversBehind(ctx, func(id string) string {
			if l.holds[holdsID(id, l.next.Pin)] {
				return ""
			}
			return "it has not fetched the new authority's key"
		})
		if err != nil {
			return st, err
		}
	case last == nil:
		return st, nil
	default:
		st.since, st.back = last.At, l.back()
		switch {
		case len(last.Trust) > 1 && last.Use != last.Goal:
			st.phase = adding
		case len(last.Trust) > 1 && st.back:
			st.phase = returning
		case len(last.Trust) > 1:
			st.phase = issuing
		}
		st.waits, err = s.serversBehind(ctx, func(id string) string {
			if _, did := l.did[didID(id, last.Serial)]; did {
				return ""
			}
			return "it has not confirmed it"
		})
		if err != nil {
			return st, err
		}
		if st.phase == "" && len(st.waits) > 0 {
			st.phase = dropping
		}
		if st.phase == "" {
			return authorityStatus{}, nil
		}
		hosts, err := s.hostsBehind(ctx, l)
		if err != nil {
			return st, err
		}
		st.waits = append(st.waits, hosts...)
	}
	st.hold, err = s.heldBack(ctx, l, st)
	return st, err
}

// prepareAnew replaces a prepared authority whose key is with a server that leads no more:
// nobody believes it yet.
func (s *Server) prepareAnew(ctx context.Context, next nextAuthority) error {
	if err := unnote(ctx, s.o.Shelf, nextRecord); err != nil {
		return err
	}
	return s.prepare(ctx, next.Overlap, next.By)
}

// prepare makes the key of a further authority and notes that there is one.
func (s *Server) prepare(ctx context.Context, overlap time.Duration, by string) error {
	now := s.o.Clock.Wall()
	der, err := s.o.CA.Prepare(now)
	if err != nil {
		return err
	}
	pin, err := pki.PinOf(der)
	if err != nil {
		return err
	}
	return note(ctx, s.o.Shelf, nextRecord, nextAuthority{Schema: 1, Authority: der, Pin: pin, Overlap: overlap, At: now.UTC(), By: by})
}

func (s *Server) serversBehind(ctx context.Context, behind func(id string) string) ([]*wire.AuthorityWait, error) {
	servers, err := s.servers(ctx)
	if err != nil {
		return nil, err
	}
	var list []*wire.AuthorityWait
	for _, id := range servers {
		if why := behind(id); why != "" {
			list = append(list, &wire.AuthorityWait{Server: id, Why: why})
		}
	}
	return list, nil
}

// hostsBehind are the hosts that have not confirmed the last word. One that is not
// connected has not, whatever it said before: what is known of it is of an earlier time.
func (s *Server) hostsBehind(ctx context.Context, l ledger) ([]*wire.AuthorityWait, error) {
	joined, err := s.o.Register.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	last := l.last()
	var list []*wire.AuthorityWait
	for _, j := range joined {
		if _, without := l.without[j.ID]; without {
			continue
		}
		if why := s.hostBehind(j.ID, last); why != "" {
			list = append(list, &wire.AuthorityWait{Host: j.ID, Why: why})
		}
	}
	return list, nil
}

func (s *Server) hostBehind(id string, last *signedWord) string {
	h := s.find(hostOf(id))
	if h == nil {
		return "it is not connected"
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.session
	switch {
	case x == nil:
		return "it is not connected"
	case !x.believes:
		return "its agent is of a version that cannot follow a change of the authority (upgrade it)"
	case h.authority.serial < last.Serial && h.authority.why != "":
		return h.authority.why
	case h.authority.serial < last.Serial:
		return "it has not confirmed it"
	case last.Use == last.Goal && x.issuer != last.Goal:
		return "it has no certificate of authority " + short16(last.Goal) + " yet"
	}
	return ""
}

// heldBack is what a change waits for besides servers and hosts.
func (s *Server) heldBack(ctx context.Context, l ledger, st authorityStatus) (string, error) {
	if !st.back && st.phase != dropping {
		freeze, err := s.frozen(ctx)
		if err != nil {
			return "", err
		}
		if len(freeze.GetJson()) > 0 {
			return "the fleet is frozen (`fettle thaw`; `fettle rotate authority --abort` takes the change back even so)", nil
		}
	}
	if st.phase != issuing && st.phase != returning {
		return "", nil
	}
	return s.stillValid(ctx, l)
}

// stillValid is what the authority that goes has signed and holds still.
func (s *Server) stillValid(ctx context.Context, l ledger) (string, error) {
	last := l.last()
	goes, wall := last.Other(), s.o.Clock.Wall()
	if ended := l.issuedUntil(goes); !ended.IsZero() {
		if until := ended.Add(last.Overlap); wall.Before(until) {
			return "what the authority that goes has signed, standing permits above all, may hold until " + until.UTC().Format(time.RFC3339), nil
		}
	}
	n, end, err := s.o.Register.Outstanding(ctx, goes, wall)
	if err != nil {
		return "", err
	}
	if n > 0 {
		return fmt.Sprintf("%d join tokens that name the authority that goes may be used until %s (`fettle rotate tokens --now` ends them)", n, end.UTC().Format(time.RFC3339)), nil
	}
	var signers [][]byte
	if err := s.ask(ctx, func(m *incident.Mind) { signers = m.Signers() }); err != nil {
		return "", err
	}
	for _, der := range signers {
		if cert, err := x509.ParseCertificate(der); err == nil && s.o.CA.Trust().IssuerOf(cert) == goes {
			return "a plan that is under way was approved under the authority that goes (see `fettle incidents`)", nil
		}
	}
	return "", nil
}

// rotateAuthority begins a change.
func (s *Server) rotateAuthority(ctx context.Context, t *term, log recorder, by string, overlap, least time.Duration) (string, error) {
	a := &s.authority
	a.changing.Lock()
	defer a.changing.Unlock()
	l, err := readLedger(ctx, s.o.Shelf)
	if err != nil {
		return "", err
	}
	st, err := s.examine(ctx, l)
	if err != nil {
		return "", err
	}
	switch {
	case st.phase != "":
		return "", fmt.Errorf("a change is under way: %s (`fettle status` names whom it waits for; `fettle rotate authority --abort` takes it back)", st.phase)
	case overlap == 0:
		overlap = least + time.Hour
	case overlap < least:
		return "", fmt.Errorf("the old authority must be believed at least as long as a standing permit holds that it has signed: %s", least)
	}
	freeze, err := s.frozen(ctx)
	if err != nil {
		return "", err
	}
	if len(freeze.GetJson()) > 0 {
		return "", errors.New("the fleet is frozen: no change begins (see `fettle thaw`)")
	}
	if err := log.Record(ctx, "rotate", by+": changes the fleet's authority", map[string]string{"by": by, "what": "authority", "overlap": overlap.String()}); err != nil {
		return "", err
	}
	// What is left of the change before.
	for host := range l.without { // any order: all go
		if err := unnote(ctx, s.o.Shelf, withoutPrefix+host); err != nil {
			return "", err
		}
	}
	for _, w := range l.words[:max(0, len(l.words)-1)] {
		if err := unnote(ctx, s.o.Shelf, wordPrefix+strconv.Itoa(w.place)); err != nil {
			return "", err
		}
	}
	for id := range l.did { // any order: all go
		if last := l.last(); last == nil || !strings.HasSuffix(id, "-"+strconv.FormatInt(last.Serial, 10)) {
			if err := unnote(ctx, s.o.Shelf, didPrefix+id); err != nil {
				return "", err
			}
		}
	}
	for id := range l.holds { // any order: all go
		if err := unnote(ctx, s.o.Shelf, holdsPrefix+id); err != nil {
			return "", err
		}
	}
	if err := s.prepare(ctx, overlap, by); err != nil {
		return "", err
	}
	poke(a.wake)
	return fmt.Sprintf("a new authority goes to every server, then every host believes it besides the old one, then it issues, and after %s at least, when all have a certificate of it, the old one is believed no more (`fettle status` shows how far it is; `fettle rotate authority --abort` takes it back until then)", overlap), nil
}

// abortAuthority takes a change back.
func (s *Server) abortAuthority(ctx context.Context, t *term, log recorder, by string) (string, error) {
	a := &s.authority
	a.changing.Lock()
	defer a.changing.Unlock()
	l, err := readLedger(ctx, s.o.Shelf)
	if err != nil {
		return "", err
	}
	last := l.last()
	switch {
	case l.next != nil:
		if err := log.Record(ctx, "rotate", by+": takes the change of the fleet's authority back", map[string]string{"by": by, "what": "authority"}); err != nil {
			return "", err
		}
		err = unnote(ctx, s.o.Shelf, nextRecord)
	case last == nil || len(last.Trust) == 1:
		return "", errors.New("no change of the authority is under way that could be taken back (once the old authority is believed no more there is only the way to another new one)")
	case l.back():
		return "", errors.New("the change is being taken back already (see `fettle status`)")
	default:
		w := last.Word
		w.Goal = w.Other()
		w.Use = w.Goal
		err = s.say(ctx, t, l, w, by, "takes the change of the fleet's authority back: "+short16(w.Goal)+" issues again")
	}
	if errors.Is(err, fs.ErrExist) {
		err = errors.New("it went on at this very moment (see `fettle status`, and try again)")
	}
	if err != nil {
		return "", err
	}
	poke(a.wake)
	return "the old authority issues again; when all have a certificate of it, the new one is believed no more", nil
}

// withoutHosts has a change go on without some hosts, which must join anew.
func (s *Server) withoutHosts(ctx context.Context, log recorder, by string, hosts []string) (string, error) {
	a := &s.authority
	a.changing.Lock()
	defer a.changing.Unlock()
	l, err := readLedger(ctx, s.o.Shelf)
	if err != nil {
		return "", err
	}
	if last := l.last(); l.next == nil && (last == nil || len(last.Trust) == 1) {
		return "", errors.New("no change of the authority is under way")
	}
	for _, id := range hosts {
		if err := s.unknownHost(ctx, id); err != nil {
			return "", err
		}
	}
	if err := log.Record(ctx, "rotate", by+": changes the fleet's authority without "+strings.Join(hosts, ", "), map[string]string{"by": by, "what": "authority", "without": strings.Join(hosts, ",")}); err != nil {
		return "", err
	}
	for _, id := range hosts {
		if err := note(ctx, s.o.Shelf, withoutPrefix+id, whoRecord{Schema: 1, By: by, At: s.o.Clock.Wall().UTC()}); err != nil {
			return "", err
		}
	}
	poke(a.wake)
	return fmt.Sprintf("the change goes on without %d hosts; one that does not come back before the old authority is believed no more must join anew", len(hosts)), nil
}
