package expr

import (
	"fmt"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// shape is a record with declared fields: the facts of one probe, the parameters
// of one action. Its values are map[string]any at run time; only the checker and
// the field access know the declared types.
type shape struct {
	name   string // a CEL type name that nobody can write, since it has blanks
	fields map[string]*types.FieldType
}

// newShape makes a shape. noun says what a field is ("fact", "output"), for the
// reason when it is absent.
func newShape(name, noun string, fields map[string]*types.Type) *shape {
	s := &shape{name: name, fields: make(map[string]*types.FieldType, len(fields))}
	// any order: each entry is put under its own key
	for field, typ := range fields {
		absent := fmt.Errorf("%s %q is not known", noun, field)
		s.fields[field] = &types.FieldType{
			Type: typ,
			IsSet: func(target any) bool {
				m, _ := target.(map[string]any)
				_, ok := m[field]
				return ok
			},
			GetFrom: func(target any) (any, error) {
				m, _ := target.(map[string]any)
				if v, ok := m[field]; ok {
					return v, nil
				}
				return nil, absent
			},
		}
	}
	return s
}

func (s *shape) typ() *types.Type { return types.NewObjectType(s.name) }

// provider adds shapes to CEL's own types.
type provider struct {
	types.Provider
	shapes map[string]*shape
}

// with returns a provider that knows these shapes too; p is left as it is.
func (p *provider) with(shapes ...*shape) *provider {
	q := &provider{Provider: p.Provider, shapes: make(map[string]*shape, len(p.shapes)+len(shapes))}
	// any order: each entry is put under its own key
	for name, s := range p.shapes {
		q.shapes[name] = s
	}
	for _, s := range shapes {
		q.shapes[s.name] = s
	}
	return q
}

// FindStructType implements types.Provider.
func (p *provider) FindStructType(name string) (*types.Type, bool) {
	if s, ok := p.shapes[name]; ok {
		return types.NewTypeTypeWithParam(s.typ()), true
	}
	return p.Provider.FindStructType(name)
}

// FindStructFieldNames implements types.Provider.
func (p *provider) FindStructFieldNames(name string) ([]string, bool) {
	if s, ok := p.shapes[name]; ok {
		return sortedKeys(s.fields), true
	}
	return p.Provider.FindStructFieldNames(name)
}

// FindStructFieldType implements types.Provider.
func (p *provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	if s, ok := p.shapes[name]; ok {
		f, ok := s.fields[field]
		return f, ok
	}
	return p.Provider.FindStructFieldType(name, field)
}

// NewValue implements types.Provider. A shape is only ever read.
func (p *provider) NewValue(name string, fields map[string]ref.Val) ref.Val {
	if _, ok := p.shapes[name]; ok {
		return types.NewErr("%s cannot be made", name)
	}
	return p.Provider.NewValue(name, fields)
}
