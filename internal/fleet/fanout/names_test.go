package fanout_test

import (
	"slices"
	"strings"
	"testing"

	"fettle/internal/fleet/fanout"
)

func TestFold(t *testing.T) {
	for _, c := range []struct{ names, want string }{
		{"web1 web2 web3", "web[1-3]"},
		{"web3 web1 web14 web2 db1", "db1,web[1-3,14]"},
		{"web01 web02 web10", "web[01-02,10]"},
		{"web08 web09 web10 web11", "web[08-11]"},
		{"web8 web08 web9 web10", "web[8-9,08,10]"},
		{"web99 web100", "web[99-100]"},
		{"r1n1 r1n2 r2n1 r2n2", "r[1-2]n[1-2]"},
		{"r1n1 r1n2 r2n1", "r1n[1-2],r2n1"},
		{"10.0.0.1 10.0.0.2", "10.0.0.[1-2]"},
		{"a.example b.example", "a.example,b.example"},
		{"x1 x1 x1", "x1"},
		{"n12345678901234567890 n12345678901234567891", "n12345678901234567890,n12345678901234567891"},
		{"", ""},
	} {
		if got := fanout.Fold(strings.Fields(c.names)); got != c.want {
			t.Errorf("Fold(%s) = %s, want %s", c.names, got, c.want)
		}
	}
}

func TestExpand(t *testing.T) {
	for _, c := range []struct{ pattern, want string }{
		{"web[1-3,7]", "web1 web2 web3 web7"},
		{"web[01-03]", "web01 web02 web03"},
		{"r[1-2]n[1-2]", "r1n1 r1n2 r2n1 r2n2"},
		{"plain", "plain"},
	} {
		got, err := fanout.Expand(c.pattern)
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("Expand(%s) = %v, %v, want %s", c.pattern, got, err, c.want)
		}
	}
	for pattern, want := range map[string]string{
		"web[1-3":             "without a ]",
		"web]":                "without a [",
		"web[]":               "no set of numbers",
		"web[a-b]":            "no set of numbers",
		"web[3-1]":            "write [1-3]",
		"web[01-3]":           "same number",
		"w[1-999999]":         "more than 100000",
		"w[1-999]x[1-999]":    "more than 100000",
		"w[1-99999999999999]": "no set of numbers",
	} {
		if got, err := fanout.Expand(pattern); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Expand(%s) = %v, %v, want an error with %q", pattern, got, err, want)
		}
	}
}

// FuzzFold: what is folded unfolds to the same names, whatever they are.
func FuzzFold(f *testing.F) {
	f.Add("web1 web2 web10 db-01 db-02 db-10")
	f.Add("r1n1 r1n02 r2n1 r2n02 10.0.0.1 fe80::1%eth0")
	f.Add("a00 a0 a1 a01 a001 a9 a10 a99 a100")
	f.Fuzz(func(t *testing.T, text string) {
		var names []string
		for _, n := range strings.Fields(text) {
			if fanout.CheckName(n) == nil {
				names = append(names, n)
			}
		}
		folded := fanout.Fold(names)
		got, err := fanout.Unfold(folded)
		if err != nil {
			t.Fatalf("%q folds to %q, which does not unfold: %v", names, folded, err)
		}
		want := slices.Compact(slices.Sorted(slices.Values(names)))
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%q folds to %q, which is %q", want, folded, got)
		}
	})
}

// FuzzUnfold: no text harms, and what unfolds folds to the same set.
func FuzzUnfold(f *testing.F) {
	for _, s := range []string{"web[1-3,7],db1", "r[1-2]n[01-12]", "[1-3]", "a[", "]", "a[1-2]b[3]c[4,5-6]", "a[[1]]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		names, err := fanout.Unfold(text)
		if err != nil || len(names) > 2000 {
			return
		}
		for _, n := range names {
			if fanout.CheckName(n) != nil {
				return
			}
		}
		again, err := fanout.Unfold(fanout.Fold(names))
		if err != nil {
			t.Fatal(err)
		}
		want := slices.Compact(slices.Sorted(slices.Values(names)))
		slices.Sort(again)
		if !slices.Equal(again, want) {
			t.Errorf("%q: %q is not %q", text, again, want)
		}
	})
}
