package fettle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Value is a fact's value: bool, int64, string or []string. Nothing else, and
// above all no float: see the package comment.
type Value = any

// Facts are named values of one subject.
//
// Its JSON is an object with sorted keys; numbers are integers and are read back
// as int64, so that a recorded fact is equal to the live one.
type Facts map[string]Value

// Validate reports the first value that is not one of the permitted types.
func (f Facts) Validate() error {
	for _, k := range slices.Sorted(maps.Keys(f)) {
		switch f[k].(type) {
		case bool, int64, string, []string:
		default:
			return fmt.Errorf("fact %s: type %T; facts are bool, int64, string or []string", k, f[k])
		}
	}
	return nil
}

// Equal reports whether both hold the same names with the same values.
func (f Facts) Equal(g Facts) bool {
	return maps.EqualFunc(f, g, EqualValue)
}

// EqualValue reports whether two values are the same, type and content.
func EqualValue(a, b Value) bool {
	la, ok := a.([]string)
	if !ok {
		if _, isList := b.([]string); isList {
			return false
		}
		return a == b
	}
	lb, ok := b.([]string)
	return ok && slices.Equal(la, lb)
}

// Clone returns a copy that shares nothing changeable with f.
func (f Facts) Clone() Facts {
	if f == nil {
		return nil
	}
	g := make(Facts, len(f))
	for k, v := range f {
		if l, ok := v.([]string); ok {
			v = slices.Clone(l)
		}
		g[k] = v
	}
	return g
}

// Str returns the string fact, and false when it is absent or of another type.
func (f Facts) Str(name string) (string, bool) { s, ok := f[name].(string); return s, ok }

// Int returns the integer fact, and false when it is absent or of another type.
func (f Facts) Int(name string) (int64, bool) { n, ok := f[name].(int64); return n, ok }

// Bool returns the boolean fact, and false when it is absent or of another type.
func (f Facts) Bool(name string) (value, ok bool) { value, ok = f[name].(bool); return value, ok }

// List returns the list fact, and false when it is absent or of another type.
func (f Facts) List(name string) ([]string, bool) { l, ok := f[name].([]string); return l, ok }

// UnmarshalJSON reads an object of permitted values. A fraction, null or nested
// object is an error that names the fact.
func (f *Facts) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var raw map[string]any
	if err := dec.Decode(&raw); err != nil {
		return fmt.Errorf("facts: %w", err)
	}
	if raw == nil {
		*f = nil
		return nil
	}
	out := make(Facts, len(raw))
	for _, k := range slices.Sorted(maps.Keys(raw)) {
		v, err := valueFromJSON(raw[k])
		if err != nil {
			return fmt.Errorf("fact %s: %w", k, err)
		}
		out[k] = v
	}
	*f = out
	return nil
}

func valueFromJSON(raw any) (Value, error) {
	switch v := raw.(type) {
	case bool, string:
		return v, nil
	case json.Number:
		n, err := v.Int64()
		if err != nil {
			return nil, fmt.Errorf("%s is not an integer; facts have no fractions", v)
		}
		return n, nil
	case []any:
		list := make([]string, 0, len(v))
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, fmt.Errorf("list element of type %T; lists hold strings", e)
			}
			list = append(list, s)
		}
		return list, nil
	default:
		return nil, fmt.Errorf("type %T; facts are bool, int64, string or []string", raw)
	}
}

// Tri is an answer of three values. The zero value is Unknown, which is neither
// yes nor no.
type Tri int8

// The three answers.
const (
	Unknown Tri = 0
	Yes     Tri = 1
	No      Tri = -1
)

// TriOf turns a known boolean into a Tri.
func TriOf(b bool) Tri {
	if b {
		return Yes
	}
	return No
}

// String returns "yes", "no" or "unknown".
func (t Tri) String() string {
	switch t {
	case Yes:
		return "yes"
	case No:
		return "no"
	default:
		return "unknown"
	}
}

// MarshalText writes String.
func (t Tri) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what String writes; anything else, a newer peer's fourth
// value for example, becomes Unknown.
func (t *Tri) UnmarshalText(text []byte) error {
	switch string(text) {
	case "yes":
		*t = Yes
	case "no":
		*t = No
	default:
		*t = Unknown
	}
	return nil
}
