package execute

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"fettle/internal/fettle"
)

// Schema is the version of dispatches, outcomes and journal records that this
// package writes, and the newest that it reads.
const Schema = 1

// The kinds of journal record. Records of other kinds may stand in the same
// journal and are passed over.
const (
	KindIncarnation = "execute.incarnation"
	KindToken       = "execute.token"
	KindIntent      = "execute.intent"
	KindOutcome     = "execute.outcome"
	KindFence       = "execute.fence"
	KindHead        = "execute.head"
)

// incarnationRecord says that a process began to work with this journal.
type incarnationRecord struct {
	Incarnation string         `json:"incarnation"`
	Host        fettle.Subject `json:"host"`
	Fleet       string         `json:"fleet"`
}

// tokenRecord is a new highest token.
type tokenRecord struct {
	Token fettle.Token `json:"token"`
}

// intentRecord says that a step may from now on have been begun.
type intentRecord struct {
	Dispatch fettle.Dispatch `json:"dispatch"`
	Digest   string          `json:"digest"`
	Wall     time.Time       `json:"wall,omitzero"` // by the host's wall clock, of a step under a permit
}

// outcomeRecord is the answer to a key. It ends the key unless its fate is
// running or unknown.
type outcomeRecord struct {
	Outcome   fettle.Outcome `json:"outcome"`
	Recovered bool           `json:"recovered,omitempty"` // by asking the external system
}

// fenceRecord says that a key will not be begun any more.
type fenceRecord struct {
	Key string `json:"key"`
}

// digest identifies what a key is for: everything of a dispatch but the leader
// who sent it and until when.
func digest(d fettle.Dispatch) (string, error) {
	b, err := json.Marshal(struct {
		Key, Incarnation, Incident, Plan string
		Step                             fettle.Step
		Undo                             bool
		Outputs                          fettle.Facts
	}{d.Key, d.Incarnation, d.Incident, d.Plan, d.Step, d.Undo, d.Outputs})
	if err != nil {
		return "", fmt.Errorf("digest of %s: %w", d.Key, err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// stepOf identifies a step of a plan, whatever its key.
func stepOf(d fettle.Dispatch) string {
	b, err := json.Marshal(struct {
		Plan string
		Step fettle.Step
	}{d.Plan, d.Step})
	if err != nil {
		return "" // nothing is noted under it
	}
	sum := sha256.Sum256(b)
	return string(sum[:])
}

// noteBegun notes that a step was begun. mu is held, or nobody else has e.
func (e *Executor) noteBegun(k *key, d fettle.Dispatch) {
	if d.Plan == "" {
		return
	}
	k.step, k.undo = stepOf(d), d.Undo
	if !d.Undo && k.step != "" {
		e.begun[d.Plan], e.begun[k.step] = true, true
	}
}

// noteDone notes that a key ended. mu is held, or nobody else has e.
func (e *Executor) noteDone(k *key, o fettle.Outcome) {
	if o.Fate == fettle.Done && k.step != "" {
		e.done[k.step] = !k.undo
	}
}

// kept is a dispatch as the journal keeps it: the plan that was approved is not
// needed again, and its hash is there.
func kept(d fettle.Dispatch) fettle.Dispatch {
	if d.Approval != nil {
		short := *d.Approval
		short.Plan = nil
		d.Approval = &short
	}
	return d
}

// final reports whether an outcome ends its key.
func final(o fettle.Outcome) bool { return o.Fate == fettle.Done || o.Fate == fettle.NeverWillBe }
