package loop

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

// chainsKept is how many chains of one host are remembered. An agent has one at a
// time and begins another only when the one before was taken.
const chainsKept = 8

// Story is what an agent went through alone while it was cut off from every server
// (S12), to be put into the one log (S13). Whoever hands it over has verified that its
// lines follow from each other and that the agent speaks for its host.
type Story struct {
	Alone   fettle.Alone
	Before  Head   // of the agent's chain: what the first line follows; zero: it is the first
	Lines   []Line // in order
	Records []incident.Record
}

// Line is one entry of an agent's chain: where that chain stands with it, and the
// entry as it goes into the one log.
type Line struct {
	Head  Head
	Entry Entry
}

// Merged is how far the chains of one host were taken into the log, the newest last.
type Merged struct {
	Host   fettle.Subject `json:"host"`
	Chains []Chain        `json:"chains"`
}

// Chain is one of them.
type Chain struct {
	Chain string `json:"chain"`
	Head
}

// head is how far a chain was taken; zero: not at all.
func (m Merged) head(chain string) Head {
	for _, c := range m.Chains {
		if c.Chain == chain {
			return c.Head
		}
	}
	return Head{}
}

// with is m with a chain taken as far as head.
func (m Merged) with(host fettle.Subject, chain string, head Head) Merged {
	list := slices.DeleteFunc(slices.Clone(m.Chains), func(c Chain) bool { return c.Chain == chain })
	list = append(list, Chain{chain, head})
	return Merged{Host: host, Chains: list[max(0, len(list)-chainsKept):]}
}

// ErrFork says that an agent's chain is not the one of which a part was taken before.
var ErrFork = errors.New("the chain is not the one that was told before")

// merging is a story that waits for its turn.
type merging struct {
	story Story
	taken chan merged // has room for the answer
}

type merged struct {
	head Head
	err  error
}

// Merge puts a story into the log, with what it says of incidents, and returns when
// that is durable how far the chain was taken. What was taken before is not taken
// again. An error promises nothing: tell it again. ErrFork: never.
func (l *Loop) Merge(ctx context.Context, s Story) (Head, error) {
	m := &merging{story: s, taken: make(chan merged, 1)}
	if !l.put(item{story: m}) {
		return Head{}, ErrStopped
	}
	select {
	case got := <-m.taken:
		return got.head, got.err
	case <-ctx.Done():
		return Head{}, ctx.Err()
	}
}

// merge takes a story. It returns an error that ends the loop.
func (l *Loop) merge(ctx context.Context, m *merging) error {
	s := m.story
	fresh, head, err := l.unheard(s)
	if err != nil {
		m.taken <- merged{err: err}
		return nil
	}
	in := incident.Input{At: l.o.Clock.Now(), Merged: &incident.Merged{Alone: s.Alone, Records: s.Records}}
	if l.o.OnInput != nil {
		l.o.OnInput(in)
	}
	l.entries = append(l.entries, fresh...)
	l.merged[s.Alone.Host] = l.merged[s.Alone.Host].with(s.Alone.Host, s.Alone.Chain, head)
	l.mergedAt[s.Alone.Host] = true
	decisions := l.o.Mind.Take(in)
	for _, r := range s.Records { // what it tells of them stands among its lines
		if got, ok := l.o.Mind.Incident(r.ID); ok && got.Alone.Same(s.Alone) {
			l.told[r.ID] = max(l.told[r.ID], len(r.Story))
		}
	}
	if err := l.carryOut(ctx, in, decisions); err != nil {
		m.taken <- merged{err: err}
		return err
	}
	err = l.commit(ctx, Txn{}) // after an earlier failure: what has waited since
	if err != nil {
		err = fmt.Errorf("take the story of %s: %w", s.Alone.Host, err)
	}
	m.taken <- merged{head, err}
	if errors.Is(err, ErrNotLeader) || ctx.Err() != nil {
		return err
	}
	return nil
}

// unheard are the lines of a story that were not taken yet, and how far the chain is
// taken with them.
func (l *Loop) unheard(s Story) ([]Entry, Head, error) {
	at := l.merged[s.Alone.Host].head(s.Alone.Chain)
	fork := func(seq int64) ([]Entry, Head, error) {
		return nil, Head{}, fmt.Errorf("take the story of %s, chain %s: entry %d: %w (keep its folder as evidence)", s.Alone.Host, s.Alone.Chain, seq, ErrFork)
	}
	switch {
	case s.Before.Entries > at.Entries:
		return nil, Head{}, fmt.Errorf("take the story of %s: it begins after entry %d of chain %s, and %d were told", s.Alone.Host, s.Before.Entries, s.Alone.Chain, at.Entries)
	case s.Before.Entries == at.Entries && s.Before.Hash != at.Hash:
		return fork(at.Entries)
	}
	var fresh []Entry
	last := s.Before
	for _, line := range s.Lines {
		if line.Head.Entries == at.Entries && line.Head.Hash != at.Hash {
			return fork(at.Entries)
		}
		if line.Head.Entries > at.Entries {
			fresh = append(fresh, line.Entry)
		}
		last = line.Head
	}
	if last.Entries < at.Entries {
		last = at
	}
	return fresh, last, nil
}
