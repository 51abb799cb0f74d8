package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"fettle/internal/act/execute"
	"fettle/internal/fettle"
	"fettle/internal/fleet/permit"
	"fettle/internal/fleet/pki"
)

// permitName is the file with the last standing permit, which is there over a restart
// and replaced without new room on the disk.
const permitName = "permit"

// older is by how much a permit may begin before the one that is kept: two servers sign
// by two clocks.
const older = time.Minute

// permits keeps the standing permit of this host (S12).
type permits struct {
	file Spare
	host fettle.Subject

	mu   sync.Mutex
	kept execute.Kept
	err  error // why there is none
}

// recallPermit verifies what was kept.
func recallPermit(stateDir string, trust *pki.Trust, host fettle.Subject) *permits {
	p := &permits{file: Spare{Path: filepath.Join(stateDir, permitName)}, host: host}
	p.kept, p.err = readPermit(p.file.Path, trust, host)
	return p
}

func readPermit(path string, trust *pki.Trust, host fettle.Subject) (execute.Kept, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return execute.Kept{}, errors.New("no server has given this host one yet")
	}
	if err != nil {
		return execute.Kept{}, err
	}
	kept, err := permit.Parse(data)
	if err != nil {
		return execute.Kept{}, err
	}
	p, err := permit.Open(kept.Signed, trust, host)
	if err != nil {
		return execute.Kept{}, err
	}
	return execute.Kept{Permit: p, Taken: kept.Taken}, nil
}

// KeptPermit reads the standing permit that the executor with this state folder keeps. An
// error says why there is none. Whether it holds at present is not asked.
func KeptPermit(stateDir string, trust *pki.Trust, host fettle.Subject) (fettle.Permit, error) {
	k, err := readPermit(filepath.Join(stateDir, permitName), trust, host)
	return k.Permit, err
}

// port is execute.Options.Permit.
func (p *permits) port() (execute.Kept, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kept, p.err
}

// take verifies a permit and keeps it instead of the one before. One that cannot be
// believed, or is of before the one that is kept, changes nothing: who hands it over may
// have held it back. One that could not be kept holds until the next start.
func (p *permits) take(s permit.Signed, trust *pki.Trust, wall time.Time) error {
	got, err := permit.Open(s, trust, p.host)
	if err != nil {
		return err
	}
	p.mu.Lock()
	// One from the future does not stand in the way of what sets it right.
	if k := p.kept; p.err == nil && got.Epoch <= k.Epoch && got.From.Before(k.From.Add(-older)) && !k.From.After(wall.Add(older)) {
		p.mu.Unlock()
		return fmt.Errorf("the standing permit: %s is of %s, and %s, which is kept, of %s", got.Serial, got.From.Format(time.RFC3339), k.Serial, k.From.Format(time.RFC3339))
	}
	p.kept, p.err = execute.Kept{Permit: got, Taken: wall}, nil
	p.mu.Unlock()
	text, err := permit.Kept{Taken: wall, Signed: s}.Text()
	if err == nil {
		err = p.file.Write(text)
	}
	if err != nil {
		return fmt.Errorf("the standing permit holds, but not over a restart: %w", err)
	}
	return nil
}
