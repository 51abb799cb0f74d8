package fettle_test

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"fettle/internal/fettle"
)

func TestSubject(t *testing.T) {
	for _, c := range []struct {
		kind     fettle.Kind
		segments []string
		want     fettle.Subject
	}{
		{"host", []string{"h1"}, "host:h1"},
		{"unit", []string{"h1", "etcd.service"}, "unit:h1/etcd.service"},
		{"unit", []string{"h1", "getty@tty1.service"}, "unit:h1/getty@tty1.service"},
		{"filesystem", []string{"h1", "/"}, "filesystem:h1/%2F"},
		{"filesystem", []string{"h1", "/var/lib/my data"}, "filesystem:h1/%2Fvar%2Flib%2Fmy%20data"},
		{"etcd-member", []string{"main", "https://[::1]:2380"}, "etcd-member:main/https:%2F%2F%5B::1%5D:2380"},
		{"disk", []string{"h1", "größe%"}, "disk:h1/gr%C3%B6%C3%9Fe%25"},
	} {
		s := fettle.NewSubject(c.kind, c.segments...)
		if s != c.want {
			t.Errorf("NewSubject(%q, %q) = %q, want %q", c.kind, c.segments, s, c.want)
		}
		if got, err := fettle.ParseSubject(string(s)); err != nil || got != s {
			t.Errorf("ParseSubject(%q) = %q, %v", s, got, err)
		}
		if s.Kind() != c.kind || !slices.Equal(s.Segments(), c.segments) {
			t.Errorf("%q is read back as %q %q", s, s.Kind(), s.Segments())
		}
		if s.Root() != c.segments[0] || s.Name() != c.segments[len(c.segments)-1] {
			t.Errorf("%q has root %q and name %q", s, s.Root(), s.Name())
		}
	}
}

func TestNoSubject(t *testing.T) {
	var none fettle.Subject
	if none.Kind() != "" || none.Segments() != nil || none.Root() != "" || none.Name() != "" {
		t.Errorf("the zero subject is something: %q %q %q %q", none.Kind(), none.Segments(), none.Root(), none.Name())
	}
	for text, says := range map[string]string{
		"":                    "want kind:segment",
		"host":                "want kind:segment",
		"host:":               "want kind:segment",
		":h1":                 "want kind:segment",
		"Host:h1":             "may have only",
		"ho st:h1":            "may have only",
		"unit:h1//x":          "empty or badly escaped",
		"unit:h1/":            "empty or badly escaped",
		"unit:/x":             "empty or badly escaped",
		"unit:h1/%zz":         "empty or badly escaped",
		"unit:h1/%2":          "empty or badly escaped",
		"filesystem:h1/a b":   `want "filesystem:h1/a%20b"`,
		"filesystem:h1/%2f":   `want "filesystem:h1/%2F"`, // one spelling only: identities are compared as text
		"filesystem:h1/%61":   `want "filesystem:h1/a"`,
		"filesystem:h1/größe": `want "filesystem:h1/gr%C3%B6%C3%9Fe"`,
	} {
		s, err := fettle.ParseSubject(text)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("ParseSubject(%q): want an error with %q, got %v", text, says, err)
		}
		if s != "" {
			t.Errorf("ParseSubject(%q) refuses it and returns %q", text, s)
		}
	}
}

// FuzzParseSubject: what is accepted is canonical, and names what it says.
func FuzzParseSubject(f *testing.F) {
	for _, s := range []string{"host:h1", "unit:h1/etcd.service", "filesystem:h1/%2Fvar%2Flib", "unit:h1/%zz", "a:%00", "a:%FF", "", ":", "a:b:c/d:e", "x-9:%E2%82%AC"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := fettle.ParseSubject(text)
		if err != nil {
			if s != "" {
				t.Fatalf("%q was refused, and is %q", text, s)
			}
			return
		}
		if string(s) != text {
			t.Fatalf("%q was accepted as %q: one thing with two names", text, s)
		}
		if slices.Contains(s.Segments(), "") || s.Kind() == "" || s.Root() == "" || s.Name() == "" {
			t.Fatalf("%q has an empty part: %q %q", s, s.Kind(), s.Segments())
		}
		if again := fettle.NewSubject(s.Kind(), s.Segments()...); again != s {
			t.Fatalf("%q made anew of its parts is %q", s, again)
		}
	})
}

// FuzzNewSubject: any names make a subject that is read back as these names, and
// two different ones make two subjects.
func FuzzNewSubject(f *testing.F) {
	f.Add("h1", "/var/lib")
	f.Add("a/b", "c")
	f.Add("a", "b/c")
	f.Add("%2F", "%")
	f.Add("\x00", "\xff")
	f.Add("ä", ":")
	f.Fuzz(func(t *testing.T, a, b string) {
		if a == "" || b == "" {
			return
		}
		s := fettle.NewSubject("unit", a, b)
		if got := s.Segments(); !slices.Equal(got, []string{a, b}) {
			t.Fatalf("%q and %q are read back as %q", a, b, got)
		}
		if parsed, err := fettle.ParseSubject(string(s)); err != nil || parsed != s {
			t.Fatalf("NewSubject made %q, which is not accepted: %v", s, err)
		}
		if !utf8.ValidString(string(s)) || strings.ContainsAny(string(s), " \t\n") {
			t.Fatalf("%q is not one printable word", s)
		}
		if fettle.NewSubject("unit", b, a) == s && a != b {
			t.Fatalf("%q and %q have one subject in either order", a, b)
		}
		if fettle.NewSubject("unit", a+"/"+b) == s {
			t.Fatalf("%q/%q is the same as the two apart", a, b)
		}
	})
}

func TestPath(t *testing.T) {
	for _, c := range []struct {
		path, back fettle.Path
		hops       []fettle.Hop
	}{
		{"self", "self", nil},
		{">part-of", "<part-of", []fettle.Hop{{Rel: fettle.PartOf}}},
		{"<uses", ">uses", []fettle.Hop{{Rel: fettle.Uses, Back: true}}},
		{"<runs-on >part-of", "<part-of >runs-on", []fettle.Hop{{Rel: fettle.RunsOn, Back: true}, {Rel: fettle.PartOf}}},
		{">in <in", ">in <in", []fettle.Hop{{Rel: fettle.In}, {Rel: fettle.In, Back: true}}},
	} {
		hops, err := c.path.Hops()
		if err != nil || !slices.Equal(hops, c.hops) {
			t.Errorf("%q: hops %v, %v; want %v", c.path, hops, err, c.hops)
		}
		if got := c.path.Reverse(); got != c.back {
			t.Errorf("%q leads back by %q, want %q", c.path, got, c.back)
		}
	}
	for path, says := range map[fettle.Path]string{
		"": "empty", "  ": "empty", "part-of": "must begin with > or <", ">": "unknown relation", ">eats": "known: runs-on", "> part-of": "unknown relation", "self >in": "must begin",
	} {
		if hops, err := path.Hops(); err == nil || !strings.Contains(err.Error(), says) || hops != nil {
			t.Errorf("path %q: want an error with %q, got %v %v", path, says, hops, err)
		}
		_ = path.Reverse() // malformed: it must not panic
	}
}

// FuzzPath: a path that is accepted is accepted the other way round, with its
// hops turned about, and there and back is the same path.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"self", ">part-of", "<runs-on >part-of", ">", "<", "", "  >in\t<in ", ">ä", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p := fettle.Path(text)
		there, err := p.Hops()
		if err != nil {
			_ = p.Reverse()
			return
		}
		back, err := p.Reverse().Hops()
		if err != nil || len(back) != len(there) {
			t.Fatalf("%q is a path, and its reverse %q is not: %v", p, p.Reverse(), err)
		}
		slices.Reverse(back)
		for i := range back {
			back[i].Back = !back[i].Back
		}
		if !slices.Equal(there, back) {
			t.Fatalf("%q there is %v, and back %v", p, there, back)
		}
		again, err := p.Reverse().Reverse().Hops()
		if err != nil || !slices.Equal(there, again) {
			t.Fatalf("%q reversed twice is %v: %v", p, again, err)
		}
	})
}
