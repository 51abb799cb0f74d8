package runbook

import (
	"slices"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
)

// catalogues finds things by name over all adapters.
type catalogues []fettle.Catalogue

func (c catalogues) condition(code fettle.Code) (*fettle.ConditionSpec, bool) {
	for i := range c {
		if s, ok := c[i].FindCondition(code); ok {
			return s, true
		}
	}
	return nil, false
}

func (c catalogues) codes() []string {
	var list []string
	for i := range c {
		for _, s := range c[i].Conditions {
			list = append(list, string(s.Code))
		}
	}
	return list
}

func (c catalogues) action(name string) (*fettle.ActionSpec, bool) {
	for i := range c {
		if s, ok := c[i].FindAction(name); ok {
			return s, true
		}
	}
	return nil, false
}

func (c catalogues) actions() []string {
	var list []string
	for i := range c {
		for _, s := range c[i].Actions {
			list = append(list, s.Name)
		}
	}
	return list
}

func (c catalogues) probe(name string) (*fettle.ProbeSpec, bool) {
	for i := range c {
		for j := range c[i].Probes {
			if c[i].Probes[j].Name == name {
				return &c[i].Probes[j], true
			}
		}
	}
	return nil, false
}

func (c catalogues) probes() []string {
	var list []string
	for i := range c {
		for _, s := range c[i].Probes {
			list = append(list, s.Name)
		}
	}
	return list
}

// facts are the names of the facts of a kind, of every kind when it is "".
func (c catalogues) facts(kind fettle.Kind) []string {
	var list []string
	for i := range c {
		for _, p := range c[i].Probes {
			if kind != "" && p.Kind != kind {
				continue
			}
			for _, f := range p.Facts {
				list = append(list, f.Name)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// factType maps the type of an expression to that of a fact; "" is not known
// before it is evaluated.
func factType(t expr.Type) fettle.FactType {
	switch t {
	case expr.Bool:
		return fettle.BoolFact
	case expr.Int:
		return fettle.IntFact
	case expr.String:
		return fettle.StringFact
	case expr.List:
		return fettle.ListFact
	}
	return ""
}

// TypeName is a type as a person reads it.
func TypeName(t fettle.FactType) string {
	switch t {
	case fettle.BoolFact:
		return "true or false"
	case fettle.IntFact:
		return "a whole number"
	case fettle.StringFact:
		return "text"
	case fettle.ListFact:
		return "a list of texts"
	}
	return "a value of no known type"
}
