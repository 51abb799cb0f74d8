package cli

import (
	"fmt"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
	"fettle/internal/fleet/wire"
)

// signedFor is within what time of a host's nonce the command must begin there. It is
// signed when it is about to begin, also in a late batch: as long as a nonce lasts.
const signedFor = time.Minute

// personsWords are a person's signatures of one command, at most one for each host that
// was shown.
type personsWords struct {
	id      string // of the run
	program []byte
	by      *pki.Identity
	names   map[string]string // host to what it is called, of those that are not signed for yet
}

// newPersonsWords prepares to sign a command. An error says that it cannot be signed.
func newPersonsWords(argv []string, timeout time.Duration, by *pki.Identity) (*personsWords, error) {
	body, err := warrant.Program{Argv: argv, Timeout: timeout}.Body()
	if err != nil {
		return nil, err
	}
	return &personsWords{id: pki.MintID(), program: body, by: by, names: map[string]string{}}, nil
}

// shown notes which hosts the server says that it will be. No other is signed for.
func (w *personsWords) shown(names, hosts []string) {
	for i := range min(len(names), len(hosts)) {
		w.names[hosts[i]] = names[i]
	}
}

// sign answers the server's request to sign for one host.
func (w *personsWords) sign(r *wire.RunSign) (*wire.RunSignedRequest, error) {
	name, ok := w.names[r.GetHost()]
	if !ok {
		return nil, exit(ExitUnknown, "the server wants the command signed for %.80q, which is not among the hosts, or was signed for already: nothing more is signed, and the run is broken off (a defect of the server, or worse)", r.GetHost())
	}
	delete(w.names, r.GetHost())
	s, err := warrant.SignRun(warrant.Run{
		Fleet: w.by.Name.Fleet, Run: w.id, Host: fettle.Subject(r.GetHost()), Name: name, Nonce: r.GetNonce(), Within: signedFor, Body: warrant.HashOf(w.program),
	}, w.by)
	if err != nil {
		return nil, fmt.Errorf("the server wants something signed that cannot be: %w", err)
	}
	return &wire.RunSignedRequest{What: &wire.RunSignedRequest_Signature{Signature: &wire.RunSignature{
		Host: r.GetHost(), Signed: &wire.SignedCommand{Note: s.Note, Certificate: s.Certificate},
	}}}, nil
}
