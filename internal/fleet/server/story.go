package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// storyWait is how long a part of a story may take to be durable.
const storyWait = 30 * time.Second

// merger is a Brain that puts what agents went through alone into the one log, as
// loop.Loop does. Without one they keep it.
type merger interface {
	Merge(ctx context.Context, s loop.Story) (loop.Head, error)
}

// alone is the data of an entry of the one log that comes from an agent's own: with
// the entries before it from the same chain it can be verified again.
type alone struct {
	Host   fettle.Subject  `json:"host"`
	Chain  string          `json:"chain"`
	Permit string          `json:"permit,omitempty"`
	Kind   string          `json:"kind"`
	Entry  json.RawMessage `json:"entry"` // as the agent kept it, with its hash
}

// story takes a part of what the agent went through alone, and answers.
func (x *session) story(at time.Time, w *wire.Story) {
	log := x.host.s.o.Log.With("host", x.host.subject, "label", x.label, "chain", w.GetChain())
	answer := &wire.StoryTaken{Id: w.GetId()}
	head, err := x.merge(at, w)
	switch {
	case err != nil:
		log.Error("the story of an agent that was cut off is not taken", "after", w.GetAfter(), "error", err)
		var broken *store.Broken
		answer.Refused, answer.Never = err.Error(), errors.Is(err, loop.ErrFork) || errors.As(err, &broken)
	default:
		log.Info("the story of an agent that was cut off is in the log", "entries", len(w.GetEntries()), "incidents", len(w.GetRecords()))
		answer.Entries, answer.Hash = head.Entries, head.Hash
	}
	x.push(&wire.SessionResponse{What: &wire.SessionResponse_StoryTaken{StoryTaken: answer}})
}

func (x *session) merge(at time.Time, w *wire.Story) (loop.Head, error) {
	t := x.host.s.term.Load()
	if t == nil {
		return loop.Head{}, errStarting
	}
	brain, ok := t.brain.(merger)
	if !ok {
		return loop.Head{}, errors.New("this server keeps no log that it could go into (upgrade it)")
	}
	if w.GetChain() == "" || len(w.GetChain()) > 64 || w.GetAfter() < 0 {
		return loop.Head{}, errors.New("it does not say which chain it is of (a defect of the agent)")
	}
	s := loop.Story{
		Alone:  fettle.Alone{Host: x.host.subject, Chain: w.GetChain(), Permit: w.GetPermit()},
		Before: loop.Head{Entries: w.GetAfter(), Hash: w.GetAfterHash()},
	}
	entries, err := store.Follow(s.Before, w.GetEntries())
	if err != nil {
		return loop.Head{}, fmt.Errorf("its own chain: %w", err)
	}
	for i, e := range entries {
		data, err := json.Marshal(alone{x.host.subject, s.Alone.Chain, s.Alone.Permit, e.Kind, w.GetEntries()[i]})
		if err != nil {
			return loop.Head{}, err
		}
		s.Lines = append(s.Lines, loop.Line{Head: loop.Head{Entries: e.Seq, Hash: e.Hash}, Entry: loop.Entry{
			At: x.ours(e.At, at), Kind: "alone", Incident: e.Incident, Text: x.label + ", alone: " + e.Text, Data: data,
		}})
	}
	for _, data := range w.GetRecords() {
		r, err := wire.Unpack[incident.Record](data)
		if err == nil {
			err = x.plausibleRecord(r)
		}
		if err != nil { // its lines are in the log all the same
			x.complainOf("an incident of an agent that was cut off was not taken", err)
			continue
		}
		s.Records = append(s.Records, x.shifted(r, at))
	}
	ctx, cancel := context.WithTimeout(x.ctx, storyWait)
	defer cancel()
	return brain.Merge(ctx, s)
}

// plausibleRecord checks that an incident can be one of this agent's: about what
// agents judge, and with no step but on its own host.
func (x *session) plausibleRecord(r incident.Record) error {
	if r.ID == "" || len(r.ID) > 64 {
		return fmt.Errorf("its name is %.80q", r.ID)
	}
	if _, err := fettle.ParseSubject(string(r.Cause.Subject)); err != nil {
		return fmt.Errorf("%s: %w", r.ID, err)
	}
	if !x.host.s.hostCode[r.Cause.Code] {
		return fmt.Errorf("%s: %s is not a condition that an agent judges", r.ID, r.Cause.Code)
	}
	done := r.Progress.Done
	for _, l := range r.Progress.Left {
		done = append(done, l.Done...)
	}
	for _, d := range done {
		if !d.Skipped && d.Step.Host != x.host.subject {
			return fmt.Errorf("%s: step %s was on %s", r.ID, d.ID, d.Step.Host)
		}
	}
	return nil
}

// complainOf is complain for who does not hold the host.
func (x *session) complainOf(text string, err error) {
	x.host.mu.Lock()
	defer x.host.mu.Unlock()
	x.complain(text, err)
}

// ours puts a time of the agent on our clock, and not after it was told.
func (x *session) ours(theirs, told time.Time) time.Time {
	if theirs.IsZero() {
		return theirs
	}
	x.host.mu.Lock()
	at := x.clocks.Shift(theirs)
	x.host.mu.Unlock()
	if at.After(told) {
		return told
	}
	return at
}

// shifted puts the times of an incident on our clock. What was tried counts for this
// host's own things only: an agent that lies keeps nobody else from being mended.
func (x *session) shifted(r incident.Record, told time.Time) incident.Record {
	r.Opened, r.Ended = x.ours(r.Opened, told), x.ours(r.Ended, told)
	for i := range r.Story {
		r.Story[i].At = x.ours(r.Story[i].At, told)
	}
	for i := range r.Progress.Attempts {
		r.Progress.Attempts[i].At = x.ours(r.Progress.Attempts[i].At, told)
	}
	if r.Cause.Subject.Root() != x.host.subject.Name() {
		r.Progress.Attempts = nil
	}
	return r
}
