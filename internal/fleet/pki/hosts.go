package pki

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Host is a machine that has joined.
type Host struct {
	Schema int       `json:"schema"`
	ID     string    `json:"id"`    // the host's identity, minted when it joined
	Label  string    `json:"label"` // its host name then
	Joined time.Time `json:"joined"`
}

func (ca *CA) hostFile(id string) string { return filepath.Join(ca.dir, "hosts", id+".json") }

// Admit mints the identity of a machine that joins, keeps it in the list of
// hosts and signs its certificate (DER).
func (ca *CA) Admit(csr []byte, label string, now time.Time) (Host, []byte, error) {
	h := Host{Schema: 1, ID: MintID(), Label: label, Joined: now}
	cert, err := ca.Sign(csr, Name{Fleet: ca.fleet, Role: RoleAgent, ID: h.ID}, now, AgentLife)
	if err != nil {
		return Host{}, nil, err
	}
	data, err := json.Marshal(h)
	if err == nil {
		err = makeDir(filepath.Join(ca.dir, "hosts"))
	}
	if err == nil {
		err = writeDurable(ca.hostFile(h.ID), data, true)
	}
	if err != nil {
		return Host{}, nil, fmt.Errorf("admit host %s: %w", label, err)
	}
	return h, cert, nil
}

// Hosts returns the machines that have joined, sorted by identity.
func (ca *CA) Hosts() ([]Host, error) {
	names, err := filepath.Glob(filepath.Join(ca.dir, "hosts", "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list of hosts: %w", err)
	}
	var list []Host
	for _, name := range names {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // forgotten meanwhile
		}
		var h Host
		if err == nil {
			err = json.Unmarshal(data, &h)
		}
		if err != nil {
			return nil, fmt.Errorf("list of hosts: %s: %w (restore it from a backup, or take it away and join that host again)", name, err)
		}
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b Host) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// Admitted reports whether a host has joined and was not sent away since.
func (ca *CA) Admitted(id string) bool {
	_, err := os.Stat(ca.hostFile(filepath.Base(id)))
	return err == nil
}

// Forget sends a host away: its certificate is of no use from now on. The error
// wraps fs.ErrNotExist for a host that is not in the list.
func (ca *CA) Forget(id string) error {
	if err := removeDurable(ca.hostFile(filepath.Base(id))); err != nil {
		return fmt.Errorf("forget host %s: %w", id, err)
	}
	return nil
}
