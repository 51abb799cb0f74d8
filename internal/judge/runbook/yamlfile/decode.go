package yamlfile

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Decode reads src into the struct that dst points to. The report has every
// problem found; dst is filled as far as the file can be understood, so that
// its meaning can be checked too and people see all that is wrong at once.
// Parsed is false when there is nothing to check: the file is not YAML.
//
// A dst of a shape that the package comment does not describe panics: that is a
// defect of the program, found by its first test.
func Decode(file string, src []byte, dst any) (report *Report, parsed bool) {
	d := &decoder{report: NewReport(file, src)}
	root := parse(src, d.report)
	if root == nil {
		return d.report, false
	}
	d.value(root, reflect.ValueOf(dst).Elem(), rule{}, "the file")
	return d.report, true
}

type decoder struct {
	report *Report
}

// rule is what a field's tags demand of its value.
type rule struct {
	required bool
	enum     []string
	pattern  *regexp.Regexp
	minimum  *int
}

func ruleOf(f reflect.StructField) rule {
	var r rule
	for _, word := range strings.Split(f.Tag.Get("jsonschema"), ",") {
		key, val, _ := strings.Cut(word, "=")
		switch key {
		case "required":
			r.required = true
		case "enum":
			r.enum = append(r.enum, val)
		case "pattern":
			r.pattern = regexp.MustCompile(val)
		case "minimum":
			n, err := strconv.Atoi(val)
			if err != nil {
				panic("yamlfile: tag of " + f.Name + ": " + err.Error())
			}
			r.minimum = &n
		}
	}
	return r
}

// value decodes a node into v. what names it in messages.
func (d *decoder) value(n ast.Node, v reflect.Value, r rule, what string) {
	at := nodeAt(n)
	switch dst := v.Addr().Interface().(type) {
	case *Text:
		if t, ok := d.text(n, what, false); ok {
			*dst = t
			d.check(t, r, what)
		}
		return
	case *Expr:
		if t, ok := d.text(n, what, true); ok {
			dst.Text = t
			d.check(t, r, what)
		}
		return
	case *Duration:
		if t, ok := d.text(n, what, true); ok {
			*dst = Duration{d.duration(t, what), at}
		}
		return
	case *Int:
		*dst = Int{d.integer(n, r, what), at}
		return
	case *Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok {
			d.wrong(n, what, "true or false")
			return
		}
		*dst = Bool{b.Value, at}
		return
	case *Value:
		*dst = d.plain(n, what)
		return
	}
	if _, ok := v.Interface().(interface{ isMap() }); ok {
		d.free(n, v, what)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), r, what)
	case reflect.Slice:
		d.list(n, v, r, what)
	case reflect.Struct:
		d.structure(n, v, what)
	default:
		panic("yamlfile: cannot decode into " + v.Type().String())
	}
}

func (d *decoder) list(n ast.Node, v reflect.Value, r rule, what string) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.report.Add(nodeAt(n), "begin each entry with '- ', or write [a, b]", "%s: want a list, found %s", what, found(n))
		return
	}
	if r.required && len(seq.Values) == 0 {
		d.report.Add(nodeAt(n), "", "%s is empty", what)
	}
	r.required = false
	list := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, e := range seq.Values {
		d.value(e, list.Index(i), r, fmt.Sprintf("%s[%d]", what, i))
	}
	v.Set(list)
}

// pairs returns the entries of a mapping with their keys as texts, having
// reported keys that are no texts or are there twice.
func (d *decoder) pairs(n ast.Node, what string) (keys []Text, values []ast.Node, ok bool) {
	var entries []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		entries = m.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{m}
	default:
		d.wrong(n, what, "a mapping")
		return nil, nil, false
	}
	first := map[string]At{}
	for _, e := range entries {
		key, isNode := e.Key.(ast.Node)
		if !isNode {
			continue
		}
		if _, explicit := key.(*ast.MappingKeyNode); explicit {
			d.report.Add(nodeAt(key), "write key: value", "%s: the '? key' form is not read", what)
			continue
		}
		t, isText := d.text(key, "a key of "+what, true)
		if !isText {
			continue
		}
		if at, twice := first[t.Value]; twice {
			d.report.Add(t.At, fmt.Sprintf("the first is on line %d; keep one", at.Line), "%s: key %q is there twice", what, t.Value)
			continue
		}
		first[t.Value] = t.At
		keys, values = append(keys, t), append(values, e.Value)
	}
	return keys, values, true
}

func (d *decoder) free(n ast.Node, v reflect.Value, what string) {
	keys, values, ok := d.pairs(n, what)
	if !ok {
		return
	}
	list := reflect.MakeSlice(v.Type(), len(keys), len(keys))
	for i, k := range keys {
		list.Index(i).FieldByName("Key").Set(reflect.ValueOf(k))
		d.value(values[i], list.Index(i).FieldByName("Value"), rule{}, k.Value)
	}
	v.Set(list)
}

func (d *decoder) structure(n ast.Node, v reflect.Value, what string) {
	switch n.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		if short, ok := v.Addr().Interface().(FromText); ok {
			t, _ := d.text(n, what, false)
			d.check(t, rule{}, what)
			short.FromText(t)
			return
		}
	}
	if p, ok := v.Addr().Interface().(interface{ place(At) }); ok {
		p.place(nodeAt(n))
	}
	if noun, ok := v.Interface().(Noun); ok {
		what = noun.Noun()
	}
	keys, values, ok := d.pairs(n, what)
	if !ok {
		return
	}
	var known []string
	fields := map[string]int{}
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("yaml"); name != "" && name != "-" {
			fields[name] = i
			known = append(known, name)
		}
	}
	for i, k := range keys {
		index, ok := fields[k.Value]
		if !ok {
			d.report.Add(k.At, DidYouMean(k.Value, known), "unknown key %q of %s", k.Value, what)
			continue
		}
		if _, null := values[i].(*ast.NullNode); null {
			d.report.Add(k.At, "give it a value or leave the key out", "%s of %s has no value", k.Value, what)
			continue
		}
		d.value(values[i], v.Field(index), ruleOf(v.Type().Field(index)), k.Value)
	}
	for _, name := range known {
		if ruleOf(v.Type().Field(fields[name])).required && !slices.ContainsFunc(keys, func(k Text) bool { return k.Value == name }) {
			d.report.Add(nodeAt(n), "", "%s needs %s", what, name)
		}
	}
}
