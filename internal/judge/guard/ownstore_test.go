package guard

import (
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
)

// TestOwnStore: what is refused says why and what would lift it, and what is next to the
// store, or was taken for it, is mended.
func TestOwnStore(t *testing.T) {
	v := ownStore(on(storeIn(threeMembers(time.Second, up, up, up), "g1", "g1")))
	if v.Allow || !strings.Contains(v.Why, string(group)) || !strings.Contains(v.Why, "never mends by itself") || !strings.Contains(v.Lifts, "by hand") || !strings.Contains(v.Arithmetic, "g1") {
		t.Errorf("%+v", v)
	}
	onHost := func(takes ...fettle.Taking) Question {
		q := on(storeIn(threeMembers(time.Second, up, up, up), "g1", "g1"))
		q.Step.Target, q.Step.Group, q.Step.Claims, q.Step.Takes = host, "", nil, takes
		return q
	}
	elsewhere := onUnit(storeIn(threeMembers(time.Second, up, up, up), "g1", "g1"))
	elsewhere.Step.Target = "unit:h1/web.service"
	stranger := on(storeIn(threeMembers(time.Second, up, up, up), "g1", ""))
	stranger.Step.Group, stranger.Step.Target, stranger.Step.Claims = "queue:main", "queue-member:main/a", nil
	for name, c := range map[string]struct {
		q    Question
		want bool
	}{
		"a store of the servers' own":               {on(threeMembers(time.Second, up, up, up)), true},
		"another group of that kind":                {on(storeIn(threeMembers(time.Second, up, up, up), "g1", "g2")), true},
		"a group of another kind, without a name":   {stranger, true},
		"a unit that no member hangs on":            {elsewhere, true},
		"a host, of which nothing is taken":         {onHost(), true},
		"a host, of which a member's life is taken": {onHost(fettle.TakesCapacity), false},
	} {
		if v := ownStore(c.q); v.Allow != c.want {
			t.Errorf("%s: %+v", name, v)
		}
	}
}
