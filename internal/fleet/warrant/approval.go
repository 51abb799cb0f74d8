package warrant

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"

	"fettle/internal/fleet/pki"
)

const approvalFirst = "fettle approval 1"

// Approval is a person's yes to one plan, by hash, with an end. Its times are of wall
// clocks: a person's word is about the time that people have.
type Approval struct {
	Fleet    string
	Incident string
	Plan     string    // SHA-256 of the plan, as judge/plan.Hash writes it
	At       time.Time // when it was given
	Until    time.Time // by when the plan must have begun
	Finish   time.Time // by when its last step must have begun
}

func (a Approval) text() string {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	return fmt.Sprintf("%s\nfleet %s\nincident %s\nplan %s\nat %s\nuntil %s\nfinish %s\n", approvalFirst, a.Fleet, a.Incident, a.Plan, at(a.At), at(a.Until), at(a.Finish))
}

// SignApproval signs an approval with a person's identity. One that OpenApproval
// would not take is an error.
func SignApproval(a Approval, by *pki.Identity) (Signed, error) {
	text := a.text()
	if _, err := parseApproval(text); err != nil {
		return Signed{}, fmt.Errorf("sign the approval: %w", err)
	}
	if !by.Name.Role.Includes(pki.RoleApprover) || by.Name.Fleet != a.Fleet {
		return Signed{}, fmt.Errorf("sign the approval: an approver of fleet %s must, and %s is none", a.Fleet, by.Name)
	}
	msg, err := note.Sign(&note.Note{Text: text}, by.NoteSigner())
	if err != nil {
		return Signed{}, fmt.Errorf("sign the approval: %w", err)
	}
	return Signed{Note: msg, Certificate: by.Certificate()}, nil
}

// OpenApproval verifies an approval by an approver or administrator of the fleet, whose
// certificate must have been valid when it was given, and returns who that is. Whether
// it holds at present is for the caller to say.
func OpenApproval(s Signed, trust *pki.Trust) (Approval, pki.Name, error) {
	fail := func(err error) (Approval, pki.Name, error) {
		return Approval{}, pki.Name{}, fmt.Errorf("the signed approval: %w", err)
	}
	// What it says of its time is read before it is verified, and believed after.
	unverified, err := parseApproval(claimed(s.Note))
	if err != nil {
		return fail(err)
	}
	known, name, err := trust.PersonNotes(s.Certificate, pki.RoleApprover, unverified.At)
	if err != nil {
		return fail(err)
	}
	text, err := opened(s.Note, known)
	if err != nil {
		return fail(err)
	}
	a, err := parseApproval(text)
	switch {
	case err != nil:
		return fail(err)
	case !a.At.Equal(unverified.At):
		return fail(errors.New("it says two times"))
	case a.Fleet != trust.Fleet:
		return fail(fmt.Errorf("it is of fleet %s, this is %s", a.Fleet, trust.Fleet))
	}
	return a, name, nil
}

func parseApproval(text string) (Approval, error) {
	var a Approval
	var at, until, finish string
	if err := read(text, approvalFirst, field{"fleet", &a.Fleet}, field{"incident", &a.Incident}, field{"plan", &a.Plan},
		field{"at", &at}, field{"until", &until}, field{"finish", &finish}); err != nil {
		return Approval{}, err
	}
	if err := checkHash(a.Plan); err != nil {
		return Approval{}, err
	}
	for _, t := range []struct {
		text string
		into *time.Time
	}{{at, &a.At}, {until, &a.Until}, {finish, &a.Finish}} {
		var err error
		if *t.into, err = time.Parse(time.RFC3339, t.text); err != nil || t.into.UTC().Format(time.RFC3339) != t.text {
			return Approval{}, fmt.Errorf("%.40q is not a time", t.text)
		}
	}
	if a.Until.Before(a.At) || a.Finish.Before(a.Until) {
		return Approval{}, errors.New("it ends before it begins")
	}
	return a, nil
}
