package condition

import (
	"testing"

	"fettle/internal/fettle"
)

// TestPick: what a rule read is what was there, and yes and no are kept once.
func TestPick(t *testing.T) {
	p := picks{}
	flags := &spec{reads: []string{"dead", "hung"}}
	other := &spec{reads: []string{"dead"}}
	texts := &spec{reads: []string{"dead", "why"}}
	many := &spec{reads: []string{"a", "b", "c", "d", "e"}}
	for _, c := range []struct {
		sp          *spec
		facts, want fettle.Facts
		kept        int
	}{
		{flags, fettle.Facts{"dead": true, "hung": false, "why": "x"}, fettle.Facts{"dead": true, "hung": false}, 1},
		{flags, fettle.Facts{"dead": true, "hung": false, "why": "y"}, fettle.Facts{"dead": true, "hung": false}, 1},
		{flags, fettle.Facts{"dead": true}, fettle.Facts{"dead": true}, 2},
		{other, fettle.Facts{"dead": true}, fettle.Facts{"dead": true}, 3},
		{texts, fettle.Facts{"dead": true, "why": "x"}, fettle.Facts{"dead": true, "why": "x"}, 3},
		{texts, fettle.Facts{"dead": true, "why": "y"}, fettle.Facts{"dead": true, "why": "y"}, 3},
		{many, fettle.Facts{"e": true}, fettle.Facts{"e": true}, 3},
		{&spec{}, fettle.Facts{"e": true}, nil, 3},
	} {
		if got := p.pick(c.sp, c.facts); !got.Equal(c.want) || len(p) != c.kept {
			t.Errorf("of %v it reads %v, and %d are kept; want %v and %d", c.facts, got, len(p), c.want, c.kept)
		}
	}
}
