package warrant

import (
	"encoding/hex"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Signed is a text with its signature, as it is kept and sent.
type Signed struct {
	Note        []byte `json:"note"`
	Certificate []byte `json:"certificate"` // X.509, DER, of who signed it
}

// field is one line of a text: a name, and a word.
type field struct {
	name string
	into *string
}

// read takes a text apart into its fields.
func read(text, first string, fields ...field) error {
	lines := strings.Split(text, "\n")
	if len(lines) < len(fields)+2 || lines[len(lines)-1] != "" || lines[0] != first {
		return fmt.Errorf("it does not begin with %q and %d more lines (another version made it)", first, len(fields))
	}
	for i, f := range fields {
		value, ok := strings.CutPrefix(lines[i+1], f.name+" ")
		if !ok || value == "" || strings.ContainsAny(value, " \t\r") {
			return fmt.Errorf("line %d is not %q and one word", i+2, f.name)
		}
		*f.into = value
	}
	return nil
}

// claimed is the text of a note that nobody has verified yet.
func claimed(msg []byte) string {
	text, _, _ := strings.Cut(string(msg), "\n\n")
	return text + "\n"
}

// opened verifies a note and returns its text.
func opened(msg []byte, known note.Verifier) (string, error) {
	n, err := note.Open(msg, note.VerifierList(known))
	if err != nil {
		return "", err
	}
	return n.Text, nil
}

// checkHash refuses what is no SHA-256 in hexadecimal.
func checkHash(text string) error {
	if raw, err := hex.DecodeString(text); err != nil || len(raw) != 32 || strings.ToLower(text) != text {
		return fmt.Errorf("%.80q is not a hash", text)
	}
	return nil
}
