package pki

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// writeDurable puts data at path so that after a crash there is either what was
// there before or all of data. Only the owner may read it. With fresh, a file
// that is there already is an error (fs.ErrExist).
func writeDurable(path string, data []byte, fresh bool) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".new-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil || fresh {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if fresh {
		if err := os.Link(f.Name(), path); err != nil {
			return err
		}
		return syncDir(dir)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// removeDurable takes a file away; of two that try, one gets fs.ErrNotExist.
func removeDurable(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir makes a folder that only its owner may enter.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("folder %s has mode %#o: it is to hold private keys, so only its owner may enter it (chmod 700 %s)", dir, info.Mode().Perm(), dir)
	}
	return nil
}
