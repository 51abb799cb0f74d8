package warrant

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"

	"fettle/internal/fleet/pki"
)

const orderFirst = "fettle order 1"

// Say is what is to be done with the body of an order.
type Say string

// What is said. The body of Preview is a fettle.Step, that of the others a
// fettle.Dispatch.
const (
	Do      Say = "do"
	Recover Say = "recover"
	Preview Say = "preview"
)

// Order is a server's word to the executor of one host.
type Order struct {
	Fleet  string
	Say    Say
	Nonce  string        // the executor's own, so that it is for nobody else, and not from long ago
	Within time.Duration // of the making of the nonce, on the executor's clock; later it is not begun
	Body   string        // SHA-256 of the body's bytes, in hexadecimal
}

// HashOf is a body's hash, as an order has it.
func HashOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

func (o Order) text() string {
	return fmt.Sprintf("%s\nfleet %s\nsay %s\nnonce %s\nwithin %d\nbody %s\n", orderFirst, o.Fleet, o.Say, o.Nonce, int64(o.Within), o.Body)
}

// SignOrder writes and signs an order with a server's key. One that OpenOrder would
// not take is an error.
func SignOrder(o Order, by *pki.Identity) (Signed, error) {
	text := o.text()
	if _, err := parseOrder(text); err != nil {
		return Signed{}, fmt.Errorf("sign an order: %w", err)
	}
	msg, err := note.Sign(&note.Note{Text: text}, by.NoteSigner())
	if err != nil {
		return Signed{}, fmt.Errorf("sign an order: %w", err)
	}
	return Signed{Note: msg, Certificate: by.Certificate()}, nil
}

// OpenOrder verifies an order with what Trust.ServerNotes returned for its
// certificate, and reads it.
func OpenOrder(msg []byte, known note.Verifier) (Order, error) {
	text, err := opened(msg, known)
	if err != nil {
		return Order{}, fmt.Errorf("the signed order: %w", err)
	}
	o, err := parseOrder(text)
	if err != nil {
		return Order{}, fmt.Errorf("the signed order: %w", err)
	}
	return o, nil
}

func parseOrder(text string) (Order, error) {
	var o Order
	var say, within string
	if err := read(text, orderFirst, field{"fleet", &o.Fleet}, field{"say", &say}, field{"nonce", &o.Nonce}, field{"within", &within}, field{"body", &o.Body}); err != nil {
		return Order{}, err
	}
	switch o.Say = Say(say); o.Say {
	case Do, Recover, Preview:
	default:
		return Order{}, fmt.Errorf("it says %.40q, which is not known here (upgrade the agent)", say)
	}
	var err error
	if o.Within, err = parseWithin(within); err != nil {
		return Order{}, err
	}
	return o, checkHash(o.Body)
}
