package pki

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// TokenLife is how long a token lives unless somebody says otherwise: long
// enough to walk to the other terminal.
const TokenLife = 15 * time.Minute

// ErrToken is wrapped when a token is not accepted.
var ErrToken = errors.New("join token is not accepted")

// invitation is what is kept of a token.
type invitation struct {
	Schema  int       `json:"schema"`
	Role    Role      `json:"role"` // as what its bearer may join
	Hash    string    `json:"hash"` // SHA-256 of the secret, hexadecimal
	Expires time.Time `json:"expires"`
}

// Invite makes a token with which one machine may join at a server's address, as
// what the role says: RoleAgent or RoleServer. A life of 0 is TokenLife.
func (r *Register) Invite(ctx context.Context, role Role, address string, now time.Time, life time.Duration) (Token, error) {
	if life == 0 {
		life = TokenLife
	}
	t := Token{Address: address, ID: mint(idLength), Secret: mint(secretLength), Pin: r.ca.Pin()}
	if _, err := ParseToken(t.String()); err != nil {
		return Token{}, fmt.Errorf("make a join token for address %q: %w", address, err)
	}
	r.sweep(ctx, now)
	data, err := json.Marshal(invitation{Schema: 1, Role: role, Hash: hashOf(t.Secret), Expires: now.Add(life)})
	if err == nil {
		err = r.shelf.Create(ctx, shelfTokens, t.ID, data)
	}
	if err != nil {
		return Token{}, fmt.Errorf("make a join token: %w", err)
	}
	return t, nil
}

// Redeem uses a token of a role up. It is gone before Redeem returns, durably,
// whatever becomes of the answer: a token that may have worked does not work again.
// The error wraps ErrToken.
func (r *Register) Redeem(ctx context.Context, role Role, id, secret string, now time.Time) error {
	const again = "(make a new one on the server with `fettle token`)"
	if !made(id, idLength, "abcdefghijklmnopqrstuvwxyz234567") {
		return fmt.Errorf("%w: it is not whole %s", ErrToken, again)
	}
	data, err := r.shelf.Read(ctx, shelfTokens, id)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: it is unknown here, or was used already %s", ErrToken, again)
	}
	var in invitation
	if err == nil {
		err = json.Unmarshal(data, &in)
	}
	if err != nil {
		return fmt.Errorf("%w: what is kept of it cannot be read: %w %s", ErrToken, err, again)
	}
	if subtle.ConstantTimeCompare([]byte(hashOf(secret)), []byte(in.Hash)) != 1 {
		return fmt.Errorf("%w: its secret is wrong (copy all of it)", ErrToken)
	}
	if in.Role != role {
		return fmt.Errorf("%w: it lets in one %s, and this is a %s %s", ErrToken, in.Role, role, again)
	}
	if !now.Before(in.Expires) {
		return fmt.Errorf("%w: it expired at %s %s", ErrToken, in.Expires.UTC().Format(time.RFC3339), again)
	}
	if err := r.shelf.Remove(ctx, shelfTokens, id); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: it was used already %s", ErrToken, again)
		}
		return fmt.Errorf("%w: it could not be marked as used: %w", ErrToken, err)
	}
	return nil
}

// sweep forgets tokens that expired a day ago; until then Redeem can say so.
func (r *Register) sweep(ctx context.Context, now time.Time) {
	records, err := r.shelf.List(ctx, shelfTokens)
	if err != nil {
		return // the next invitation sweeps again
	}
	for id, data := range records {
		var in invitation
		if json.Unmarshal(data, &in) == nil && now.After(in.Expires.Add(24*time.Hour)) {
			_ = r.shelf.Remove(ctx, shelfTokens, id) // another sweep may have been quicker
		}
	}
}

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
