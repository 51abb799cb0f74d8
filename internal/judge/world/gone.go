package world

import (
	"time"

	"fettle/internal/fettle"
)

// graves remember for a while when an observer said that a subject is gone, so
// that an older observation that comes in late does not bring it back. The zero
// value is empty.
type graves struct {
	at     map[grave]time.Time
	order  []burial  // as they came
	newest time.Time // the latest that anything was asked for
}

type grave struct {
	subject fettle.Subject
	by      fettle.Observer
}

type burial struct {
	grave
	at time.Time
}

// graveAge is how long after a subject was gone an observation of it may still
// be under way. Probes end within seconds and agents send what is, not what
// was, so minutes are plenty; without an end units that come and go would fill
// the memory.
const graveAge = 10 * time.Minute

// after reports whether the observation was asked for before its observer said
// that the subject is gone.
func (g *graves) after(o fettle.Observation) bool {
	if o.Asked.After(g.newest) {
		g.newest = o.Asked
	}
	at, ok := g.at[grave{o.Subject, o.Observer()}]
	return ok && o.Asked.Before(at)
}

// bury notes that the observation says Gone.
func (g *graves) bury(o fettle.Observation) {
	for len(g.order) > 0 && g.newest.Sub(g.order[0].at) > graveAge {
		if first := g.order[0]; g.at[first.grave].Equal(first.at) { // not buried again since
			delete(g.at, first.grave)
		}
		g.order = g.order[1:]
	}
	if g.at == nil {
		g.at = map[grave]time.Time{}
	}
	b := burial{grave{o.Subject, o.Observer()}, o.Asked}
	g.at[b.grave] = b.at
	g.order = append(g.order, b)
}
