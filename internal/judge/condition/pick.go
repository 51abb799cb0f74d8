package condition

import "fettle/internal/fettle"

// pickedMost is how many facts a rule may read for what it read to be kept: each has
// three states, so of more there would be too many combinations to be worth it.
const pickedMost = 4

// picks are the facts that rules read, where those are all yes or no: then there are few
// combinations, and thousands of subjects share each instead of having a map of their
// own. The facts are never changed. It belongs to one evaluator.
type picks map[picked]fettle.Facts

type picked struct {
	spec *spec
	says [pickedMost]fettle.Tri // by the spec's reads; Unknown: it is not there
}

// pick returns those of the facts that a condition's rules read.
func (p picks) pick(sp *spec, facts fettle.Facts) fettle.Facts {
	if len(sp.reads) == 0 {
		return nil
	}
	key, few := picked{spec: sp}, len(sp.reads) <= pickedMost
	for i, name := range sp.reads {
		if !few {
			break
		}
		switch v := facts[name].(type) {
		case nil:
		case bool:
			key.says[i] = fettle.No
			if v {
				key.says[i] = fettle.Yes
			}
		default:
			few = false
		}
	}
	if few {
		if some, ok := p[key]; ok {
			return some
		}
	}
	some := make(fettle.Facts, len(sp.reads))
	for _, name := range sp.reads {
		if v, ok := facts[name]; ok {
			some[name] = v
		}
	}
	if few {
		p[key] = some
	}
	return some
}
