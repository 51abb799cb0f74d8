package pki

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// While the authority is being changed a server's folder holds, beside caFile, which is
// the one that issues:
//
//	ca-PIN16.pem   each key, also the one that issues
//	words.json     the words that say whom the fleet believes
const (
	keyFiles  = "ca-*.pem"
	wordsFile = "words.json"
)

func (ca *CA) keyFile(pin string) string { return filepath.Join(ca.dir, "ca-"+pin[:16]+".pem") }

// ErrNoKey is wrapped when this server does not hold the key of an authority.
var ErrNoKey = errors.New("this server does not hold the authority's key")

// recall reads what else is in the folder. A change of the files that was broken off is
// ended.
func (ca *CA) recall() error {
	names, err := filepath.Glob(filepath.Join(ca.dir, keyFiles))
	if err != nil {
		return err
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		a, err := decodeAuthority(data)
		if err == nil && a.cert.URIs[0].Host != ca.fleet {
			err = fmt.Errorf("it is of fleet %s", a.cert.URIs[0].Host)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		ca.keys[a.pin()] = a
	}
	data, err := os.ReadFile(filepath.Join(ca.dir, wordsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var words []SignedWord
	if err == nil {
		err = json.Unmarshal(data, &words)
	}
	was := ca.use
	if err == nil {
		err = ca.adopt(words)
	}
	if err == nil && ca.use != was { // it was broken off
		err = ca.issueWith(ca.use)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(ca.dir, wordsFile), err)
	}
	return nil
}

// issueWith makes an authority the one that issues, on the disk.
func (ca *CA) issueWith(use *authority) error {
	data, err := encode(use.key, use.cert.Raw)
	if err != nil {
		return err
	}
	return writeDurable(filepath.Join(ca.dir, caFile), data, false)
}

// keepWords keeps them, and then has the authority that they say issue.
func (ca *CA) keepWords(words []SignedWord, use *authority) error {
	data, err := json.Marshal(words)
	if err == nil {
		err = writeDurable(filepath.Join(ca.dir, wordsFile), data, false)
	}
	if err == nil {
		err = ca.issueWith(use)
	}
	return err
}

// adopt takes words as they stand in this server's own folder: they were verified when
// they were written.
func (ca *CA) adopt(words []SignedWord) error {
	if len(words) == 0 {
		return nil
	}
	last := words[len(words)-1]
	w, err := ParseWord(last)
	if err != nil {
		return err
	}
	certs, err := w.named(last.Authorities)
	if err != nil {
		return err
	}
	use := ca.keys[w.Use]
	if use == nil || w.Fleet != ca.fleet {
		return fmt.Errorf("authority %.16s of fleet %s issues: %w", w.Use, w.Fleet, ErrNoKey)
	}
	ca.use, ca.trust, ca.words = use, newTrust(ca.fleet, w.Serial, w.Use, certs), words
	return nil
}

func (ca *CA) believed() (*Trust, *authority) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.trust, ca.use
}

// held are the keys here of those that are believed.
func (ca *CA) held(trust *Trust) []*authority {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	var list []*authority
	for _, pin := range trust.Pins() {
		if a := ca.keys[pin]; a != nil {
			list = append(list, a)
		}
	}
	return list
}

// Trust is whom the fleet believes, as far as this server was told.
func (ca *CA) Trust() *Trust {
	trust, _ := ca.believed()
	return trust
}

// Words are those that say whom the fleet believes, oldest first; none: nobody has changed
// the authority.
func (ca *CA) Words() []SignedWord {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return slices.Clone(ca.words)
}

// Holds reports whether this server has the key of an authority.
func (ca *CA) Holds(pin string) bool {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.keys[pin] != nil
}

// Prepare makes the key of a further authority, which nobody believes yet, and returns
// its certificate (DER).
func (ca *CA) Prepare(now time.Time) ([]byte, error) {
	a, data, err := newAuthority(ca.fleet, now)
	if err == nil {
		err = ca.keep(a, data)
	}
	if err != nil {
		return nil, fmt.Errorf("make a further authority: %w", err)
	}
	return a.cert.Raw, nil
}

// keep keeps a key, and the one that issues beside it.
func (ca *CA) keep(a *authority, data []byte) error {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	own, err := encode(ca.use.key, ca.use.cert.Raw)
	if err == nil {
		err = writeDurable(ca.keyFile(ca.use.pin()), own, false)
	}
	if err == nil {
		err = writeDurable(ca.keyFile(a.pin()), data, false)
	}
	if err == nil {
		ca.keys[a.pin()] = a
	}
	return err
}

// TakeKey keeps what another server's ExportKey returned, which must be of this fleet and
// have this pin.
func (ca *CA) TakeKey(data []byte, pin string) error {
	a, err := decodeAuthority(data)
	switch {
	case err != nil:
	case a.pin() != pin || a.cert.URIs[0].Host != ca.fleet:
		err = errors.New("it is not the one that was asked for")
	default:
		err = ca.keep(a, data)
	}
	if err != nil {
		return fmt.Errorf("take over a further authority: %w", err)
	}
	return nil
}

// ExportKey is Export of one of the authorities. The error wraps ErrNoKey where this
// server does not hold it.
func (ca *CA) ExportKey(pin string) ([]byte, error) {
	ca.mu.Lock()
	a := ca.keys[pin]
	ca.mu.Unlock()
	if a == nil {
		return nil, fmt.Errorf("hand authority %.16s on: %w", pin, ErrNoKey)
	}
	data, err := encode(a.key, a.cert.Raw)
	if err != nil {
		return nil, fmt.Errorf("hand the fleet's authority on: %w", err)
	}
	return data, nil
}

// Say signs a word with every authority of those that it leaves whose key is here: who
// believes one of them believes it. One of those that are believed now must be among them.
func (ca *CA) Say(w Word) (SignedWord, error) {
	fail := func(err error) (SignedWord, error) {
		return SignedWord{}, fmt.Errorf("say whom the fleet believes: %w", err)
	}
	w.Fleet, w.At = ca.fleet, w.At.UTC().Truncate(time.Second)
	text := w.text()
	if _, err := parseWord(text); err != nil {
		return fail(err)
	}
	ca.mu.Lock()
	keys := maps.Clone(ca.keys)
	trust := ca.trust
	ca.mu.Unlock()
	var s SignedWord
	var signers []note.Signer
	for _, pin := range w.Trust {
		a := keys[pin]
		if a == nil {
			return fail(fmt.Errorf("authority %.16s: %w", pin, ErrNoKey))
		}
		s.Authorities = append(s.Authorities, a.cert.Raw)
		signers = append(signers, &noteSigner{authorityNoteKey(a.cert, ca.fleet), a.key})
	}
	var err error
	if s.Note, err = note.Sign(&note.Note{Text: text}, signers...); err != nil {
		return fail(err)
	}
	if after, err := trust.After([]SignedWord{s}); err != nil || after.serial != w.Serial {
		return fail(errors.Join(err, errors.New("this server would not believe it")))
	}
	return s, nil
}

// Believe takes words that this server has not taken yet, durably, and has the authority
// that they say issue from now on. The error wraps ErrNoKey where the key of one that is
// to be believed is not here: fetch it first.
func (ca *CA) Believe(words []SignedWord) error {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	fail := func(err error) error { return fmt.Errorf("change the fleet's authority: %w", err) }
	trust, err := ca.trust.After(words)
	if err != nil {
		return fail(err)
	}
	if trust == ca.trust {
		return nil
	}
	for _, pin := range trust.Pins() {
		if ca.keys[pin] == nil {
			return fail(fmt.Errorf("authority %.16s: %w", pin, ErrNoKey))
		}
	}
	use := ca.keys[trust.use]
	all := ca.words
	for _, s := range words {
		if w, err := ParseWord(s); err == nil && w.Serial > ca.trust.serial && w.Serial <= trust.serial {
			all = append(slices.Clone(all), s)
		}
	}
	if len(all) > maxWords {
		all = all[len(all)-maxWords:]
	}
	if err := ca.keepWords(all, use); err != nil {
		return fail(err)
	}
	ca.use, ca.trust, ca.words = use, trust, all
	return nil
}

// maxWords is how many words a server keeps: those of the last change, and of some before.
const maxWords = 16

// Destroy overwrites and removes the keys of authorities that are not believed, but for
// one that is being prepared ("": none is), and returns their pins. A copy may be left
// where the filesystem or the disk writes elsewhere, and in backups.
func (ca *CA) Destroy(prepared string) ([]string, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	var gone []string
	for _, pin := range slices.Sorted(maps.Keys(ca.keys)) {
		if pin == prepared || slices.Contains(ca.trust.Pins(), pin) {
			continue
		}
		if err := shred(ca.keyFile(pin)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return gone, fmt.Errorf("destroy the key of authority %.16s: %w", pin, err)
		}
		delete(ca.keys, pin)
		gone = append(gone, pin)
	}
	return gone, nil
}

// shred overwrites a file with what says nothing before it removes it.
func shred(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		noise := make([]byte, info.Size())
		_, _ = rand.Read(noise) // never fails (crypto/rand)
		_, err = f.WriteAt(noise, 0)
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return removeDurable(path)
}

// Adopt keeps what a server told another one that joined: further keys, and the words
// that say whom the fleet believes. The connection vouches for them.
func (ca *CA) Adopt(keys [][]byte, words []SignedWord) error {
	fail := func(err error) error { return fmt.Errorf("take over whom the fleet believes: %w", err) }
	for _, data := range keys {
		a, err := decodeAuthority(data)
		if err == nil && a.cert.URIs[0].Host != ca.fleet {
			err = errors.New("it is of another fleet")
		}
		if err == nil {
			err = ca.keep(a, data)
		}
		if err != nil {
			return fail(err)
		}
	}
	if len(words) == 0 {
		return nil
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if err := ca.adopt(words); err != nil {
		return fail(err)
	}
	if err := ca.keepWords(words, ca.use); err != nil {
		return fail(err)
	}
	return nil
}

// Files are what a server's folder holds besides the authority that issues, by name, for
// a backup.
func (ca *CA) Files() (map[string][]byte, error) {
	files := map[string][]byte{}
	names, err := filepath.Glob(filepath.Join(ca.dir, keyFiles))
	if err != nil {
		return nil, err
	}
	for _, name := range append(names, filepath.Join(ca.dir, wordsFile)) {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the fleet's authority: %w", err)
		}
		files[filepath.Base(name)] = data
	}
	return files, nil
}

// ImportAll is Import of a backup: the authority that issues, and what Files returned.
func ImportAll(dir string, data []byte, files map[string][]byte) (*CA, error) {
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("take over the fleet's authority: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !IsFile(name) {
			return nil, fmt.Errorf("take over the fleet's authority: %q is none of its files", name)
		}
		if err := writeDurable(filepath.Join(dir, name), files[name], false); err != nil {
			return nil, fmt.Errorf("take over the fleet's authority: %w", err)
		}
	}
	return Import(dir, data, "")
}

// IsFile reports whether a file of this name is one of Files.
func IsFile(name string) bool {
	return name == wordsFile || strings.HasPrefix(name, "ca-") && strings.HasSuffix(name, ".pem") && filepath.Base(name) == name
}

// authority is one that this server holds; "": the one that issues.
func (ca *CA) authority(pin string) (*authority, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if pin == "" {
		return ca.use, nil
	}
	if a := ca.keys[pin]; a != nil {
		return a, nil
	}
	return nil, fmt.Errorf("authority %.16s: %w", pin, ErrNoKey)
}

// Certificate is that (DER) of an authority that this server holds; "": of the one that
// issues.
func (ca *CA) Certificate(pin string) ([]byte, error) {
	a, err := ca.authority(pin)
	if err != nil {
		return nil, err
	}
	return a.cert.Raw, nil
}
