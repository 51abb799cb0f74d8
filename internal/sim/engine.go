package sim

import (
	"cmp"
	"container/heap"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"math/rand/v2"
	"slices"
	"sync"
	"testing/synctest"
	"time"
)

// engine lets one event happen after the other. Its methods may be called by any
// goroutine of the bubble; the events run on the one that drives.
type engine struct {
	rng   *rand.Rand // the driver's only
	began time.Time

	mu    sync.Mutex
	fresh []*event // asked for since the last event, in no order yet

	queue queue
	count uint64 // of events that were given a place
	ran   int
	still int // events since time passed
	sum   hash.Hash
	story []string
	trace func(string) // nil: nobody looks on
	each  bool         // the story has every event

	breach sync.Mutex
	broken []Breach
}

// spread is a delay that is drawn when the event is given its place.
type spread struct{ least, most time.Duration }

func exactly(d time.Duration) spread { return spread{d, d} }

func (s spread) draw(r *rand.Rand) time.Duration {
	if s.most <= s.least {
		return max(0, s.least)
	}
	return s.least + time.Duration(r.Int64N(int64(s.most-s.least)))
}

// event is something that happens at a time.
type event struct {
	key   string // says what it is; events that are asked for at once happen in its order
	delay spread
	asked time.Time
	at    time.Time
	place uint64
	run   func()
	off   bool // guarded by engine.mu
}

type queue []*event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if c := q[i].at.Compare(q[j].at); c != 0 {
		return c < 0
	}
	return q[i].place < q[j].place
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*event)) }
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func newEngine(seed uint64, trace func(string)) *engine {
	return &engine{rng: rand.New(rand.NewPCG(seed, 0xfe771e)), began: time.Now(), sum: sha256.New(), trace: trace}
}

// now is the true time.
func (e *engine) now() time.Time { return time.Now() }

// post asks for an event.
func (e *engine) post(key string, delay spread, run func()) *event {
	ev := &event{key: key, delay: delay, asked: e.now(), run: run}
	e.mu.Lock()
	e.fresh = append(e.fresh, ev)
	e.mu.Unlock()
	return ev
}

// cancel makes an event not happen, if it has not.
func (e *engine) cancel(ev *event) {
	e.mu.Lock()
	ev.off = true
	e.mu.Unlock()
}

// arrange gives what was asked for its place.
func (e *engine) arrange() {
	synctest.Wait()
	e.mu.Lock()
	fresh := e.fresh
	e.fresh = nil
	e.mu.Unlock()
	slices.SortStableFunc(fresh, func(a, b *event) int { return cmp.Or(a.asked.Compare(b.asked), cmp.Compare(a.key, b.key)) })
	for _, ev := range fresh {
		e.count++
		ev.place = e.count
		ev.at = ev.asked.Add(ev.delay.draw(e.rng))
		heap.Push(&e.queue, ev)
	}
}

// step lets the next event happen; false when it would be after the end.
func (e *engine) step(end time.Time) bool {
	e.arrange()
	for e.queue.Len() > 0 {
		next := e.queue[0]
		if next.at.After(end) {
			break
		}
		heap.Pop(&e.queue)
		e.mu.Lock()
		off := next.off
		e.mu.Unlock()
		if off {
			continue
		}
		if wait := next.at.Sub(e.now()); wait > 0 {
			time.Sleep(wait) // in the bubble: it is how time passes
			e.still = 0
		} else if e.still++; e.still > 20_000 {
			e.breaks("L", "something goes round and round and time does not pass: %s", next.key)
			return false
		}
		e.ran++
		fmt.Fprintf(e.sum, "%d %s\n", e.now().Sub(e.began), next.key)
		if e.each {
			e.tell("%s", next.key)
		}
		next.run()
		synctest.Wait()
		return true
	}
	if wait := end.Sub(e.now()); wait > 0 {
		time.Sleep(wait)
	}
	return false
}

// tell writes a line of the story.
func (e *engine) tell(format string, args ...any) {
	line := fmt.Sprintf("%9.3fs ", e.now().Sub(e.began).Seconds()) + fmt.Sprintf(format, args...)
	e.breach.Lock()
	defer e.breach.Unlock()
	fmt.Fprintln(e.sum, line)
	e.story = append(e.story, line)
	if e.trace != nil {
		e.trace(line)
	}
}

// Breach is an invariant that was broken.
type Breach struct {
	Invariant string // S1 to S14; L of what must happen in the end
	At        time.Duration
	What      string
}

func (b Breach) String() string { return fmt.Sprintf("%s at %v: %s", b.Invariant, b.At, b.What) }

// breaks notes that an invariant was broken.
func (e *engine) breaks(invariant, format string, args ...any) {
	b := Breach{Invariant: invariant, At: e.now().Sub(e.began), What: fmt.Sprintf(format, args...)}
	e.breach.Lock()
	e.broken = append(e.broken, b)
	e.breach.Unlock()
	e.tell("BROKEN %s: %s", b.Invariant, b.What)
}

func (e *engine) hash() string { return hex.EncodeToString(e.sum.Sum(nil)) }

// clock is a machine.Clock that is wrong by an offset and goes wrong by a rate.
type clock struct {
	e      *engine
	owner  string
	offset time.Duration
	ppm    int64
}

// Now implements machine.Clock.
func (c *clock) Now() time.Time { return c.at(c.e.now()) }

// at is what it shows at a true time.
func (c *clock) at(t time.Time) time.Time {
	gone := t.Sub(c.e.began)
	return t.Add(c.offset + gone/1_000_000*time.Duration(c.ppm)).Round(0).UTC()
}

// Wall implements machine.Clock.
func (c *clock) Wall() time.Time { return c.Now() }

// After implements machine.Clock.
func (c *clock) After(d time.Duration) (<-chan time.Time, func()) {
	ch := make(chan time.Time, 1)
	ev := c.e.post("timer of "+c.owner, exactly(max(d, 0)), func() { ch <- c.Now() })
	return ch, func() { c.e.cancel(ev) }
}
