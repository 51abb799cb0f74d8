package warrant

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/note"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
)

const runFirst = "fettle run 1"

// Run is a person's word that a program is to run on one host, once.
type Run struct {
	Fleet  string
	Run    string         // names the run, which may be of many hosts
	Host   fettle.Subject // where
	Name   string         // what the person was shown for it
	Nonce  string         // the executor's own, so that it is for nobody else, and not from long ago
	Within time.Duration  // of the making of the nonce, on the executor's clock; later it is not begun
	Body   string         // SHA-256 of the program, as Program.Body writes it, in hexadecimal
}

func (r Run) text() string {
	return fmt.Sprintf("%s\nfleet %s\nrun %s\nhost %s\nname %s\nnonce %s\nwithin %d\nbody %s\n",
		runFirst, r.Fleet, r.Run, r.Host, r.Name, r.Nonce, int64(r.Within), r.Body)
}

// SignRun signs a run with a person's identity. One that OpenRun would not take is an
// error.
func SignRun(r Run, by *pki.Identity) (Signed, error) {
	text := r.text()
	if _, err := parseRun(text); err != nil {
		return Signed{}, fmt.Errorf("sign a run on %s: %w", r.Name, err)
	}
	if !by.Name.Role.Includes(pki.RoleOperator) || by.Name.Fleet != r.Fleet {
		return Signed{}, fmt.Errorf("sign a run on %s: an operator of fleet %s must, and %s is none", r.Name, r.Fleet, by.Name)
	}
	msg, err := note.Sign(&note.Note{Text: text}, by.NoteSigner())
	if err != nil {
		return Signed{}, fmt.Errorf("sign a run on %s: %w", r.Name, err)
	}
	return Signed{Note: msg, Certificate: by.Certificate()}, nil
}

// OpenRun verifies a run that an operator, or somebody with more, of the fleet has
// signed with a certificate that is valid at this time, and returns who that is. Whether
// it is for this host, and from now, is for the caller to say.
func OpenRun(s Signed, trust *pki.Trust, now time.Time) (Run, pki.Name, error) {
	fail := func(err error) (Run, pki.Name, error) {
		return Run{}, pki.Name{}, fmt.Errorf("the signed command: %w", err)
	}
	known, name, err := trust.PersonNotes(s.Certificate, pki.RoleOperator, now)
	if err != nil {
		return fail(err)
	}
	text, err := opened(s.Note, known)
	if err != nil {
		return fail(err)
	}
	r, err := parseRun(text)
	switch {
	case err != nil:
		return fail(err)
	case r.Fleet != trust.Fleet:
		return fail(fmt.Errorf("it is of fleet %s, this is %s", r.Fleet, trust.Fleet))
	}
	return r, name, nil
}

func parseRun(text string) (Run, error) {
	var r Run
	var host, within string
	if err := read(text, runFirst, field{"fleet", &r.Fleet}, field{"run", &r.Run}, field{"host", &host}, field{"name", &r.Name},
		field{"nonce", &r.Nonce}, field{"within", &within}, field{"body", &r.Body}); err != nil {
		return Run{}, err
	}
	if len(r.Run) > MaxRunID {
		return Run{}, errors.New("the name of the run is too long")
	}
	s, err := fettle.ParseSubject(host)
	if err != nil || s.Kind() != fettle.KindHost {
		return Run{}, fmt.Errorf("%.80q is no host", host)
	}
	r.Host = s
	if r.Within, err = parseWithin(within); err != nil {
		return Run{}, err
	}
	return r, checkHash(r.Body)
}

// MaxRunID bounds the name of a run, in bytes: executors remember them.
const MaxRunID = 64

func parseWithin(text string) (time.Duration, error) {
	ns, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ns <= 0 || strconv.FormatInt(ns, 10) != text {
		return 0, fmt.Errorf("%.40q is not a number of nanoseconds", text)
	}
	return time.Duration(ns), nil
}
