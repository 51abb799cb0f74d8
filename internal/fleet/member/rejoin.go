package member

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"
)

// settleTimes is how often a newcomer asks others for everything, a second apart.
const settleTimes = 2

// rejoin looks for seeds that are not in the ring: at once and often while this node
// is alone, with back-off, and now and then afterwards, since a ring that was cut in
// two for longer than it remembers its dead does not find together by itself.
func (n *Node) rejoin(ctx context.Context) {
	if n.o.Seeds == nil {
		return
	}
	first := max(n.o.Settings.Rejoin/100, time.Millisecond)
	pause := first
	settling := settleTimes
	for wait(ctx, jittered(pause)) {
		here := n.table.here()
		alone := len(here) == 0
		if !alone && settling > 0 {
			// News that was on its way while this node came did not reach it, and is not sent
			// again. Ask others than the one who let it in, instead of waiting for the next
			// exchange of everything.
			settling--
			n.meet([]string{here[rand.IntN(len(here))].Addr.String()})
			pause = time.Second
			continue
		}
		seeds := n.strangers()
		if len(seeds) > 0 {
			most := 1
			if alone {
				most = 3
			}
			n.meet(seeds[:min(most, len(seeds))])
		}
		switch {
		case len(n.table.here()) > 0:
			pause = n.o.Settings.Rejoin
			if alone {
				pause, settling = time.Second, settleTimes
			}
		case !alone: // it is alone since just now
			pause = first
		default:
			pause = min(2*pause, n.o.Settings.Rejoin)
		}
	}
}

// strangers are the seeds that are not in the ring, in random order.
func (n *Node) strangers() []string {
	known := map[netip.AddrPort]bool{n.addr: true}
	for _, e := range n.table.here() {
		known[e.Addr] = true
	}
	var seeds []string
	for _, seed := range n.o.Seeds() {
		if seed.IsValid() && !known[seed] {
			seeds = append(seeds, seed.String())
		}
	}
	rand.Shuffle(len(seeds), func(i, j int) { seeds[i], seeds[j] = seeds[j], seeds[i] })
	return seeds
}

func (n *Node) meet(seeds []string) {
	if _, err := n.list.Join(seeds); err != nil {
		n.o.Log.Debug("look for the ring", "seeds", seeds, "err", err)
	}
}
