package diagnose

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"fettle/internal/fettle"
)

// knowledge is what the catalogues say about causes, with every code, kind and
// path turned into numbers once.
type knowledge struct {
	specs []spec
	codes map[fettle.Code]int32
	kinds map[fettle.Kind]int32
}

// spec is one condition's causal entry.
type spec struct {
	code     fettle.Code
	kind     int32 // no subject has the kind of a code that no catalogue declares
	layer    fettle.Layer
	probe    string
	critical bool
	effects  []effect // what it brings about, from its subject
	causes   []effect // what brings it about, from its subject: the same edges walked backwards
	// carries: it brings something about more surely than sometimes, so it can
	// be an unseen link in a chain.
	carries bool
}

// effect is one causal edge, from either end.
type effect struct {
	spec   int32    // the condition at the other end
	hops   []uint32 // the way to its subject
	surely surety
	within int64 // nanoseconds
}

// surety orders fettle.Surely: a chain is as sure as its weakest edge.
type surety int8

const (
	sometimes surety = iota
	often
	always
)

const none = int32(-1)

func newKnowledge(catalogues []fettle.Catalogue) (*knowledge, error) {
	if err := checkCatalogues(catalogues); err != nil {
		return nil, err
	}
	k := &knowledge{codes: map[fettle.Code]int32{}, kinds: map[fettle.Kind]int32{}}
	joined := fettle.Join(catalogues)
	for _, c := range joined {
		for _, s := range c.Conditions {
			k.codes[s.Code] = int32(len(k.specs))
			k.specs = append(k.specs, spec{
				code: s.Code, kind: k.kind(s.Kind), layer: s.Layer, probe: s.Probe,
				critical: s.Severity == fettle.Critical,
			})
		}
	}
	for _, c := range joined {
		for _, s := range c.Conditions {
			for _, e := range s.Effects {
				k.edge(k.codes[s.Code], e)
			}
		}
	}
	return k, nil
}

// edge adds one causal edge to both of its ends.
func (k *knowledge) edge(from int32, e fettle.EffectOn) {
	hops, _ := e.Path.Hops() // checked before
	there := make([]uint32, len(hops))
	for i, h := range hops {
		there[i], _ = arcMask(h.Rel, h.Back)
	}
	to := k.codes[e.Condition]
	sure := map[fettle.Surely]surety{fettle.Always: always, fettle.Often: often, fettle.Sometimes: sometimes}[e.Surely]
	f, t := &k.specs[from], &k.specs[to]
	f.effects = append(f.effects, effect{spec: to, hops: there, surely: sure, within: int64(e.Within)})
	t.causes = append(t.causes, effect{spec: from, hops: reversed(there), surely: sure, within: int64(e.Within)})
	f.carries = f.carries || sure != sometimes
}

func (k *knowledge) kind(name fettle.Kind) int32 {
	id, ok := k.kinds[name]
	if !ok {
		id = int32(len(k.kinds))
		k.kinds[name] = id
	}
	return id
}

// specOf returns the spec of a code. One that no catalogue declares, a newer
// agent's for example, gets an entry of its own: it is brought about by nothing,
// brings nothing about, and is as dear as the highest layer.
func (k *knowledge) specOf(code fettle.Code) int32 {
	id, ok := k.codes[code]
	if !ok {
		id = int32(len(k.specs))
		k.codes[code] = id
		k.specs = append(k.specs, spec{code: code, kind: none, layer: fettle.Application})
	}
	return id
}

// checkCatalogues reports everything that would make the causal knowledge mean
// something else than what is written.
func checkCatalogues(catalogues []fettle.Catalogue) error {
	owner := map[fettle.Code]string{}
	loaded := map[string]bool{}
	var wrong []error
	for _, c := range catalogues {
		loaded[c.Adapter] = true
		for _, s := range c.Conditions {
			if other, twice := owner[s.Code]; twice {
				wrong = append(wrong, fmt.Errorf("condition %s: declared by %s and by %s; a code has one owner", s.Code, other, c.Adapter))
			}
			owner[s.Code] = c.Adapter
			if s.Code == "" || s.Kind == "" {
				wrong = append(wrong, fmt.Errorf("condition %q of %s: code %q, kind %q; both must be given", s.Code, c.Adapter, s.Code, s.Kind))
			}
			if s.Layer < fettle.Hardware || s.Layer > fettle.Application {
				wrong = append(wrong, fmt.Errorf("condition %s: has no layer; give it one of hardware … application", s.Code))
			}
		}
	}
	for _, c := range catalogues {
		for _, s := range c.Conditions {
			for _, e := range slices.Concat(s.Effects, s.CausedBy) {
				if err := checkEdge(s.Code, e, owner, loaded); err != nil {
					wrong = append(wrong, err)
				}
			}
		}
	}
	return errors.Join(wrong...)
}

func checkEdge(code fettle.Code, e fettle.EffectOn, owner map[fettle.Code]string, loaded map[string]bool) error {
	if _, err := e.Path.Hops(); err != nil {
		return fmt.Errorf("condition %s, edge with %s: %w", code, e.Condition, err)
	}
	adapter, _, _ := strings.Cut(string(e.Condition), ".")
	switch _, declared := owner[e.Condition]; {
	case !declared && loaded[adapter]:
		return fmt.Errorf("condition %s, edge with %s: the catalogue of %s has no such condition", code, e.Condition, adapter)
	case e.Surely != fettle.Always && e.Surely != fettle.Often && e.Surely != fettle.Sometimes:
		return fmt.Errorf("condition %s, edge with %s: surely is %q; want always, often or sometimes", code, e.Condition, e.Surely)
	case e.Within < 0:
		return fmt.Errorf("condition %s, edge with %s: within is %v; an effect does not come before its cause", code, e.Condition, e.Within)
	case e.Condition == code && e.Path == fettle.Self:
		return fmt.Errorf("condition %s: brings itself about; take the edge out", code)
	}
	return nil
}
