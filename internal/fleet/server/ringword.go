package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	"fettle/internal/fettle"
	"fettle/internal/fleet/member"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
)

// addressOf is where an agent gossips; the zero value where it does not.
func (g *gossip) addressOf(st *wire.RingState) netip.AddrPort {
	if st.GetName() == "" {
		return netip.AddrPort{}
	}
	return addressIn(st.GetAddress())
}

// addressIn is an address to connect to; the zero value where the text is none.
func addressIn(text string) netip.AddrPort {
	at, err := netip.ParseAddrPort(text)
	if err != nil || at.Port() == 0 || at.Addr().IsUnspecified() || at.Addr().IsMulticast() {
		return netip.AddrPort{}
	}
	return at
}

// tell tells every agent its ring, where that is not what it was told last.
func (g *gossip) tell() {
	g.mu.Lock()
	defer g.mu.Unlock()
	keys := g.keys
	if keys.use == 0 {
		return // there is no gossip, or not yet
	}
	seeds := g.seeds()
	settings, err := json.Marshal(g.s.o.Gossip)
	if err != nil { // plain numbers
		settings = nil
	}
	for host, h := range g.hosts { // any order: each is told its own
		ring := g.rings[host]
		if h.session == nil || !h.able || ring == "" {
			continue
		}
		at := g.places[host]
		w := &wire.Ring{Name: ring, Use: string(keys.using().id), Seeds: seeds[ring], Zone: at.Zone, Rack: at.Rack, Settings: settings}
		for _, k := range keys.keys {
			w.Keys = append(w.Keys, k.secret)
		}
		if h.told != nil && proto.Equal(w, h.told) {
			continue
		}
		h.told = w
		h.session.push(&wire.SessionResponse{What: &wire.SessionResponse_Ring{Ring: w}})
	}
}

// seeds are for each ring the addresses of a few members, the same ones as long as they
// are there. mu is held.
func (g *gossip) seeds() map[string][]string {
	seeds := map[string][]string{}
	for _, host := range slices.Sorted(maps.Keys(g.hosts)) {
		ring := g.rings[host]
		at := g.addressOf(g.hosts[host].state)
		if ring != "" && at.IsValid() && len(seeds[ring]) < gossipSeeds {
			seeds[ring] = append(seeds[ring], at.String())
		}
	}
	return seeds
}

// next is the number of the key that a rotation would bring; an error where none can
// begin: one that is under way is ended first.
func (g *gossip) next(ctx context.Context) (serial int, err error) {
	if g.shelf == nil {
		return 0, errors.New("this fleet does not gossip: its server has nowhere to keep keys")
	}
	keys, err := readKeys(ctx, g.shelf)
	if err != nil {
		return 0, err
	}
	if p := keys.phase(); p != settled {
		return 0, fmt.Errorf("a rotation is under way: %s (`fettle status` names the hosts that it waits for)", p)
	}
	newest, _ := keys.newest()
	return newest.serial + 1, nil
}

// rotate begins to replace the keys by a new one.
func (g *gossip) rotate(ctx context.Context, serial int) (string, error) {
	if err := mintKey(ctx, g.shelf, serial, g.s.o.Clock.Wall()); err != nil {
		return "", err
	}
	g.stir()
	return "a new key goes to every host, is used when all have it, and then the old one is removed (`fettle status` shows how far it is)", nil
}

// places are the hosts of the fleet and where they stand, as the mind's graph has it.
func (s *Server) places(ctx context.Context) (map[string]member.Place, error) {
	places := map[string]member.Place{}
	for _, h := range s.known() {
		id := h.subject.Root()
		places[id] = member.Place{Host: id}
	}
	err := s.ask(ctx, func(m *incident.Mind) {
		for id, p := range places { // any order: each is its own
			for _, in := range m.View().Related(fettle.HostSubject(id), ">in") {
				switch in.Kind() {
				case fettle.KindRack:
					p.Rack = in.Name()
				case fettle.KindZone:
					p.Zone = in.Name()
				}
				for _, wider := range m.View().Related(in, ">in") {
					if wider.Kind() == fettle.KindZone && p.Zone == "" {
						p.Zone = wider.Name()
					}
				}
			}
			places[id] = p
		}
	})
	return places, err
}
