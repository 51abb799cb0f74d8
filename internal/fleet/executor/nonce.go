package executor

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxNonceAge is how old a nonce may be when an order with it comes. A session brings
// a new one with every ping, each two seconds; a server that has had none for this
// long has no session.
const maxNonceAge = time.Minute

// nonces makes nonces and knows its own again: a time of this process's clock, and a
// mark that only this process can make. Nothing of them is kept.
type nonces struct{ secret []byte }

func newNonces() nonces {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails (crypto/rand)
	return nonces{secret}
}

func (n nonces) mark(at string) string {
	m := hmac.New(sha256.New, n.secret)
	_, _ = m.Write([]byte(at)) // never fails (hash.Hash)
	return hex.EncodeToString(m.Sum(nil)[:16])
}

func (n nonces) make(now time.Time) string {
	at := strconv.FormatInt(now.UnixNano(), 36)
	return at + "." + n.mark(at)
}

// made says when a nonce was made.
func (n nonces) made(nonce string, now time.Time) (time.Time, error) {
	at, mark, ok := strings.Cut(nonce, ".")
	if !ok || !hmac.Equal([]byte(n.mark(at)), []byte(mark)) {
		return time.Time{}, errors.New("it is for another host, or for this executor before it started anew")
	}
	ns, err := strconv.ParseInt(at, 36, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("its nonce: %w", err)
	}
	made := time.Unix(0, ns).UTC()
	if age := now.Sub(made); age > maxNonceAge {
		return time.Time{}, fmt.Errorf("its nonce is %s old", age.Round(time.Second))
	}
	return made, nil
}
