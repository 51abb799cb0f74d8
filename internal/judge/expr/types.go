package expr

import (
	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"fettle/internal/fettle"
)

// Type is the type of an expression's value.
type Type int8

// The types. The zero value is Any: whatever can be a fettle.Value.
const (
	Any Type = iota
	Bool
	Int
	String // text; a subject is text too
	List   // of strings
)

// String returns the type's name as rules and catalogues spell it.
func (t Type) String() string {
	switch t {
	case Bool:
		return "bool"
	case Int:
		return "int"
	case String:
		return "string"
	case List:
		return "list of strings"
	default:
		return "any"
	}
}

// TypeOf returns the type of a declared fact, parameter or output; Any for a
// fact type that it does not know.
func TypeOf(f fettle.FactType) Type {
	switch f {
	case fettle.BoolFact:
		return Bool
	case fettle.IntFact:
		return Int
	case fettle.StringFact:
		return String
	case fettle.ListFact:
		return List
	default:
		return Any
	}
}

// Matches reports whether a value is of the type; every permitted value is of
// type Any.
func (t Type) Matches(v fettle.Value) bool {
	switch v.(type) {
	case bool:
		return t == Any || t == Bool
	case int64:
		return t == Any || t == Int
	case string:
		return t == Any || t == String
	case []string:
		return t == Any || t == List
	default:
		return false
	}
}

func (t Type) cel() *types.Type {
	switch t {
	case Bool:
		return types.BoolType
	case Int:
		return types.IntType
	case String:
		return types.StringType
	case List:
		return stringsType
	default:
		return types.DynType
	}
}

var stringsType = types.NewListType(types.StringType)

// outputType is what a checked expression of CEL type t can be as a value;
// false when it can never be one.
func outputType(t *cel.Type) (Type, bool) {
	switch t.Kind() {
	case types.BoolKind:
		return Bool, true
	case types.IntKind:
		return Int, true
	case types.StringKind:
		return String, true
	case types.DynKind:
		return Any, true
	case types.ListKind:
		switch t.Parameters()[0].Kind() {
		case types.StringKind, types.DynKind, types.TypeParamKind: // the last is the empty list
			return List, true
		}
	}
	return Any, false
}

// native turns a CEL value into a fact's value; false when it is none.
func native(v ref.Val) (fettle.Value, bool) {
	switch v := v.(type) {
	case types.Bool:
		return bool(v), true
	case types.Int:
		return int64(v), true
	case types.String:
		return string(v), true
	case traits.Lister:
		n, _ := v.Size().(types.Int)
		list := make([]string, 0, n)
		for i := range n {
			s, ok := v.Get(i).(types.String)
			if !ok {
				return nil, false
			}
			list = append(list, string(s))
		}
		return list, true
	default:
		return nil, false
	}
}
