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
	Pin     string    `json:"pin,omitempty"` // of the authority that the token names; "": of an older version, the only one
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
	data, err := json.Marshal(invitation{Schema: 1, Role: role, Hash: hashOf(t.Secret), Expires: now.Add(life), Pin: t.Pin})
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
// It returns the pin of the authority that the token names; "": of the only one there
// was. The error wraps ErrToken.
func (r *Register) Redeem(ctx context.Context, role Role, id, secret string, now time.Time) (pin string, err error) {
	const again = "(make a new one on the server with `fettle token`)"
	if !made(id, idLength, "abcdefghijklmnopqrstuvwxyz234567") {
		return "", fmt.Errorf("%w: it is not whole %s", ErrToken, again)
	}
	data, err := r.shelf.Read(ctx, shelfTokens, id)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: it is unknown here, or was used already %s", ErrToken, again)
	}
	var in invitation
	if err == nil {
		err = json.Unmarshal(data, &in)
	}
	if err != nil {
		return "", fmt.Errorf("%w: what is kept of it cannot be read: %w %s", ErrToken, err, again)
	}
	if subtle.ConstantTimeCompare([]byte(hashOf(secret)), []byte(in.Hash)) != 1 {
		return "", fmt.Errorf("%w: its secret is wrong (copy all of it)", ErrToken)
	}
	if in.Role != role {
		return "", fmt.Errorf("%w: it lets in one %s, and this is a %s %s", ErrToken, in.Role, role, again)
	}
	if !now.Before(in.Expires) {
		return "", fmt.Errorf("%w: it expired at %s %s", ErrToken, in.Expires.UTC().Format(time.RFC3339), again)
	}
	if err := r.shelf.Remove(ctx, shelfTokens, id); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%w: it was used already %s", ErrToken, again)
		}
		return "", fmt.Errorf("%w: it could not be marked as used: %w", ErrToken, err)
	}
	return in.Pin, nil
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

// Outstanding is how many tokens are out that may still be used, and name this authority,
// and when the last of them ends. "": whichever they name.
func (r *Register) Outstanding(ctx context.Context, pin string, now time.Time) (n int, last time.Time, err error) {
	records, err := r.shelf.List(ctx, shelfTokens)
	if err != nil {
		return 0, last, fmt.Errorf("the join tokens that are out: %w", err)
	}
	for _, data := range records { // any order: they are counted
		var in invitation
		if json.Unmarshal(data, &in) != nil || !now.Before(in.Expires) || pin != "" && in.Pin != pin {
			continue
		}
		n++
		if in.Expires.After(last) {
			last = in.Expires
		}
	}
	return n, last, nil
}

// Revoke ends the tokens that are out: at the latest within some time, 0 at once. It
// returns how many it ended or shortened.
func (r *Register) Revoke(ctx context.Context, now time.Time, within time.Duration) (n int, err error) {
	records, err := r.shelf.List(ctx, shelfTokens)
	if err != nil {
		return 0, fmt.Errorf("end the join tokens that are out: %w", err)
	}
	end := now.Add(within)
	for id, data := range records { // any order: each is its own
		var in invitation
		if json.Unmarshal(data, &in) == nil && !in.Expires.After(end) {
			continue // it ends by itself, in time
		}
		// One that is used at this moment is gone; one whose shorter record cannot be kept
		// has ended.
		err := r.shelf.Remove(ctx, shelfTokens, id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if in.Expires = end; err == nil && within > 0 && in.Schema != 0 {
			if data, err = json.Marshal(in); err == nil {
				err = r.shelf.Create(ctx, shelfTokens, id, data)
			}
		}
		if err != nil {
			return n, fmt.Errorf("end the join tokens that are out: %w", err)
		}
		n++
	}
	return n, nil
}

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
