package member

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// drawPlaces draws a fleet: some zones, racks of uneven sizes, some hosts of which
// nobody told where they stand.
func drawPlaces(t *rapid.T) []Place {
	zones := rapid.IntRange(1, 4).Draw(t, "zones")
	racks := rapid.IntRange(1, 12).Draw(t, "racks per zone")
	size := rapid.IntRange(0, 1500).Draw(t, "hosts")
	untold := rapid.IntRange(0, 30).Draw(t, "untold in a hundred")
	seed := rapid.Uint64().Draw(t, "seed")
	places := make([]Place, size)
	for i := range places {
		h := mix(seed + uint64(i))
		p := Place{Host: fmt.Sprintf("h%05d", i), Zone: fmt.Sprintf("z%d", h%uint64(zones)), Rack: fmt.Sprintf("r%d", h>>8%uint64(racks))}
		switch {
		case int(h>>32%100) < untold:
			p.Zone, p.Rack = "", ""
		case int(h>>40%100) < untold:
			p.Rack = ""
		}
		places[i] = p
	}
	return places
}

func TestRingsProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		places := drawPlaces(t)
		limit := rapid.SampledFrom([]int{10, 50, 200}).Draw(t, "limit")
		rings, err := Rings(places, limit)
		if err != nil {
			t.Fatal(err)
		}
		// Everybody is in one ring, and none is too big.
		in := map[string]int{}
		least, most := len(places), 0
		for i, ring := range rings {
			least, most = min(least, len(ring)), max(most, len(ring))
			for _, host := range ring {
				if _, twice := in[host]; twice {
					t.Fatalf("%s is in two rings", host)
				}
				in[host] = i
			}
		}
		if len(in) != len(places) || most > limit {
			t.Fatalf("%d of %d hosts are in rings, the biggest has %d of %d", len(in), len(places), most, limit)
		}
		// Balance: none has much more than the mean, and where chance evens out, none has
		// less than half of it.
		if mean := len(places) / len(rings); len(rings) > 1 && (most > mean*ringEven/100+3 || mean >= 40 && least < mean/2) {
			t.Fatalf("rings of %d to %d, in the mean %d", least, most, mean)
		}
		// Mixed: a rack has no more in a ring than its share and a quarter, and one more
		// where rings were full.
		all, each := map[string]int{}, map[string]int{}
		for _, p := range places {
			all[p.Domain()]++
			each[fmt.Sprint(in[p.Host], p.Domain())]++
		}
		for _, p := range places {
			share := (all[p.Domain()]*ringSlack + 100*len(rings) - 1) / (100 * len(rings))
			if got := each[fmt.Sprint(in[p.Host], p.Domain())]; got > share+2 {
				t.Fatalf("ring %d has %d of the %d hosts of %q, its share in %d rings is %d", in[p.Host], got, all[p.Domain()], p.Domain(), len(rings), share)
			}
		}
		// No order shows.
		mixed := slices.Clone(places)
		slices.SortFunc(mixed, func(a, b Place) int { return strings.Compare(a.Rack+a.Host, b.Rack+b.Host) })
		again, err := Rings(mixed, limit)
		if err != nil || !slices.EqualFunc(rings, again, slices.Equal) {
			t.Fatalf("another order of hosts makes other rings (%v)", err)
		}
	})
}

// TestRingsMoveFew: who joins or leaves moves hardly anybody, except when a ring more
// is needed; then about as many move as it takes.
func TestRingsMoveFew(t *testing.T) {
	place := func(i int) Place {
		return Place{Host: fmt.Sprintf("host-%d", i), Zone: fmt.Sprint("z", i%3), Rack: fmt.Sprint("r", i/3%20)}
	}
	var places []Place
	for i := range 400 {
		places = append(places, place(i))
	}
	ringsOf := func(ps []Place) (map[string]int, int) {
		rings, err := Rings(ps, RingLimit)
		if err != nil {
			t.Fatal(err)
		}
		in := map[string]int{}
		for i, ring := range rings {
			for _, h := range ring {
				in[h] = i
			}
		}
		return in, len(rings)
	}
	before, count := ringsOf(places)
	moved, worst, joins, growths, grown := 0, 0, 0, 0, 0
	for i := 400; i < 1600; i++ {
		places = append(places, place(i))
		after, now := ringsOf(places)
		n := 0
		for host, ring := range before {
			if after[host] != ring {
				n++
			}
		}
		if now == count {
			joins++
			moved += n
			worst = max(worst, n)
		} else {
			growths++
			grown = max(grown, n)
		}
		before, count = after, now
	}
	t.Logf("%d joins moved %d hosts, at worst %d at once; %d joins needed one more ring and moved at most %d", joins, moved, worst, growths, grown)
	if moved > joins*2 || worst > 40 {
		t.Errorf("%d joins moved %d hosts, at worst %d at once: more than 2 each, or 40", joins, moved, worst)
	}
	if growths == 0 {
		t.Errorf("no join needed another ring: nothing was measured")
	}
	if grown > 2*RingLimit {
		t.Errorf("one ring more moved %d hosts, more than two rings' worth", grown)
	}
	// Leaving is joining backwards.
	back, _ := ringsOf(places[:len(places)-1])
	n := 0
	for host, ring := range back {
		if before[host] != ring {
			n++
		}
	}
	if n > 40 {
		t.Errorf("one that leaves moved %d", n)
	}
}

func TestRingsRefuse(t *testing.T) {
	for _, c := range []struct {
		places []Place
		limit  int
		want   string
	}{
		{nil, 2, "second opinion"},
		{[]Place{{Host: "a"}, {Host: "a"}}, 200, "twice"},
		{[]Place{{}}, 200, "without an identity"},
	} {
		if _, err := Rings(c.places, c.limit); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Rings(%v, %d): %v, want %q", c.places, c.limit, err, c.want)
		}
	}
	if rings, err := Rings(nil, RingLimit); err != nil || len(rings) != 1 || len(rings[0]) != 0 {
		t.Errorf("no hosts: %v, %v, want one empty ring", rings, err)
	}
}

func BenchmarkRings(b *testing.B) {
	for _, size := range []int{1000, 10_000, 50_000} {
		places := make([]Place, size)
		for i := range places {
			places[i] = Place{Host: fmt.Sprint("host-", i), Zone: fmt.Sprint("z", i%3), Rack: fmt.Sprint("r", i/40)}
		}
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			for b.Loop() {
				if _, err := Rings(places, RingLimit); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
