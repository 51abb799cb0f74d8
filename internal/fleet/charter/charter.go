// Package charter is how an administrator lets a new epoch begin: a short text,
// signed (golang.org/x/mod/sumdb/note) with the key of a person's certificate.
//
//	fettle epoch 1
//	fleet k5w...
//	epoch 2
//	entries 1042
//	hash 9f86d081...
//	at 2026-11-22T20:15:00Z
//	why restored from a backup of 2026-11-22T03:00:00Z
//
// An epoch is the time for which the revisions of one store grow. A store that was
// restored or moved begins again with low ones, and with a log that may be shorter
// than the one that agents have seen: without an administrator's word they obey
// neither (S7, S13). The log of the new epoch goes on from the entry that is named.
//
// # Invariants
//
//   - Open returns only what the key of an administrator of the fleet has signed, with
//     a certificate that was valid when it was signed. That the certificate has ended
//     since takes nothing back: a machine may come home late.
//   - Lines that a newer version adds behind those here are covered by the signature
//     and passed over.
package charter

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"fettle/internal/fleet/pki"
)

// first is the first line: what it is, in which version.
const first = "fettle epoch 1"

// none stands for the hash of an empty log.
const none = "none"

// maxWhy bounds the reason, in bytes.
const maxWhy = 500

// Charter is an administrator's word that an epoch begins.
type Charter struct {
	Fleet   string
	Epoch   uint64 // from 2 on: the first needs nobody's word
	Entries int64  // of the log that the epoch begins with
	Hash    string // of the last of them, in hexadecimal; "" where there is none
	At      time.Time
	Why     string // one line
}

// Signed is a charter with its signature, as it is kept and shown.
type Signed struct {
	Note        []byte `json:"note"`
	Certificate []byte `json:"certificate"` // X.509, DER, of who signed it
}

func (c Charter) text() string {
	hash := c.Hash
	if hash == "" {
		hash = none
	}
	return fmt.Sprintf("%s\nfleet %s\nepoch %d\nentries %d\nhash %s\nat %s\nwhy %s\n", first, c.Fleet, c.Epoch, c.Entries, hash, c.At.UTC().Format(time.RFC3339), c.Why)
}

// Sign signs a charter with an administrator's identity. One that Open would not take
// is an error.
func Sign(c Charter, by *pki.Identity) (Signed, error) {
	text := c.text()
	if _, err := parse(text); err != nil {
		return Signed{}, fmt.Errorf("sign the new epoch: %w", err)
	}
	if by.Name.Role != pki.RoleAdmin || by.Name.Fleet != c.Fleet {
		return Signed{}, fmt.Errorf("sign the new epoch: an administrator of fleet %s must, and %s is none", c.Fleet, by.Name)
	}
	msg, err := note.Sign(&note.Note{Text: text}, by.NoteSigner())
	if err != nil {
		return Signed{}, fmt.Errorf("sign the new epoch: %w", err)
	}
	return Signed{Note: msg, Certificate: by.Certificate()}, nil
}

// Open verifies a charter of the fleet that the reader trusts, and reads it. It takes any
// bytes.
func Open(s Signed, reader *pki.Trust) (Charter, error) {
	fail := func(err error) (Charter, error) { return Charter{}, fmt.Errorf("the signed epoch: %w", err) }
	// What it says of its time is read before it is verified, and believed after.
	claimed, _, _ := strings.Cut(string(s.Note), "\n\n")
	unverified, err := parse(claimed + "\n")
	if err != nil {
		return fail(err)
	}
	known, _, err := reader.PersonNotes(s.Certificate, pki.RoleAdmin, unverified.At)
	if err != nil {
		return fail(err)
	}
	n, err := note.Open(s.Note, note.VerifierList(known))
	if err != nil {
		return fail(err)
	}
	c, err := parse(n.Text)
	switch {
	case err != nil:
		return fail(err)
	case !c.At.Equal(unverified.At):
		return fail(errors.New("it says two times"))
	case c.Fleet != reader.Fleet:
		return fail(fmt.Errorf("it is of fleet %s, this is %s", c.Fleet, reader.Fleet))
	}
	return c, nil
}

// parse reads a charter's text.
func parse(text string) (Charter, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 8 || lines[len(lines)-1] != "" || lines[0] != first {
		return Charter{}, fmt.Errorf("it does not begin with %q and six more lines (another version made it)", first)
	}
	var c Charter
	var epoch, entries, hash, at string
	for i, field := range []struct {
		name string
		into *string
	}{{"fleet", &c.Fleet}, {"epoch", &epoch}, {"entries", &entries}, {"hash", &hash}, {"at", &at}, {"why", &c.Why}} {
		value, ok := strings.CutPrefix(lines[i+1], field.name+" ")
		if !ok || value == "" || field.name != "why" && strings.Contains(value, " ") {
			return Charter{}, fmt.Errorf("line %d is not %q and what it is", i+2, field.name)
		}
		*field.into = value
	}
	var err error
	if c.Epoch, err = strconv.ParseUint(epoch, 10, 64); err != nil || c.Epoch < 2 || strconv.FormatUint(c.Epoch, 10) != epoch {
		return Charter{}, fmt.Errorf("epoch %q is not a number from 2", epoch)
	}
	if c.Entries, err = strconv.ParseInt(entries, 10, 64); err != nil || c.Entries < 0 || strconv.FormatInt(c.Entries, 10) != entries {
		return Charter{}, fmt.Errorf("%q is not a number of entries", entries)
	}
	if hash != none {
		if raw, err := hex.DecodeString(hash); err != nil || len(raw) != 32 || strings.ToLower(hash) != hash {
			return Charter{}, fmt.Errorf("%q is not a hash", hash)
		}
		c.Hash = hash
	}
	if (c.Entries == 0) != (c.Hash == "") {
		return Charter{}, fmt.Errorf("%d entries end with hash %s", c.Entries, hash)
	}
	if c.At, err = time.Parse(time.RFC3339, at); err != nil || c.At.UTC().Format(time.RFC3339) != at {
		return Charter{}, fmt.Errorf("%q is not a time", at)
	}
	if len(c.Why) > maxWhy {
		return Charter{}, fmt.Errorf("the reason has %d bytes, at most %d are taken", len(c.Why), maxWhy)
	}
	return c, nil
}
