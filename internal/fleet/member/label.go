package member

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// LabelMax is the most that a label may have when it is written, in bytes. It is
// memberlist's own limit (MetaMaxSize): the label travels in every alive message, in
// one packet with others.
const LabelMax = 512

// fieldMax is the most that one field of a label may have, in bytes.
const fieldMax = 128

// Label is what a member says of itself: for people, for counting witnesses by
// failure domain, and to tell one life of an agent from the next. Whoever has the
// ring's key can say anything here, so nothing is permitted on the strength of it.
type Label struct {
	Host        string // identity, as in fettle.Subject's root; the member's name in the ring
	Zone        string // "" where unknown
	Rack        string
	Incarnation string // of the agent's process; a new one at every start
	BootID      string // of the kernel
}

// Domain is Place.Domain of the member.
func (l Label) Domain() string { return Place{Host: l.Host, Zone: l.Zone, Rack: l.Rack}.Domain() }

// wireLabel is the label as it travels, with what only nodes tell each other. Fields
// that a newer version adds are passed over.
type wireLabel struct {
	Version     int    `json:"v"`
	Host        string `json:"h"`
	Zone        string `json:"z,omitempty"`
	Rack        string `json:"r,omitempty"`
	Incarnation string `json:"i,omitempty"`
	BootID      string `json:"b,omitempty"`
	Beat        uint64 `json:"n,omitempty"` // counts its measurements of the gossip's spread
	Leaving     bool   `json:"l,omitempty"` // it is about to go, on purpose
}

func (l Label) wire() wireLabel {
	return wireLabel{Version: 1, Host: l.Host, Zone: l.Zone, Rack: l.Rack, Incarnation: l.Incarnation, BootID: l.BootID}
}

func (w wireLabel) label() Label {
	return Label{Host: w.Host, Zone: w.Zone, Rack: w.Rack, Incarnation: w.Incarnation, BootID: w.BootID}
}

// write encodes it, or says what is wrong with it.
func (w wireLabel) write() ([]byte, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("write the label of %s: %w", w.Host, err)
	}
	if len(data) > LabelMax {
		return nil, fmt.Errorf("the label of %s has %d bytes, more than %d: shorten the names of its zone and rack", w.Host, len(data), LabelMax)
	}
	return data, nil
}

// parseLabel reads what a member says of itself. It takes any bytes.
func parseLabel(data []byte) (wireLabel, error) {
	if len(data) > LabelMax {
		return wireLabel{}, fmt.Errorf("label of %d bytes, more than %d", len(data), LabelMax)
	}
	var w wireLabel
	if err := json.Unmarshal(data, &w); err != nil {
		return wireLabel{}, fmt.Errorf("label: %w", err)
	}
	if w.Version < 1 {
		return wireLabel{}, errors.New("label without a version: not one of Fettle's")
	}
	return w, w.check()
}

func (w wireLabel) check() error {
	if w.Host == "" {
		return errors.New("label without a host's identity")
	}
	if strings.Contains(w.Host, "/") {
		// memberlist reads NAME/ADDRESS in an address to join.
		return fmt.Errorf("label: host %q has a slash; identities are plain words", w.Host)
	}
	for _, f := range []struct{ name, value string }{
		{"host", w.Host}, {"zone", w.Zone}, {"rack", w.Rack}, {"incarnation", w.Incarnation}, {"boot", w.BootID},
	} {
		if len(f.value) > fieldMax || !utf8.ValidString(f.value) || strings.ContainsFunc(f.value, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return fmt.Errorf("label: %s %.*q is longer than %d bytes or not printable", f.name, fieldMax, f.value, fieldMax)
		}
	}
	return nil
}
