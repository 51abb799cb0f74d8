package plan

import (
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"fettle/internal/fettle"
	"fettle/internal/judge/runbook/pretend"
	"fettle/internal/judge/world"
)

func TestFill(t *testing.T) {
	late := func(typ fettle.FactType) fettle.Step {
		return fettle.Step{ID: "start", Action: "ring.start", Target: "ring-member:r/c", Params: fettle.Facts{"x": "y"},
			Late: []fettle.Late{{Param: "id", Step: "add", Output: "new", Type: typ}}}
	}
	done := func(v fettle.Value) map[string]fettle.Facts { return map[string]fettle.Facts{"add": {"new": v}} }
	for name, c := range map[string]struct {
		step  fettle.Step
		steps map[string]fettle.Facts
		err   string
	}{
		"text":          {late(fettle.StringFact), done("7"), ""},
		"number":        {late(fettle.IntFact), done(int64(7)), ""},
		"truth":         {late(fettle.BoolFact), done(true), ""},
		"list":          {late(fettle.ListFact), done([]string{"7"}), ""},
		"another type":  {late(fettle.StringFact), done(int64(7)), "parameter id: output new of step add is a whole number, wanted text"},
		"no type":       {late(fettle.IntFact), done(7.5), "is a value of no known type, wanted a whole number"},
		"no output":     {late(fettle.StringFact), map[string]fettle.Facts{"add": {}}, "parameter id waits for output new of step add, which did not come"},
		"no step":       {late(fettle.StringFact), nil, "did not come"},
		"nothing to do": {fettle.Step{Params: fettle.Facts{"id": "7"}}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Fill(c.step, c.steps)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || fettle.ClassOf(err) != fettle.Refused {
					t.Errorf("got %v, want %q, refused", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := fettle.Value("7")
			if len(c.step.Late) > 0 {
				want = c.steps["add"]["new"]
			}
			if len(got.Late) > 0 || !fettle.EqualValue(got.Params["id"], want) {
				t.Errorf("%+v", got)
			}
			if len(c.step.Late) > 0 && (len(c.step.Params) != 1 || got.Params["x"] != "y") {
				t.Error("the step that was given was changed, or a parameter is lost")
			}
			again, err := Fill(got, nil)
			if err != nil || !reflect.DeepEqual(again, got) {
				t.Error("to fill what is filled changes it")
			}
		})
	}
}

// A hash tells every plan from every other: whatever leaf of a plan is changed,
// its hash is another, except the hash itself.
func TestHashCoversEverything(t *testing.T) {
	base, err := Make(input(file(t, "data_lost.yaml"), lost(), 0))
	if err != nil {
		t.Fatal(err)
	}
	base.Loses = "something"
	base.Predicted[0].NotLeader = []fettle.Subject{"ring-member:r/a"}
	paths := leaves(reflect.ValueOf(base), nil)
	if len(paths) < 100 {
		t.Fatalf("only %d leaves", len(paths))
	}
	rapid.Check(t, func(rt *rapid.T) {
		path := rapid.SampledFrom(paths).Draw(rt, "path")
		changed := deepCopy(reflect.ValueOf(base))
		mutate(rt, changed, path)
		p := changed.Interface().(fettle.Plan)
		isHash := len(path) == 1 && path[0] == fieldIndex(base, "Hash")
		if same := Hash(p) == Hash(base); same != isHash {
			rt.Fatalf("changed %v: the same hash %v", path, same)
		}
	})
	// Every leaf, not only those that were drawn.
	for _, path := range paths {
		changed := deepCopy(reflect.ValueOf(base))
		mutate(nil, changed, path)
		if Hash(changed.Interface().(fettle.Plan)) == Hash(base) && (len(path) != 1 || path[0] != fieldIndex(base, "Hash")) {
			t.Errorf("changed %v: the same hash", path)
		}
	}
}

func fieldIndex(v any, name string) int {
	f, _ := reflect.TypeOf(v).FieldByName(name)
	return f.Index[0]
}

// leaves are the ways to every value that holds no other. An empty slice, map or
// pointer is a leaf too: it can be filled.
func leaves(v reflect.Value, at []any) [][]any {
	at = append([]any(nil), at...)
	var list [][]any
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			list = append(list, leaves(v.Field(i), append(at, i))...)
		}
		return list
	case reflect.Slice:
		for i := range v.Len() {
			list = append(list, leaves(v.Index(i), append(at, i))...)
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			list = append(list, append(append([]any(nil), at...), k.String()))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			return leaves(v.Elem(), append(at, "*"))
		}
	}
	return append(list, at)
}

func deepCopy(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			out.Field(i).Set(deepCopy(v.Field(i)))
		}
	case reflect.Slice:
		if !v.IsNil() {
			out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
			for i := range v.Len() {
				out.Index(i).Set(deepCopy(v.Index(i)))
			}
		}
	case reflect.Map:
		if !v.IsNil() {
			out.Set(reflect.MakeMap(v.Type()))
			for _, k := range v.MapKeys() {
				out.SetMapIndex(k, v.MapIndex(k))
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			out.Set(reflect.New(v.Type().Elem()))
			out.Elem().Set(deepCopy(v.Elem()))
		}
	default:
		out.Set(v)
	}
	return out
}

// mutate makes what stands at the end of a path another value.
func mutate(rt *rapid.T, v reflect.Value, path []any) {
	if len(path) > 0 {
		switch step := path[0].(type) {
		case string:
			if v.Kind() == reflect.Pointer {
				mutate(rt, v.Elem(), path[1:])
				return
			}
			v.SetMapIndex(reflect.ValueOf(step), reflect.ValueOf("changed"))
			return
		case int:
			if v.Kind() == reflect.Struct {
				mutate(rt, v.Field(step), path[1:])
			} else {
				mutate(rt, v.Index(step), path[1:])
			}
			return
		}
	}
	switch v.Kind() {
	case reflect.String:
		add := "x"
		if rt != nil {
			add = rapid.StringN(1, 5, 20).Draw(rt, "added")
		}
		v.SetString(v.String() + add)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int8: // a Tri: one of the other two
		v.SetInt((v.Int()+2)%3 - 1)
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	case reflect.Map:
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
		v.SetMapIndex(reflect.ValueOf("another"), reflect.ValueOf("value"))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Interface:
		v.Set(reflect.ValueOf("changed"))
	default:
		panic("a plan has a " + v.Kind().String() + ", which this test cannot change")
	}
}

// The same input gives the same plan, whatever order the observations came in.
func TestMakeIsDeterministic(t *testing.T) {
	book := file(t, "data_lost.yaml")
	first, err := Make(input(book, lost(), 0))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		p, err := Make(input(book, shuffled(rt), 0))
		if err != nil {
			rt.Fatal(err)
		}
		if p.Hash != first.Hash || !reflect.DeepEqual(p, first) {
			rt.Fatalf("another plan:\n%+v\n%+v", first, p)
		}
	})
	if again, err := Make(input(file(t, "data_lost.yaml"), lost(), 0)); err != nil || again.Hash != first.Hash {
		t.Errorf("with a runbook that was read again: %v %s", err, again.Hash)
	}
}

func shuffled(rt *rapid.T) *world.World {
	w := world.New()
	for _, o := range rapid.Permutation(pretend.Observations(now)).Draw(rt, "observations") {
		w.Observe(o)
	}
	return w
}

// A plan is made in the way of a repair: from the kill to the start job there
// are ten milliseconds for everything.
func BenchmarkMake(b *testing.B) {
	book := file(b, "data_lost.yaml")
	w := lost()
	for b.Loop() {
		if _, err := Make(input(book, w, 0)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPredict(b *testing.B) {
	env := ring(b)
	w := lost()
	s := step("ring.remove", pretend.Name("c"))
	for b.Loop() {
		if _, _, err := Predict(w, s, nil, nil, env); err != nil {
			b.Fatal(err)
		}
	}
}
