package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"fettle/internal/fleet/segment"
)

// holding is what a server says of itself.
type holding struct {
	Offers []string `json:"offers,omitempty"` // names of those that it holds, durably
	Lacks  []string `json:"lacks,omitempty"`  // of the index, and cannot get
	Size   size     `json:"size"`
	Beat   int      `json:"beat,omitempty"` // another one now and then: it is there
}

const (
	// sayEvery is how often a server says anew what it holds, so that the others know that
	// it is there.
	sayEvery = 15 * time.Second
	// quietAfter is how long it may be silent before what it said of its file is too old to
	// go by. One that is away neither holds up the others' writes nor their turns; when it
	// is back its pages are free before it writes.
	quietAfter = 3 * sayEvery
)

// word is what a server said, and since when it says nothing else.
type word struct {
	text string
	at   time.Time
}

// hear notes what a server says.
func (k *Keeper) hear(name, text string) {
	if was, ok := k.heard[name]; !ok || was.text != text {
		k.heard[name] = word{text, k.o.Wall()}
	}
}

// quiet reports whether another server is away.
func (k *Keeper) quiet(name string) bool {
	return name != k.e.name() && k.o.Wall().Sub(k.heard[name].at) > quietAfter
}

// hold makes this server hold all that is in the index or offered, and says so.
func (k *Keeper) hold(ctx context.Context) (map[segment.Kind]segment.Ref, error) {
	offers := map[segment.Kind]segment.Ref{}
	err := k.e.each(ctx, keyOffer, "", func(_ string, value []byte) error {
		r, err := segment.ParseRef(value)
		offers[r.Kind] = r
		return err
	})
	if err != nil {
		return nil, err
	}
	say := holding{}
	if k.e.o.Existing == nil { // of one that all servers share each knows
		say.Size = size{k.e.room.own.SizeInUse(), k.e.room.own.Size()}
	}
	wanted := map[string]bool{}
	for _, kind := range []segment.Kind{segment.Log, segment.Incidents} {
		refs, err := k.e.refs(ctx, kind)
		if err != nil {
			return nil, err
		}
		k.scrub(refs)
		for _, r := range refs {
			wanted[r.Name()] = true
			if !k.has(r) && k.get(ctx, r) != nil {
				say.Lacks = append(say.Lacks, r.Name())
			}
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(offers)) {
		r := offers[kind]
		wanted[r.Name()] = true
		if err := k.durable(ctx, r); err == nil {
			say.Offers = append(say.Offers, r.Name())
		} else if ctx.Err() == nil {
			k.o.Log.Warn("what is to go to a file is not held here yet; it stays in the store", "segment", r.Name(), "error", err)
		}
	}
	if err := k.say(ctx, say); err != nil {
		return nil, err
	}
	k.at("held")
	return offers, k.e.files.Trim(func(name string) bool { return wanted[name] })
}

// scrubEvery is after how many rounds another file is read: one in a minute.
const scrubEvery = 30

// scrub reads one file anew now and then, another one each time.
func (k *Keeper) scrub(refs []segment.Ref) {
	if k.scrubbed++; len(refs) > 0 && k.scrubbed%scrubEvery == 0 {
		k.e.suspect(refs[k.scrubbed/scrubEvery%len(refs)])
	}
}

// has reports whether a segment is here: by its length, and by its content where it is in
// doubt. Whoever reads it looks at all of it.
func (k *Keeper) has(r segment.Ref) bool {
	name := r.Name()
	if k.e.doubts.take(name) {
		_, err := k.e.files.Load(r)
		if k.bad[name] = err != nil; err == nil {
			delete(k.bad, name)
		}
	}
	return k.e.files.Has(r) && !k.bad[name]
}

// durable makes this server hold what is offered, so that it may say so.
func (k *Keeper) durable(ctx context.Context, r segment.Ref) error {
	if k.settled[r.Name()] && k.has(r) {
		return nil
	}
	if err := k.get(ctx, r); err != nil {
		return err
	}
	data, err := k.e.files.Bytes(r)
	if err == nil {
		err = k.e.files.Put(r, data) // what was there already is synced too
	}
	if err == nil {
		k.settled[r.Name()] = true
	}
	return err
}

// get makes this server hold a segment: out of the entries in etcd, as long as they are
// there, or from another server.
func (k *Keeper) get(ctx context.Context, r segment.Ref) error {
	if k.has(r) {
		return nil
	}
	err := errors.New("its lines are not in the store")
	if r.Kind == segment.Log {
		err = k.rebuild(ctx, r)
	}
	if err != nil {
		if ferr := k.e.fetch(ctx, r); ferr != nil {
			return fmt.Errorf("%w; %w", err, ferr)
		}
	}
	delete(k.bad, r.Name())
	return nil
}

// rebuild makes a segment out of the entries in etcd.
func (k *Keeper) rebuild(ctx context.Context, r segment.Ref) error {
	var lines [][]byte
	err := k.e.each(ctx, keyLog, logKey(r.First), func(key string, kept []byte) error {
		if key != logKey(r.First+int64(len(lines))) || key > logKey(r.Last) {
			return fs.SkipAll
		}
		lines = append(lines, slices.Clone(kept))
		return nil
	})
	if err != nil && !errors.Is(err, fs.SkipAll) {
		return err
	}
	if int64(len(lines)) != r.Lines() {
		return fmt.Errorf("%d of its %d entries are in the store", len(lines), r.Lines())
	}
	made, data, err := segment.Make(r.Kind, r.First, r.Before, r.Hash, lines)
	if err == nil && made != r {
		err = fmt.Errorf("the store's entries make %s", made)
	}
	if err != nil {
		return err
	}
	return k.e.files.Put(r, data)
}

// sizeGrain is in how many parts of the quota a size is told: when it has changed by one.
const sizeGrain = 64

// say tells the others what this server holds, where that has changed, and now and then
// that it is there.
func (k *Keeper) say(ctx context.Context, h holding) error {
	if _, several := k.e.self(); several && k.e.o.Existing == nil {
		if now := k.o.Wall(); now.Sub(k.said) >= sayEvery {
			k.beat, k.said = k.beat+1, now
		}
		h.Beat = k.beat
	}
	step := max(1, k.e.o.Limits.Quota/sizeGrain)
	h.Size = size{h.Size.InUse / step * step, h.Size.File / step * step}
	data, err := json.Marshal(h)
	if err != nil || string(data) == k.published {
		return err
	}
	bound, cancel := bounded(ctx)
	defer cancel()
	if _, err := k.e.kv.Put(bound, keyHeld+k.e.name(), string(data)); err != nil {
		return fmt.Errorf("say what this server holds: %w", explain(err))
	}
	k.published = string(data)
	return nil
}

// doubts are segments that somebody found missing or altered: they are looked at anew.
type doubts struct {
	mu    sync.Mutex
	names map[string]bool
}

func (d *doubts) take(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.names[name]
	delete(d.names, name)
	return was
}

func (e *Etcd) suspect(r segment.Ref) {
	e.doubts.mu.Lock()
	defer e.doubts.mu.Unlock()
	if e.doubts.names == nil {
		e.doubts.names = map[string]bool{}
	}
	e.doubts.names[r.Name()] = true
}
