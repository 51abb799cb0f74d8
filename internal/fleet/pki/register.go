package pki

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// The kinds of records on a register's shelf.
const (
	shelfHosts   = "hosts"
	shelfServers = "servers"
	shelfTokens  = "tokens"
)

// Register is who is in a fleet, and who may still join: the hosts and servers that
// were let in, and the tokens that are out. Every server of the fleet reads the same one.
// Its methods may be called concurrently.
type Register struct {
	ca    *CA
	shelf Shelf
	roll  roll
	under string // pin of the authority that issues; "": the one that does
}

// Under is the register for one who joins with a token that names this authority: its
// certificate is issued by that one. "": by the one that issues.
func (r *Register) Under(pin string) *Register {
	return &Register{ca: r.ca, shelf: r.shelf, under: pin}
}

// NewRegister returns the register that is kept on a shelf. An empty shelf is an
// empty register.
func NewRegister(ca *CA, shelf Shelf) *Register { return &Register{ca: ca, shelf: shelf} }

// Host is a machine that has joined, as an agent's or as a server.
type Host struct {
	Schema int       `json:"schema"`
	ID     string    `json:"id"`    // the host's identity, minted when it joined
	Label  string    `json:"label"` // its host name then
	Joined time.Time `json:"joined"`
}

// Admit mints the identity of a machine that joins, keeps it in the list of
// hosts and signs its certificate (DER).
func (r *Register) Admit(ctx context.Context, csr []byte, label string, now time.Time) (Host, []byte, error) {
	return r.admit(ctx, shelfHosts, Name{Fleet: r.ca.fleet, Role: RoleAgent, ID: MintID()}, csr, label, now, AgentLife)
}

// AdmitServer does the same for a further server of the fleet.
func (r *Register) AdmitServer(ctx context.Context, csr []byte, label string, now time.Time) (Host, []byte, error) {
	return r.admit(ctx, shelfServers, Name{Fleet: r.ca.fleet, Role: RoleServer, ID: MintID()}, csr, label, now, ServerLife)
}

func (r *Register) admit(ctx context.Context, kind string, name Name, csr []byte, label string, now time.Time, life time.Duration) (Host, []byte, error) {
	h := Host{Schema: 1, ID: name.ID, Label: label, Joined: now}
	by, err := r.ca.authority(r.under)
	if err != nil {
		return Host{}, nil, fmt.Errorf("admit %s %s: %w (make a new token)", name.Role, label, err)
	}
	cert, err := r.ca.signAs(by, csr, name, now, life)
	if err != nil {
		return Host{}, nil, err
	}
	if err := r.keep(ctx, kind, h); err != nil {
		return Host{}, nil, fmt.Errorf("admit %s %s: %w", name.Role, label, err)
	}
	return h, cert, nil
}

func (r *Register) keep(ctx context.Context, kind string, h Host) error {
	data, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return r.shelf.Create(ctx, kind, h.ID, data)
}

// Found enters a fleet's first server, which holds the authority and needs nobody
// to let it in. Where there are servers already it does nothing: one that was sent
// away does not come back by itself.
func (r *Register) Found(ctx context.Context, id, label string, now time.Time) error {
	have, err := r.Servers(ctx)
	if err != nil || len(have) > 0 {
		return err
	}
	err = r.keep(ctx, shelfServers, Host{Schema: 1, ID: id, Label: label, Joined: now})
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("enter the first server: %w", err)
	}
	return nil
}

// Invited reports whether a token is out. It does not use it up, and its secret is not
// asked for.
func (r *Register) Invited(ctx context.Context, tokenID string) (bool, error) {
	switch _, err := r.shelf.Read(ctx, shelfTokens, tokenID); {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	default:
		return false, fmt.Errorf("whether the token is out: %w", err)
	}
}

// Hosts returns the machines that have joined, sorted by identity.
func (r *Register) Hosts(ctx context.Context) ([]Host, error) { return r.list(ctx, shelfHosts) }

// Servers returns the servers of the fleet, sorted by identity.
func (r *Register) Servers(ctx context.Context) ([]Host, error) { return r.list(ctx, shelfServers) }

func (r *Register) list(ctx context.Context, kind string) ([]Host, error) {
	records, err := r.shelf.List(ctx, kind)
	if err != nil {
		return nil, fmt.Errorf("list of %s: %w", kind, err)
	}
	list := make([]Host, 0, len(records))
	for id, data := range records {
		var h Host
		if err := json.Unmarshal(data, &h); err != nil {
			return nil, fmt.Errorf("list of %s: %s: %w (restore it from a backup, or send that one away and let it join again)", kind, id, err)
		}
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b Host) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// Admitted reports whether the bearer of a name is in the fleet: an agent or a
// server that has joined and was not sent away since, or anybody else with a
// certificate. With an error it is not known.
func (r *Register) Admitted(ctx context.Context, name Name) (bool, error) {
	kind := map[Role]string{RoleAgent: shelfHosts, RoleServer: shelfServers}[name.Role]
	if kind == "" {
		return true, nil
	}
	if r.roll.has(Record{kind, name.ID}) {
		return true, nil
	}
	switch _, err := r.shelf.Read(ctx, kind, name.ID); {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	default:
		return false, fmt.Errorf("whether %s %s is in the fleet: %w", name.Role, name.ID, err)
	}
}

// Forget sends a host away: its certificate is of no use from now on. The error
// wraps fs.ErrNotExist for a host that is not in the list.
func (r *Register) Forget(ctx context.Context, id string) error {
	r.roll.send(Record{shelfHosts, id})
	if err := r.shelf.Remove(ctx, shelfHosts, id); err != nil {
		return fmt.Errorf("forget host %s: %w", id, err)
	}
	return nil
}

// ForgetServer does the same for a server.
func (r *Register) ForgetServer(ctx context.Context, id string) error {
	r.roll.send(Record{shelfServers, id})
	if err := r.shelf.Remove(ctx, shelfServers, id); err != nil {
		return fmt.Errorf("forget server %s: %w", id, err)
	}
	return nil
}
