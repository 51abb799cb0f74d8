package condition

import (
	"strings"
	"testing"

	"fettle/internal/fettle"
)

func FuzzTitle(f *testing.F) {
	for _, seed := range []string{"", "x", "{a}", "{a} and {b}", "{", "}", "{}", "{{a}}", "a}{b", "{a", "ü{a}ü"} {
		f.Add(seed)
	}
	facts := []fettle.FactSpec{{Name: "a", Type: fettle.IntFact}, {Name: "b", Type: fettle.StringFact}}
	f.Fuzz(func(t *testing.T, src string) {
		parsed, err := parseTitle(src, facts)
		if err != nil {
			if !strings.Contains(src, "{") {
				t.Errorf("%q without placeholders: %v", src, err)
			}
			return
		}
		want := strings.NewReplacer("{a}", "7", "{b}", "?").Replace(src)
		if got := parsed.fill(fettle.Facts{"a": int64(7)}); got != want {
			t.Errorf("%q filled in: %q, want %q", src, got, want)
		}
	})
}
