package loop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
	"fettle/internal/machine"
)

// flushAfter bounds how long a change of a record that nothing rests on (a
// folded refusal, a note) may wait for company before it is made durable.
const flushAfter = 50 * time.Millisecond

// answerMargin is how long past a step's own timeout its outcome is waited for:
// the way there and back.
const answerMargin = 2 * time.Second

// Options is what a Loop runs with. All fields but OnChange and OnInput are
// needed.
type Options struct {
	Mind  *incident.Mind
	Store Store
	Hands Hands
	Clock machine.Clock
	// OnChange is told of every change of an incident, with the events that are
	// new since the last call. It is called by Run's goroutine and must not block.
	OnChange func(incident.Record, []fettle.Event)
	// OnInput is shown every input before it is taken: a recording of them can be
	// replayed. It is called by Run's goroutine and must not block.
	OnInput func(incident.Input)
	// OnCall is told when a person is called. It must not block.
	OnCall func(incidentID, text string)
}

// Loop drives a mind. Feed and the methods for people may be called from any
// goroutine while Run runs.
type Loop struct {
	o     Options
	token fettle.Token

	mu     sync.Mutex
	queue  []item
	awake  chan struct{} // holds one token while the queue is not empty
	closed bool

	// Owned by Run's goroutine.
	told     map[string]int             // events of a record already in the log
	pending  map[string]incident.Record // to be saved
	entries  []Entry                    // to be logged
	freeze   *guard.Freeze              // to be kept; with thaw, what was said last
	thaw     bool
	windows  *[]guard.Window // of maintenance, to be kept
	merged   map[fettle.Subject]Merged
	mergedAt map[fettle.Subject]bool    // to be kept
	settled  []string                   // intents to be forgotten
	sent     map[string]fettle.Dispatch // as they were sent, until their outcome is known
	flushAt  time.Time
	hands    sync.WaitGroup
}

// item is an input, or a question about the mind, in the order of arrival.
type item struct {
	in    incident.Input
	query func(*incident.Mind)
	note  *note
	story *merging
}

// New returns a loop that does nothing until Run.
func New(o Options) *Loop {
	return &Loop{o: o, awake: make(chan struct{}, 1), told: map[string]int{}, sent: map[string]fettle.Dispatch{}, pending: map[string]incident.Record{},
		merged: map[fettle.Subject]Merged{}, mergedAt: map[fettle.Subject]bool{}}
}

// Feed puts an input in the queue. Its time is set when it is taken. After Run
// has returned inputs are dropped.
func (l *Loop) Feed(in incident.Input) { l.put(item{in: in}) }

func (l *Loop) put(it item) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.queue = append(l.queue, it)
	select {
	case l.awake <- struct{}{}:
	default:
	}
	return true
}

// ErrStopped is returned to those who ask a loop that does not run any more.
var ErrStopped = errors.New("the loop has stopped")

// Ask runs f on the mind between two inputs, and waits for it.
func (l *Loop) Ask(ctx context.Context, f func(*incident.Mind)) error {
	done := make(chan struct{})
	if !l.put(item{query: func(m *incident.Mind) { f(m); close(done) }}) {
		return ErrStopped
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Answer gives a person's answer to an incident, after checking that it can be
// taken.
func (l *Loop) Answer(ctx context.Context, a incident.Answer) error {
	var refused error
	err := l.Ask(ctx, func(m *incident.Mind) { refused = m.CheckAnswer(a) })
	if err != nil {
		return err
	}
	if refused != nil {
		return refused
	}
	l.Feed(incident.Input{Answer: &a})
	return nil
}

// Run loads what the store holds, goes on from there and drives the mind until
// ctx ends or the store says that another server leads. It returns when all
// that it started has returned.
func (l *Loop) Run(ctx context.Context) error {
	state, err := l.o.Store.Load(ctx)
	if err != nil {
		return fmt.Errorf("load what the store holds: %w", err)
	}
	l.token = state.Token
	l.restore(state)
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		l.hands.Wait()
	}()
	l.entries = append(l.entries, Entry{At: l.o.Clock.Now(), Kind: "start", Text: fmt.Sprintf("started with %d incidents and %d intents in flight", len(state.Records), len(state.Intents))})
	if err := l.take(ctx, incident.Input{}); err != nil {
		return err
	}
	for {
		if err := l.wait(ctx); err != nil {
			return l.last(err)
		}
		for _, it := range l.drain() {
			if it.query != nil {
				it.query(l.o.Mind)
				continue
			}
			if it.story != nil {
				if err := l.merge(ctx, it.story); err != nil {
					return l.last(err)
				}
				continue
			}
			if it.note != nil {
				if err := l.keep(ctx, it.note); err != nil {
					return l.last(err)
				}
				continue
			}
			if err := l.take(ctx, it.in); err != nil {
				return l.last(err)
			}
		}
	}
}

func (l *Loop) restore(state State) {
	for _, r := range state.Records {
		l.told[r.ID] = len(r.Story)
	}
	for _, m := range state.Merged {
		l.merged[m.Host] = m
	}
	l.o.Mind.Restore(state.Records, state.Freeze)
	l.o.Mind.RestoreWindows(state.Windows)
	flying := map[string]bool{}
	for _, r := range state.Records {
		if !r.State.Ended() {
			flying[r.Progress.Key] = true
		}
	}
	for _, in := range state.Intents {
		l.sent[in.Dispatch.Key] = in.Dispatch
		if !flying[in.Dispatch.Key] {
			l.settled = append(l.settled, in.Dispatch.Key)
		}
	}
}

// wait blocks until there is an input, the mind's next time has come or a save
// is due; a time that has come is put in the queue as an empty input.
func (l *Loop) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	at, ok := l.o.Mind.Next()
	if !l.flushAt.IsZero() && (!ok || l.flushAt.Before(at)) {
		at, ok = l.flushAt, true
	}
	if !ok {
		select {
		case <-l.awake:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	timer, stop := l.o.Clock.After(at.Sub(l.o.Clock.Now()))
	defer stop()
	select {
	case <-l.awake:
		return nil
	case <-timer:
		return l.take(ctx, incident.Input{})
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drain empties the queue; observations that follow each other become one input.
func (l *Loop) drain() []item {
	l.mu.Lock()
	list := l.queue
	l.queue = nil
	l.mu.Unlock()
	plain := func(it item) bool { return it.facts() && onlyFacts(it.in) }
	var out []item
	for len(list) > 0 {
		n := 1
		for plain(list[0]) && n < len(list) && plain(list[n]) {
			n++
		}
		out = append(out, together(list[:n]))
		list = list[n:]
	}
	return out
}

// together is one item for several that have nothing but observations and conditions.
func together(list []item) item {
	if len(list) == 1 {
		return list[0]
	}
	observations, conditions := 0, 0
	for _, it := range list {
		observations += len(it.in.Observations)
		conditions += len(it.in.Conditions)
	}
	one := list[0]
	one.in.Observations = make([]fettle.Observation, 0, observations)
	one.in.Conditions = make([]fettle.Condition, 0, conditions)
	for _, it := range list {
		one.in.Observations = append(one.in.Observations, it.in.Observations...)
		one.in.Conditions = append(one.in.Conditions, it.in.Conditions...)
	}
	return one
}

func onlyFacts(in incident.Input) bool {
	return in.Gathered == "" && in.Outcome == nil && in.Answer == nil && in.Freeze == nil && !in.Thaw && !maintains(in) && in.Leader == nil && in.Policy == nil && len(in.Forget) == 0
}

// take feeds one input and carries out what follows.
func (l *Loop) take(ctx context.Context, in incident.Input) error {
	in.At = l.o.Clock.Now()
	if l.o.OnInput != nil {
		l.o.OnInput(in)
	}
	if in.Outcome != nil && (in.Outcome.Fate == fettle.Done || in.Outcome.Fate == fettle.NeverWillBe) {
		l.settled = append(l.settled, in.Outcome.Key)
		delete(l.sent, in.Outcome.Key)
	}
	l.logInput(in)
	decisions := l.o.Mind.Take(in)
	for _, id := range in.Forget {
		if _, still := l.o.Mind.Incident(id); !still {
			delete(l.told, id)
		}
	}
	return l.carryOut(ctx, in, decisions)
}

// last makes durable what is pending, although the end has come.
func (l *Loop) last(err error) error {
	if errors.Is(err, ErrNotLeader) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second) // the caller's has ended already
	defer cancel()
	if ferr := l.commit(ctx, Txn{}); ferr != nil {
		return errors.Join(err, fmt.Errorf("keep the last changes: %w", ferr))
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// carryOut keeps what must be kept, then starts what the mind decided.
func (l *Loop) carryOut(ctx context.Context, in incident.Input, decisions []incident.Decision) error {
	var txn Txn
	urgent := in.Answer != nil || in.Freeze != nil || in.Thaw || maintains(in)
	if maintains(in) {
		list := l.o.Mind.Windows()
		l.windows = &list
	}
	if in.Freeze != nil || in.Thaw {
		l.freeze, l.thaw = in.Freeze, in.Thaw
	}
	sends := map[string]fettle.Dispatch{}
	for _, d := range decisions {
		switch d.Kind { //exhaustive:enforce
		case incident.Save:
			l.save(*d.Record)
		case incident.Intend:
			dispatch, ok := l.dispatch(d)
			if !ok {
				l.never(d.Key, ErrNoContact)
				continue
			}
			sends[d.Key], l.sent[d.Key] = dispatch, dispatch
			txn.Intents = append(txn.Intents, Intent{At: in.At, Dispatch: dispatch, Claims: d.Claims})
			urgent = true
		case incident.Call:
			if l.o.OnCall != nil {
				l.o.OnCall(d.Incident, d.Text)
			}
		case incident.Gather, incident.Look, incident.Recover:
		}
	}
	if urgent || l.flushDue(in.At) {
		if err := l.commit(ctx, txn); err != nil {
			if errors.Is(err, ErrNotLeader) || ctx.Err() != nil {
				return err
			}
			// The intent is not durable, so the step is not sent (S6). The
			// mind asks again later; what is pending stays pending.
			for _, key := range slices.Sorted(maps.Keys(sends)) {
				delete(l.sent, key)
				l.never(key, fmt.Errorf("its intent could not be made durable: %w", err))
			}
			clear(sends)
			l.flushAt = in.At.Add(time.Second)
		}
	}
	for _, d := range decisions {
		l.start(ctx, d, sends)
	}
	return nil
}

func (l *Loop) never(key string, why error) {
	l.Feed(incident.Input{Outcome: &fettle.Outcome{Schema: 1, Key: key, Fate: fettle.NeverWillBe, Error: why.Error()}})
}

func (l *Loop) flushDue(now time.Time) bool {
	return !l.flushAt.IsZero() && !now.Before(l.flushAt)
}

// save queues a record and its new events.
func (l *Loop) save(r incident.Record) {
	from := min(l.told[r.ID], len(r.Story))
	fresh := r.Story[from:]
	for _, e := range fresh {
		l.entries = append(l.entries, Entry{At: e.At, Kind: string(e.Kind), Incident: r.ID, Text: e.Text, Data: plain(e)})
	}
	l.told[r.ID] = len(r.Story)
	l.pending[r.ID] = r
	if l.flushAt.IsZero() {
		l.flushAt = l.o.Clock.Now().Add(flushAfter)
	}
	if l.o.OnChange != nil {
		l.o.OnChange(r, fresh)
	}
}

// plain is plain data as JSON: there is nothing that could fail.
func plain(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return data
}

// maintains reports whether an input is about windows of maintenance.
func maintains(in incident.Input) bool { return in.Window != nil || in.EndWindow != "" }

func (l *Loop) logInput(in incident.Input) {
	switch {
	case in.Answer != nil:
		l.entries = append(l.entries, Entry{At: in.At, Kind: "answer", Incident: in.Answer.Incident, Text: in.Answer.By + ": " + string(in.Answer.Say) + " " + in.Answer.Plan})
	case in.Freeze != nil:
		l.entries = append(l.entries, Entry{At: in.At, Kind: "freeze", Text: in.Freeze.By + ": " + in.Freeze.Why})
	case in.Thaw:
		l.entries = append(l.entries, Entry{At: in.At, Kind: "thaw", Text: in.ThawBy + ": thawed"})
	case in.Window != nil:
		l.entries = append(l.entries, Entry{At: in.At, Kind: "maintenance", Text: in.Window.By + ": " + in.Window.Text(), Data: plain(in.Window)})
	case in.EndWindow != "":
		l.entries = append(l.entries, Entry{At: in.At, Kind: "maintenance", Text: in.EndedBy + ": ended " + in.EndWindow})
	}
}

// commit writes t together with everything that is pending.
func (l *Loop) commit(ctx context.Context, t Txn) error {
	t.Token = l.token
	for _, id := range slices.Sorted(maps.Keys(l.pending)) {
		t.Records = append(t.Records, l.pending[id])
	}
	for _, host := range slices.Sorted(maps.Keys(l.mergedAt)) {
		t.Merged = append(t.Merged, l.merged[host])
	}
	t.Log, t.Settled, t.Freeze, t.Thaw, t.Windows = l.entries, l.settled, l.freeze, l.thaw, l.windows
	if len(t.Records)+len(t.Log)+len(t.Settled)+len(t.Intents)+len(t.Merged) == 0 && t.Freeze == nil && !t.Thaw && t.Windows == nil {
		l.flushAt = time.Time{}
		return nil
	}
	if err := l.o.Store.Commit(ctx, t); err != nil {
		return l.refused(ctx, err)
	}
	clear(l.pending)
	clear(l.mergedAt)
	l.entries, l.settled, l.flushAt = nil, nil, time.Time{}
	l.freeze, l.thaw, l.windows = nil, false, nil
	return nil
}
