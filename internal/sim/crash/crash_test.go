package crash

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// calm runs a scenario with nobody dying.
func (s *scenario) calm(ctx context.Context, dir string) (outcome, []moment, error) {
	st, err := s.play(ctx, dir, death{})
	if err != nil {
		partial, perr := s.inspect(ctx, dir, st)
		return outcome{}, nil, fmt.Errorf("%w (%v)\n%s\n%s", err, perr, partial, logs(dir))
	}
	o, err := s.inspect(ctx, dir, st)
	if err != nil {
		return outcome{}, nil, err
	}
	moments, err := met(dir)
	return o, moments, err
}

func TestCalm(t *testing.T) {
	for _, s := range scenarios(t) {
		t.Run(s.name, func(t *testing.T) {
			start := time.Now()
			o, moments, err := s.calm(t.Context(), filepath.Join(t.TempDir(), "run"))
			if err != nil {
				t.Fatal(err)
			}
			t.Log(time.Since(start), "\n"+o.String(), toJSONs(o.state))
			for _, m := range moments {
				t.Log(m)
			}
		})
	}
}

func toJSONs(v any) string { return string(toJSON(v)) }
