package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
)

// maintenanceName is the file in which an executor keeps the windows of maintenance that
// its host is in.
const maintenanceName = "maintenance"

// maintenanceSchema is the version of that file that this package writes and reads.
const maintenanceSchema = 1

// maintenance is this host's own copy of the windows that its host is in, so that they
// hold while no server is there to say so. Servers keep to them by themselves.
type maintenance struct {
	file Spare
	host fettle.Subject

	mu      sync.Mutex
	windows []guard.Window
	broken  error // why the copy cannot be believed: then people may be working here
}

type maintenanceFile struct {
	Schema  int            `json:"schema"`
	Windows []guard.Window `json:"windows"`
}

func recallMaintenance(dir string, host fettle.Subject) *maintenance {
	m := &maintenance{file: Spare{Path: filepath.Join(dir, maintenanceName)}, host: host}
	data, err := os.ReadFile(m.file.Path)
	if err == nil {
		m.windows, err = parseMaintenance(data)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.broken = fmt.Errorf("the windows of maintenance that this host is in: %s: %w", m.file.Path, err)
	}
	return m
}

func parseMaintenance(data []byte) ([]guard.Window, error) {
	var f maintenanceFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	if f.Schema != maintenanceSchema {
		return nil, fmt.Errorf("schema %d; this version reads schema %d", f.Schema, maintenanceSchema)
	}
	for _, w := range f.Windows {
		if err := w.Check(); err != nil {
			return nil, err
		}
	}
	return f.Windows, nil
}

// told takes in what a server says, each the JSON of a window, and keeps it durably. What
// cannot be read or kept is an error, and holds as far as it can be told until the next
// word.
func (m *maintenance) told(said [][]byte) error {
	var list []guard.Window
	var failed error
	for _, data := range said {
		var w guard.Window
		err := json.Unmarshal(data, &w)
		if err == nil {
			err = w.Check()
		}
		if err != nil {
			failed = fmt.Errorf("a window of maintenance cannot be read: %w", err)
			continue
		}
		list = append(list, w)
	}
	text, err := json.Marshal(maintenanceFile{maintenanceSchema, list})
	if err == nil {
		err = m.file.Write(text)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.windows, m.broken = list, failed
	return errors.Join(failed, err)
}

// here says whether, by the wall clock's time, people work on this host, and who.
func (m *maintenance) here(wall time.Time) (why string, open bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return m.broken.Error(), true
	}
	for _, w := range m.windows {
		if _, open := w.Open(wall); open && w.Covers(m.host) {
			return w.By + " works on this host: " + w.Text(), true
		}
	}
	return "", false
}
