package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

// How far a change of the authority is stands on the register's shelf, under this kind.
// A record is made once and taken away once, so every server reads the same, and a change
// that was broken off is gone on with by the next leader. No key is among them:
//
//	next                 an authority is prepared: its certificate
//	holds-SERVER-PIN16   that server has the key
//	word-N               the authority's words, which go to every host
//	did-SERVER-SERIAL    that server does all that the word says
//	without-HOST         an administrator goes on without that host
//	restart              a server starts its part of the store anew: one at a time
const (
	shelfAuthority = "authority"
	nextRecord     = "next"
	restartRecord  = "restart"
	wordPrefix     = "word-"
	holdsPrefix    = "holds-"
	didPrefix      = "did-"
	withoutPrefix  = "without-"
)

// nextAuthority is one that is prepared.
type nextAuthority struct {
	Schema    int           `json:"schema"`
	Authority []byte        `json:"authority"` // X.509, DER
	Pin       string        `json:"pin"`
	Overlap   time.Duration `json:"overlap_ns"`
	At        time.Time     `json:"at"`
	By        string        `json:"by"`
}

// signedWord is a word on the shelf.
type signedWord struct {
	place int // N
	pki.Word
	pki.SignedWord
}

// wordRecord is how it is kept.
type wordRecord struct {
	Schema int `json:"schema"`
	pki.SignedWord
}

// whoRecord is any of the others.
type whoRecord struct {
	Schema    int       `json:"schema"`
	Server    string    `json:"server,omitempty"`
	By        string    `json:"by,omitempty"`
	At        time.Time `json:"at"`
	Destroyed []string  `json:"destroyed,omitempty"` // pins of the authorities whose keys are gone from the server
}

// ledger is how far a change of the authority is.
type ledger struct {
	next    *nextAuthority
	words   []signedWord         // oldest first
	holds   map[string]bool      // SERVER-PIN16
	did     map[string]whoRecord // SERVER-SERIAL
	without map[string]whoRecord // by host's identity
	restart *whoRecord
}

func readLedger(ctx context.Context, shelf pki.Shelf) (ledger, error) {
	l := ledger{holds: map[string]bool{}, did: map[string]whoRecord{}, without: map[string]whoRecord{}}
	records, err := shelf.List(ctx, shelfAuthority)
	if err != nil {
		return l, fmt.Errorf("how far a change of the authority is: %w", err)
	}
	for id, data := range records { // any order: words are sorted below
		if err := l.read(id, data); err != nil {
			return l, fmt.Errorf("how far a change of the authority is: record %s: %w (restore the store from a backup)", id, err)
		}
	}
	slices.SortFunc(l.words, func(a, b signedWord) int { return cmp.Compare(a.place, b.place) })
	return l, nil
}

func (l *ledger) read(id string, data []byte) error {
	if n, ok := serialOf(id, wordPrefix); ok {
		var r wordRecord
		if err := json.Unmarshal(data, &r); err != nil {
			return err
		}
		w, err := pki.ParseWord(r.SignedWord)
		l.words = append(l.words, signedWord{n, w, r.SignedWord})
		return err
	}
	if id == nextRecord {
		l.next = &nextAuthority{}
		return json.Unmarshal(data, l.next)
	}
	var r whoRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return err
	}
	switch {
	case id == restartRecord:
		l.restart = &r
	case strings.HasPrefix(id, holdsPrefix):
		l.holds[strings.TrimPrefix(id, holdsPrefix)] = true
	case strings.HasPrefix(id, didPrefix):
		l.did[strings.TrimPrefix(id, didPrefix)] = r
	case strings.HasPrefix(id, withoutPrefix):
		l.without[strings.TrimPrefix(id, withoutPrefix)] = r
	}
	return nil // what a newer version keeps besides is passed over
}

// last is the word that holds; nil: nobody has changed the authority.
func (l ledger) last() *signedWord {
	if len(l.words) == 0 {
		return nil
	}
	return &l.words[len(l.words)-1]
}

// after are the words that one who keeps that of a serial has not heard.
func (l ledger) after(serial int64) []pki.SignedWord {
	var list []pki.SignedWord
	for _, w := range l.words {
		if w.Serial > serial {
			list = append(list, w.SignedWord)
		}
	}
	return list
}

// back reports whether the change is being taken back.
func (l ledger) back() bool {
	last := l.last()
	return last != nil && len(last.Trust) > 1 && slices.ContainsFunc(l.words, func(w signedWord) bool {
		return w.Goal != last.Goal && len(w.Trust) > 1 && slices.Contains(w.Trust, last.Goal) && slices.Contains(w.Trust, last.Other())
	})
}

// issuedUntil is when an authority ceased to issue; zero: it never did, or does still.
func (l ledger) issuedUntil(pin string) time.Time {
	var end time.Time
	for i, w := range l.words[:max(0, len(l.words)-1)] {
		if w.Use == pin {
			end = l.words[i+1].At
		}
	}
	return end
}

func holdsID(server, pin string) string { return server + "-" + pin[:16] }

func didID(server string, serial int64) string { return server + "-" + strconv.FormatInt(serial, 10) }

// note puts a record on the shelf. That it is there already is no error.
func note(ctx context.Context, shelf pki.Shelf, id string, record any) error {
	data, err := json.Marshal(record)
	if err == nil {
		err = shelf.Create(ctx, shelfAuthority, id, data)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("note how far a change of the authority is: %w", err)
	}
	return nil
}

// unnote takes a record away, if it is there.
func unnote(ctx context.Context, shelf pki.Shelf, id string) error {
	if err := shelf.Remove(ctx, shelfAuthority, id); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("note how far a change of the authority is: %w", err)
	}
	return nil
}

// publish puts a word behind the last one. The error wraps fs.ErrExist where another
// server was quicker: then that one's holds.
func (l ledger) publish(ctx context.Context, shelf pki.Shelf, s pki.SignedWord) error {
	place := 1
	if last := l.last(); last != nil {
		place = last.place + 1
	}
	data, err := json.Marshal(wordRecord{Schema: 1, SignedWord: s})
	if err == nil {
		err = shelf.Create(ctx, shelfAuthority, wordPrefix+strconv.Itoa(place), data)
	}
	if err != nil {
		return fmt.Errorf("keep the authority's word: %w", err)
	}
	return nil
}

// wireWords are words as they are sent.
func wireWords(words []pki.SignedWord) []*wire.AuthorityWord {
	var list []*wire.AuthorityWord
	for _, w := range words {
		list = append(list, &wire.AuthorityWord{Note: w.Note, Authorities: w.Authorities})
	}
	return list
}
