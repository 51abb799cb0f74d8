package permit

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/judge/runbook"
)

// first is the first line: what it is, in which version.
const first = "fettle permit 1"

// schema is the version of the permit that this package writes, and the newest that
// it reads.
const schema = 1

// Signed is a permit with its signature, as it is sent and kept.
type Signed struct {
	Note        []byte `json:"note"`
	Certificate []byte `json:"certificate"` // X.509, DER, of the server that signed it
}

// Make makes the permit of a host from a policy: its grants as far as they are for
// this host, by its name or subject, and what else the policy says of what is done.
// A host for which there is no grant gets a permit without any.
func Make(policy fettle.Policy, fleet string, epoch uint64, host fettle.Subject, name string, now time.Time) fettle.Permit {
	grants, life := runbook.Permits(policy)
	p := fettle.Permit{
		Schema: schema, Serial: rand.Text(), Fleet: fleet, Epoch: epoch, Host: host,
		From: now.UTC().Round(0), Until: now.Add(life).UTC().Round(0), Grants: []fettle.Grant{}, Policy: policy,
	}
	p.Policy.Permits, p.Policy.PermitLife = nil, 0 // that is the grants
	for _, g := range grants {
		if fettle.MatchText(g.Hosts, name) || fettle.MatchText(g.Hosts, string(host)) {
			g.Hosts = ""
			p.Grants = append(p.Grants, g)
		}
	}
	return p
}

// Sign signs a permit. One that Open would not take is an error.
func Sign(p fettle.Permit, by *pki.Identity) (Signed, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return Signed{}, fmt.Errorf("sign the permit of %s: %w", p.Host, err)
	}
	text := first + "\n" + string(data) + "\n"
	if _, err := parse(text); err != nil {
		return Signed{}, fmt.Errorf("sign the permit of %s: %w", p.Host, err)
	}
	msg, err := note.Sign(&note.Note{Text: text}, by.NoteSigner())
	if err != nil {
		return Signed{}, fmt.Errorf("sign the permit of %s: %w", p.Host, err)
	}
	return Signed{Note: msg, Certificate: by.Certificate()}, nil
}

// Open verifies a permit for a host of the fleet that is trusted, and reads it. It takes
// any bytes. Whether the permit holds now is not asked.
func Open(s Signed, trust *pki.Trust, host fettle.Subject) (fettle.Permit, error) {
	fail := func(err error) (fettle.Permit, error) {
		return fettle.Permit{}, fmt.Errorf("the standing permit: %w", err)
	}
	// What it says of its time is read before it is verified, and believed after.
	claimed, _, _ := strings.Cut(string(s.Note), "\n\n")
	unverified, err := parse(claimed + "\n")
	if err != nil {
		return fail(err)
	}
	known, err := trust.ServerNotes(s.Certificate, unverified.From)
	if err != nil {
		return fail(err)
	}
	n, err := note.Open(s.Note, note.VerifierList(known))
	if err != nil {
		return fail(err)
	}
	p, err := parse(n.Text)
	switch {
	case err != nil:
		return fail(err)
	case !p.From.Equal(unverified.From):
		return fail(errors.New("it says two times"))
	case p.Fleet != trust.Fleet:
		return fail(fmt.Errorf("it is of fleet %s, this is %s", p.Fleet, trust.Fleet))
	case p.Host != host:
		return fail(fmt.Errorf("it is for %s, this is %s", p.Host, host))
	}
	return p, nil
}

// parse reads a permit's text.
func parse(text string) (fettle.Permit, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 3 || lines[len(lines)-1] != "" || lines[0] != first {
		return fettle.Permit{}, fmt.Errorf("it does not begin with %q and a permit (another version made it)", first)
	}
	var p fettle.Permit
	if err := json.Unmarshal([]byte(lines[1]), &p); err != nil {
		return fettle.Permit{}, fmt.Errorf("it cannot be read: %w", err)
	}
	switch {
	case p.Schema < 1 || p.Schema > schema:
		return fettle.Permit{}, fmt.Errorf("its schema is %d, this version knows up to %d", p.Schema, schema)
	case p.Serial == "" || p.Fleet == "" || p.Epoch == 0:
		return fettle.Permit{}, errors.New("it does not say its serial, fleet and epoch")
	case p.Host.Kind() != fettle.KindHost:
		return fettle.Permit{}, fmt.Errorf("it is for %q, which is no host", p.Host)
	case p.From.IsZero() || !p.From.Before(p.Until) || p.Until.Sub(p.From) > fettle.MaxPermitLife:
		return fettle.Permit{}, fmt.Errorf("its time makes no sense: from %s until %s", p.From, p.Until)
	}
	for i, g := range p.Grants {
		if g.PerSubject < 1 || g.PerHost < 1 || g.Window <= 0 || g.Window > fettle.MaxPermitWindow {
			return fettle.Permit{}, fmt.Errorf("grant %d has no rate", i+1)
		}
	}
	return p, nil
}
