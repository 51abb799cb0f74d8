package loghead

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// first is the first line: what it is, in which version.
const first = "fettle log head 1"

// none stands for the hash of what is not there.
const none = "none"

// Statement is what a server says of its log.
type Statement struct {
	Fleet   string
	Epoch   uint64
	Entries int64
	Hash    string // of the last entry, in hexadecimal; "" where there is none
	Place   *Place // nil: it was not asked about one
}

// Place is what stands at a place in the log.
type Place struct {
	Seq  int64
	Hash string // "": the log ends before it; also of place 0, the beginning
}

// text is the statement as it is signed.
func (s Statement) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nfleet %s\nepoch %d\nentries %d\nhash %s\n", first, s.Fleet, s.Epoch, s.Entries, orNone(s.Hash))
	if s.Place != nil {
		fmt.Fprintf(&b, "at %d hash %s\n", s.Place.Seq, orNone(s.Place.Hash))
	}
	return b.String()
}

func orNone(hash string) string {
	if hash == "" {
		return none
	}
	return hash
}

// Sign writes and signs a statement. A statement that Open would not take is an
// error.
func Sign(s Statement, signer note.Signer) ([]byte, error) {
	text := s.text()
	if _, err := parse(text); err != nil {
		return nil, fmt.Errorf("sign the head of the log: %w", err)
	}
	msg, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		return nil, fmt.Errorf("sign the head of the log: %w", err)
	}
	return msg, nil
}

// Open verifies a signed statement and reads it. It takes any bytes.
func Open(msg []byte, known note.Verifier) (Statement, error) {
	n, err := note.Open(msg, note.VerifierList(known))
	if err != nil {
		return Statement{}, fmt.Errorf("the signed head of the log: %w", err)
	}
	s, err := parse(n.Text)
	if err != nil {
		return Statement{}, fmt.Errorf("the signed head of the log: %w", err)
	}
	return s, nil
}

// parse reads a statement's text.
func parse(text string) (Statement, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 6 || lines[len(lines)-1] != "" || lines[0] != first {
		return Statement{}, fmt.Errorf("it does not begin with %q and four more lines (another version made it)", first)
	}
	var s Statement
	var epoch, entries, hash string
	for i, field := range []struct {
		name string
		into *string
	}{{"fleet", &s.Fleet}, {"epoch", &epoch}, {"entries", &entries}, {"hash", &hash}} {
		value, ok := strings.CutPrefix(lines[i+1], field.name+" ")
		if !ok || value == "" || strings.Contains(value, " ") {
			return Statement{}, fmt.Errorf("line %d is not %q and one word", i+2, field.name)
		}
		*field.into = value
	}
	var err error
	if s.Epoch, err = strconv.ParseUint(epoch, 10, 64); err != nil || s.Epoch == 0 || strconv.FormatUint(s.Epoch, 10) != epoch {
		return Statement{}, fmt.Errorf("epoch %q is not a number from 1", epoch)
	}
	if s.Entries, err = count(entries); err != nil {
		return Statement{}, err
	}
	if s.Hash, err = hashOf(hash); err != nil {
		return Statement{}, err
	}
	if (s.Entries == 0) != (s.Hash == "") {
		return Statement{}, fmt.Errorf("%d entries end with hash %s", s.Entries, hash)
	}
	if !strings.HasPrefix(lines[5], "at ") {
		return s, nil
	}
	words := strings.Split(lines[5], " ")
	if len(words) != 4 || words[2] != "hash" {
		return Statement{}, errors.New("line 6 is not \"at NUMBER hash HASH\"")
	}
	s.Place = &Place{}
	if s.Place.Seq, err = count(words[1]); err != nil {
		return Statement{}, err
	}
	if s.Place.Hash, err = hashOf(words[3]); err != nil {
		return Statement{}, err
	}
	if there := s.Place.Seq > 0 && s.Place.Seq <= s.Entries; there != (s.Place.Hash != "") {
		return Statement{}, fmt.Errorf("place %d of %d has hash %s", s.Place.Seq, s.Entries, words[3])
	}
	return s, nil
}

func count(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("%q is not a number of entries", text)
	}
	return n, nil
}

// hashOf reads a SHA-256 in hexadecimal, or none.
func hashOf(text string) (string, error) {
	if text == none {
		return "", nil
	}
	if raw, err := hex.DecodeString(text); err != nil || len(raw) != 32 || strings.ToLower(text) != text {
		return "", fmt.Errorf("%q is not a hash", text)
	}
	return text, nil
}
