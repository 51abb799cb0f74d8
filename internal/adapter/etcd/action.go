package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"fettle/internal/fettle"
)

// here returns the instance of the target, which must run on this machine.
func (c *cluster) here(op string, target fettle.Subject) (*instance, error) {
	in, ok := c.own(target)
	if !ok {
		return nil, fettle.Refuse(op, target, "the step belongs to the agent on the member's own host", "it does not run on %s", c.m.Identity.Host)
	}
	return in, nil
}

// any returns an instance of this machine, for what belongs to the cluster.
func (c *cluster) anyLocal(op string, target fettle.Subject) (*instance, error) {
	list := c.locals()
	if target != c.subject || len(list) == 0 {
		return nil, fettle.Refuse(op, target, "the step belongs to an agent with the adapter for that cluster", "this adapter looks after %s", c.subject)
	}
	return list[0], nil
}

// ours reports whether a target is a member of this cluster, on whatever machine.
func (c *cluster) ours(op string, target fettle.Subject) error {
	if target.Kind() != KindMember || target.Root() != c.system {
		return fettle.Refuse(op, target, "the step belongs to an agent with the adapter for that cluster", "this adapter looks after %s", c.subject)
	}
	return nil
}

// idOf reads the parameter id.
func idOf(op string, step fettle.Step) (uint64, error) {
	text, _ := step.Params.Str("id")
	id, err := parseID(text)
	if err != nil {
		return 0, fettle.Refuse(op, step.Target, "plan again; the identity is the fact member_id, or what member_add put out", "%w", err)
	}
	return id, nil
}

// subjectOf reads an optional parameter that names a member.
func subjectOf(op string, step fettle.Step, name string) (fettle.Subject, error) {
	text, _ := step.Params.Str(name)
	if text == "" {
		return "", nil
	}
	s, err := fettle.ParseSubject(text)
	if err != nil || s.Kind() != KindMember {
		return "", fettle.Refuse(op, step.Target, "give the subject of a member, for example etcd-member:SYSTEM/NAME", "parameter %s: %q is no member", name, text)
	}
	return s, nil
}

// unseen is the refusal when the cluster could not be looked at: nothing was
// touched.
func unseen(op string, target fettle.Subject, err error) error {
	return &fettle.Error{Op: op, Subject: target, Class: fettle.Refused, Err: err, Hint: "it is tried again when the cluster has a leader that answers"}
}

// classOr keeps the class of an error that has one, and else makes it Broken.
func classOr(op string, target fettle.Subject, err error) error {
	var e *fettle.Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	if errors.Is(err, fs.ErrPermission) {
		return &fettle.Error{Op: op, Subject: target, Class: fettle.Denied, Err: err, Hint: "the agent's executor needs the rights that the action's catalogue entry names"}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &fettle.Error{Op: op, Subject: target, Class: fettle.NoAnswer, Err: err, Hint: "it may still take effect; it is asked"}
	}
	return broken(op, target, err, "")
}

// fileName makes a dispatch's key, or a name, into a part of a file's name. Keys
// are printable; what is not a letter, digit, '-', '_' or '.' becomes '_'.
func fileName(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '_'
	}, text)
}

func would(format string, args ...any) fettle.Preview {
	return fettle.Preview{Would: []string{fmt.Sprintf(format, args...)}}
}

func noted(format string, args ...any) fettle.Result {
	return fettle.Result{Notes: []string{fmt.Sprintf(format, args...)}}
}

// forwardOnly is the Undo of an action that has none.
func forwardOnly(op string, target fettle.Subject) (fettle.Result, error) {
	return fettle.Result{}, &fettle.Error{Op: "undo " + op, Subject: target, Class: fettle.Unsupported, Err: fettle.ErrNotSupported, Hint: "it is forward-only; a person must go on from here"}
}
