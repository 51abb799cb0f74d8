package pki

import (
	"fmt"
	"net"
	"strings"
)

const (
	tokenPrefix = "fettle-join:"
	idLength    = 12
	// secretLength is 160 random bits in characters: the hash that is kept needs
	// no salt and no stretching, since nobody can try them all.
	secretLength = 32
	pinLength    = 64
)

// Token lets one machine join once. Its text is
//
//	fettle-join:<host:port>:<id>.<secret>:<pin>
type Token struct {
	Address string // of a server, host:port
	ID      string // under which its hash is kept
	Secret  string
	Pin     string // of the authority, see CA.Pin
}

// String returns the text. It holds the secret: show it to the one who joins and
// write it nowhere.
func (t Token) String() string {
	return tokenPrefix + t.Address + ":" + t.ID + "." + t.Secret + ":" + t.Pin
}

// ParseToken reads what String writes.
func ParseToken(text string) (Token, error) {
	fail := func(why string) (Token, error) {
		return Token{}, fmt.Errorf("join token: %s (want %shost:port:id.secret:pin, all of it, as the server printed it)", why, tokenPrefix)
	}
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok {
		return fail("it does not begin with " + tokenPrefix)
	}
	at := strings.LastIndexByte(rest, ':')
	if at < 0 {
		return fail("it has no pin")
	}
	rest, pin := rest[:at], rest[at+1:]
	if !made(pin, pinLength, "0123456789abcdef") {
		return fail("its pin is not 64 characters 0-9 and a-f")
	}
	at = strings.LastIndexByte(rest, ':')
	if at < 0 {
		return fail("it has no address")
	}
	address, both := rest[:at], rest[at+1:]
	id, secret, _ := strings.Cut(both, ".")
	const base32 = "abcdefghijklmnopqrstuvwxyz234567"
	if !made(id, idLength, base32) || !made(secret, secretLength, base32) {
		return fail("its identity or secret is not whole")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" {
		return fail("its address is not host:port")
	}
	return Token{Address: address, ID: id, Secret: secret, Pin: pin}, nil
}

func made(s string, length int, of string) bool {
	return len(s) == length && strings.Trim(s, of) == ""
}
