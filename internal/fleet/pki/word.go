package pki

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// wordFirst is the first line of a word: what it is, in which version.
const wordFirst = "fettle authorities 1"

// maxBelieved is how many authorities may be believed at once: the old and the new.
const maxBelieved = 2

// maxOverlap bounds how long an authority is kept beside the new one: ten years.
const maxOverlap = 10 * 365 * 24 * time.Hour

// Word is the authority's own word of whom the fleet believes from now on. It says all
// of it: what an earlier one said besides holds no more.
//
//	fettle authorities 1
//	fleet k5w…
//	serial 1795399200
//	trust PIN,PIN
//	use PIN
//	goal PIN
//	overlap 90000
//	at 2026-11-23T02:00:00Z
type Word struct {
	Fleet   string
	Serial  int64         // of two words the higher one holds
	Trust   []string      // pins of the authorities to be believed: one, or two
	Use     string        // pin of the one that issues certificates
	Goal    string        // pin of the one that is to be left at the end
	Overlap time.Duration // how long one that has issued is kept beside its successor; whole seconds
	At      time.Time     // of the server's wall clock
}

// SignedWord is a word with its signatures and the certificates of the authorities that
// it names, as it is kept and sent. It holds no secret.
type SignedWord struct {
	Note        []byte   `json:"note"`
	Authorities [][]byte `json:"authorities"` // X.509, DER
}

func (w Word) text() string {
	return fmt.Sprintf("%s\nfleet %s\nserial %d\ntrust %s\nuse %s\ngoal %s\noverlap %d\nat %s\n", wordFirst, w.Fleet, w.Serial,
		strings.Join(w.Trust, ","), w.Use, w.Goal, int64(w.Overlap/time.Second), w.At.UTC().Format(time.RFC3339))
}

// Other is the authority that is believed besides the one to be left; "": there is none.
func (w Word) Other() string {
	for _, pin := range w.Trust {
		if pin != w.Goal {
			return pin
		}
	}
	return ""
}

// ParseWord reads a word that nobody has verified.
func ParseWord(s SignedWord) (Word, error) {
	text, _, _ := strings.Cut(string(s.Note), "\n\n")
	return parseWord(text + "\n")
}

func parseWord(text string) (Word, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 9 || lines[len(lines)-1] != "" || lines[0] != wordFirst {
		return Word{}, fmt.Errorf("it does not begin with %q and seven more lines (another version made it)", wordFirst)
	}
	var w Word
	var serial, trust, overlap, at string
	for i, f := range []struct {
		name string
		into *string
	}{{"fleet", &w.Fleet}, {"serial", &serial}, {"trust", &trust}, {"use", &w.Use}, {"goal", &w.Goal}, {"overlap", &overlap}, {"at", &at}} {
		value, ok := strings.CutPrefix(lines[i+1], f.name+" ")
		if !ok || value == "" || strings.ContainsAny(value, " \t\r") {
			return Word{}, fmt.Errorf("line %d is not %q and one word", i+2, f.name)
		}
		*f.into = value
	}
	number := func(text string) (int64, error) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 || strconv.FormatInt(n, 10) != text {
			return 0, fmt.Errorf("%.40q is not a number", text)
		}
		return n, nil
	}
	var err error
	if w.Serial, err = number(serial); err != nil || w.Serial == 0 {
		return Word{}, fmt.Errorf("serial %.40q is not a number from 1", serial)
	}
	seconds, err := number(overlap)
	if err != nil || seconds > int64(maxOverlap/time.Second) {
		return Word{}, fmt.Errorf("overlap %.40q is not a number of seconds", overlap)
	}
	w.Overlap = time.Duration(seconds) * time.Second
	if w.At, err = time.Parse(time.RFC3339, at); err != nil || w.At.UTC().Format(time.RFC3339) != at {
		return Word{}, fmt.Errorf("%.40q is not a time", at)
	}
	w.Trust = strings.Split(trust, ",")
	if len(w.Trust) > maxBelieved || len(w.Trust) == 2 && w.Trust[0] == w.Trust[1] {
		return Word{}, fmt.Errorf("%d authorities are believed at once, each once", maxBelieved)
	}
	for _, pin := range append([]string{w.Use, w.Goal}, w.Trust...) {
		if !made(pin, pinLength, "0123456789abcdef") {
			return Word{}, fmt.Errorf("%.80q is no pin", pin)
		}
		if !slices.Contains(w.Trust, pin) {
			return Word{}, fmt.Errorf("authority %.16s is to be used, and is not to be believed", pin)
		}
	}
	return w, nil
}

// authorityNoteKey is what a note says of an authority that signed it.
func authorityNoteKey(cert *x509.Certificate, fleet string) noteKey {
	return noteKeyOf(cert, Name{Fleet: fleet, Role: "authority", ID: pinOf(cert)[:20]})
}

// named checks that certificates are those of the authorities that a word names. Each
// must be signed by its own key: only who has that can have made it.
func (w Word) named(ders [][]byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for _, der := range ders {
		c, err := authorityOf(der, w.Fleet)
		if err != nil {
			return nil, err
		}
		if err := c.CheckSignatureFrom(c); err != nil {
			return nil, fmt.Errorf("authority %.16s is not signed by its own key", pinOf(c))
		}
		certs = append(certs, c)
	}
	if len(certs) != len(w.Trust) {
		return nil, fmt.Errorf("%d authorities are named, and the certificates of %d came", len(w.Trust), len(certs))
	}
	out := make([]*x509.Certificate, 0, len(certs))
	for _, pin := range w.Trust {
		i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return pinOf(c) == pin })
		if i < 0 {
			return nil, fmt.Errorf("the certificate of authority %.16s did not come", pin)
		}
		out = append(out, certs[i])
	}
	return out, nil
}

// After is whom to believe after some words, of which those that are not newer than the
// last one that was taken are passed over. A word is taken if one of the authorities that
// it leaves, and that is believed already, has signed it. With an error the words before
// the one that is refused were taken.
func (t *Trust) After(words []SignedWord) (*Trust, error) {
	words = slices.Clone(words)
	serial := func(s SignedWord) int64 {
		w, err := ParseWord(s)
		if err != nil {
			return 0
		}
		return w.Serial
	}
	slices.SortStableFunc(words, func(a, b SignedWord) int { return int(serial(a) - serial(b)) })
	var err error
	for _, s := range words {
		var next *Trust
		if next, err = t.take(s); err != nil {
			return t, fmt.Errorf("the authority's word: %w", err)
		}
		t = next
	}
	return t, nil
}

func (t *Trust) take(s SignedWord) (*Trust, error) {
	claimed, err := ParseWord(s)
	switch {
	case err != nil:
		return t, err
	case claimed.Fleet != t.Fleet:
		return t, fmt.Errorf("%w: it is of fleet %.40s, this is %s", ErrStranger, claimed.Fleet, t.Fleet)
	case claimed.Serial <= t.serial: // taken, or overtaken
		return t, nil
	}
	var known []note.Verifier
	for _, c := range t.authorities {
		key, ok := c.PublicKey.(*ecdsa.PublicKey)
		if ok && slices.Contains(claimed.Trust, pinOf(c)) { // who goes says nothing of who stays
			known = append(known, &noteVerifier{authorityNoteKey(c, t.Fleet), key})
		}
	}
	n, err := note.Open(s.Note, note.VerifierList(known...))
	if err != nil {
		return t, fmt.Errorf("%w: no authority that is believed here, and stays, has signed it: %w", ErrStranger, err)
	}
	w, err := parseWord(n.Text)
	if err == nil && w.Serial != claimed.Serial {
		err = errors.New("it says two things")
	}
	if err != nil {
		return t, err
	}
	certs, err := w.named(s.Authorities)
	if err != nil {
		return t, err
	}
	return newTrust(t.Fleet, w.Serial, w.Use, certs), nil
}
