package executor

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/google/renameio/v2"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
)

// pinName is the file of a Pin in an executor's folder.
const pinName = "fleet.json"

// maxPin bounds it, in bytes: some certificates.
const maxPin = 64 << 10

// pinSchema is the version of the file that this program writes and reads.
const pinSchema = 1

// Pin is whom the executor of a host believes: its own copy, which the agent cannot
// write. It holds no secret.
type Pin struct {
	Schema      int            `json:"schema"`
	Fleet       string         `json:"fleet"`
	Host        fettle.Subject `json:"host"`
	Authorities [][]byte       `json:"authorities"`      // X.509, DER
	Serial      int64          `json:"serial,omitempty"` // of the authority's word that says so; 0: none did
}

// Save keeps, for the executor of the host that has this identity, whom to believe. The
// folder is made, for its owner only, if it is not there.
func Save(dir string, id *pki.Identity) error {
	return savePin(dir, Pin{Fleet: id.Name.Fleet, Host: id.Name.Host()}, id.Trust())
}

func savePin(dir string, p Pin, trust *pki.Trust) error {
	p.Schema, p.Authorities, p.Serial = pinSchema, trust.Authorities(), trust.Serial()
	data, err := json.MarshalIndent(p, "", "  ")
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = renameio.WriteFile(filepath.Join(dir, pinName), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep whom the executor believes: %w", err)
	}
	return nil
}

// Believed is whom the executor of a host believes, as its folder keeps it. Its methods
// may be called concurrently.
type Believed struct {
	Host  fettle.Subject
	dir   string
	pin   Pin
	trust atomic.Pointer[pki.Trust]
}

// OpenPin reads what Save kept. Where there is nothing the error wraps fs.ErrNotExist.
func OpenPin(dir string) (*Believed, error) {
	pin, trust, err := LoadPin(dir)
	if err != nil {
		return nil, err
	}
	b := &Believed{Host: pin.Host, dir: dir, pin: pin}
	b.trust.Store(trust)
	return b, nil
}

// Trust is Options.Trust.
func (b *Believed) Trust() *pki.Trust { return b.trust.Load() }

// Keep is Options.Keep.
func (b *Believed) Keep(t *pki.Trust) error {
	if err := savePin(b.dir, b.pin, t); err != nil {
		return err
	}
	b.trust.Store(t)
	return nil
}

// LoadPin reads what Save kept. Where there is nothing the error wraps fs.ErrNotExist.
func LoadPin(dir string) (Pin, *pki.Trust, error) {
	data, err := ReadGuarded(filepath.Join(dir, pinName), maxPin)
	var p Pin
	var t *pki.Trust
	if err == nil {
		p, t, err = parsePin(data)
	}
	if err != nil {
		return Pin{}, nil, fmt.Errorf("whom the executor believes: %w", err)
	}
	return p, t, nil
}

func parsePin(data []byte) (Pin, *pki.Trust, error) {
	var p Pin
	if err := json.Unmarshal(data, &p); err != nil {
		return Pin{}, nil, err
	}
	if p.Schema != pinSchema {
		return Pin{}, nil, fmt.Errorf("schema %d; this version reads schema %d", p.Schema, pinSchema)
	}
	if _, err := fettle.ParseSubject(string(p.Host)); err != nil || p.Host.Kind() != fettle.KindHost {
		return Pin{}, nil, fmt.Errorf("%q is no host", p.Host)
	}
	if p.Serial < 0 {
		return Pin{}, nil, fmt.Errorf("serial %d of the authority's word", p.Serial)
	}
	t, err := pki.NewTrust(p.Fleet, p.Serial, p.Authorities...)
	return p, t, err
}
