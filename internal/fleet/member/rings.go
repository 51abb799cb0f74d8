package member

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// RingLimit is how many members a ring has at most, unless the caller says so
// otherwise. What a member does and sends is nearly independent of the size of its
// ring; what grows is the time until everybody has been probed (size times the probe
// interval), the state that a newcomer fetches, and the log of the gossip's spread.
// Beyond some thousands, memberlist is known to starve (hashicorp/memberlist#243).
const RingLimit = 200

// ringFill is how full a ring is made, in percent of the limit. The rest is room
// for newcomers: without it every join would push somebody else out.
const ringFill = 80

// ringSlack is how much more than its even share of a failure domain a ring may
// take, in percent. Without slack one host that comes makes many move.
const ringSlack = 125

// ringEven is how big a ring may be, in percent of the mean.
const ringEven = 115

// Place is a host and the failure domains that it stands in. An empty zone or rack
// is one that nobody told.
type Place struct {
	Host string // identity, not the name
	Zone string
	Rack string
}

// Domain names the smallest failure domain that is known: zone and rack, or the
// zone, or "" for unknown. Witnesses are counted by it, and all unknown ones count
// as one: independence that nobody showed is not assumed.
func (p Place) Domain() string {
	switch {
	case p.Rack != "":
		return p.Zone + "/" + p.Rack
	case p.Zone != "":
		return p.Zone + "/?"
	}
	return ""
}

// Rings says which hosts gossip with each other: rings[i] has the hosts of ring i,
// sorted. The order of places does not matter.
//
// Every ring has at most limit hosts, and every failure domain is spread evenly over
// the rings, so that in each ring most witnesses of a host stand elsewhere. Where a
// domain cannot be spread evenly (a ring must take what is left) the limit counts
// more.
//
// A host that joins or leaves moves few others: each host has its own order of
// preference for the rings (rendezvous hashing, Thaler and Ravishankar 1998), and
// takes the first that has room (bounded loads, Mirrokni, Thorup and Zadimoghaddam
// 2017). When one ring more is needed, which happens once in ringFill percent of
// limit joins, about as many move as the new ring takes.
//
// A host that is named twice or not at all, or a limit below 3 (a member, whom it
// watches, and a second opinion), is an error.
func Rings(places []Place, limit int) ([][]string, error) {
	if limit < 3 {
		return nil, fmt.Errorf("rings of at most %d hosts: a ring needs 3 for a second opinion; use %d", limit, RingLimit)
	}
	order, err := ringOrder(places)
	if err != nil {
		return nil, err
	}
	count := 1
	if len(places) > limit {
		fill := limit * ringFill / 100
		count = (len(places) + fill - 1) / fill
	}
	// No ring gets much more than the others either, as far as the limit allows.
	room := min(limit, (len(places)*ringEven+100*count-1)/(100*count)+1)
	zones, racks := newShares(count), newShares(count)
	for _, p := range places {
		zones.expect(p.Zone)
		racks.expect(p.Domain())
	}
	rings := make([][]string, count)
	for _, h := range order {
		zone, rack := zones.of(h.Zone), racks.of(h.Domain())
		// The best ring that has room for the host's rack and zone; else for its rack;
		// else the best that is not full.
		best, class, score := -1, 3, uint64(0)
		for ring := range count {
			if len(rings[ring]) >= room {
				continue
			}
			c := 0
			switch {
			case rack.taken[ring] >= rack.most:
				c = 2
			case zone.taken[ring] >= zone.most:
				c = 1
			}
			if c > class {
				continue
			}
			if s := mix(h.hash + uint64(ring)*0x9e3779b97f4a7c15); c < class || s > score {
				best, class, score = ring, c, s
			}
		}
		zone.taken[best]++
		rack.taken[best]++
		rings[best] = append(rings[best], h.Host)
	}
	for _, ring := range rings {
		slices.Sort(ring)
	}
	return rings, nil
}

// hashed is a place with the hash of its host.
type hashed struct {
	Place
	hash uint64
}

// ringOrder sorts the places by the hash of their hosts: the order in which they
// choose must not follow names, or racks that are named alike would choose together.
func ringOrder(places []Place) ([]hashed, error) {
	order := make([]hashed, len(places))
	seen := make(map[string]bool, len(places))
	for i, p := range places {
		switch {
		case p.Host == "":
			return nil, errors.New("rings: a host without an identity; enrol it first")
		case seen[p.Host]:
			return nil, fmt.Errorf("rings: host %s is listed twice; identities are minted once", p.Host)
		}
		seen[p.Host] = true
		order[i] = hashed{p, mix(fnv64(p.Host))}
	}
	slices.SortFunc(order, func(a, b hashed) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.Host, b.Host))
	})
	return order, nil
}

// shares counts how many hosts of each domain are in each ring.
type shares struct {
	rings int
	all   map[string]int
	each  map[string]*share
}

// share is one domain's.
type share struct {
	most  int   // that one ring may have
	taken []int // by ring
}

func newShares(rings int) *shares {
	return &shares{rings: rings, all: map[string]int{}, each: map[string]*share{}}
}

// expect counts a host of a domain; of must not be called before all are counted.
func (s *shares) expect(domain string) { s.all[domain]++ }

func (s *shares) of(domain string) *share {
	one := s.each[domain]
	if one == nil {
		one = &share{most: (s.all[domain]*ringSlack + 100*s.rings - 1) / (100 * s.rings), taken: make([]int, s.rings)}
		s.each[domain] = one
	}
	return one
}

// fnv64 is FNV-1a.
func fnv64(text string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 0x100000001b3
	}
	return h
}

// mix spreads every bit over all (the finalizer of SplitMix64, Steele 2014): FNV
// alone is too even for short names that differ at their end.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
