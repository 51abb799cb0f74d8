package lab

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// way is one direction between two hosts, by their ports on the bridge; "" is everything else: all other hosts, and for
// what is not a delay the bridge too.
type way struct{ from, to string }

// wait is a delay of packets, spread evenly over base ± jitter.
type wait struct {
	base, jitter time.Duration
	queue        uint16
}

// faults is what is wrong between the hosts of a lab. It is data: render and delays say what to tell the kernel.
type faults struct {
	cut   map[way]bool
	loss  map[way]float64 // percent
	delay map[way]wait
}

func newFaults() faults {
	return faults{cut: map[way]bool{}, loss: map[way]float64{}, delay: map[way]wait{}}
}

// lossUnit is the resolution of a loss: a hundredth of a percent.
const lossUnit = 10_000

// ruleset is the lab's nftables table, as one transaction of nft(8). Cuts drop every frame, as a pulled cable does. Losses drop
// IPv4 only: a lost ARP packet would stall all connections for a second, which no network of that quality does.
func (f faults) ruleset() string {
	var forward, input, output strings.Builder
	rule := func(w way, drop string) {
		from, to := match("iifname", w.from), match("oifname", w.to)
		fmt.Fprintf(&forward, "\t\t%s%s%s\n", from, to, drop)
		if w.to == "" {
			fmt.Fprintf(&input, "\t\t%s%s\n", from, drop)
		}
		if w.from == "" {
			fmt.Fprintf(&output, "\t\t%s%s\n", to, drop)
		}
	}
	for _, w := range ways(f.cut) {
		rule(w, "counter drop")
	}
	for _, w := range ways(f.loss) {
		units := max(1, int(math.Round(f.loss[w]*lossUnit/100)))
		rule(w, fmt.Sprintf("ether type ip numgen random mod %d <= %d counter drop", lossUnit, units-1)) // nft refuses < 10000
	}
	var b strings.Builder
	b.WriteString("table bridge lab\ndelete table bridge lab\ntable bridge lab {\n") // the first line makes the second work always
	for _, c := range []struct {
		hook  string
		rules string
	}{{"forward", forward.String()}, {"input", input.String()}, {"output", output.String()}} {
		fmt.Fprintf(&b, "\tchain lab_%s {\n\t\ttype filter hook %s priority 0; policy accept;\n%s\t}\n", c.hook, c.hook, c.rules)
	}
	b.WriteString("}\n")
	return b.String()
}

func match(key, port string) string {
	if port == "" {
		return ""
	}
	return fmt.Sprintf("%s %q ", key, port)
}

// queueRules are the iptables rules, in the form of iptables-restore(8), that hand delayed packets to their queues:
// the kernels at hand know no queue statement in nftables. They see bridged IPv4 between hosts.
func (f faults) queueRules() string {
	var b strings.Builder
	b.WriteString("*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n")
	list := ways(f.delay)
	// The first rule that matches takes a packet: the exact ones go before the ones for everybody.
	slices.SortStableFunc(list, func(a, b way) int { return cmp.Compare(a.open(), b.open()) })
	for _, w := range list {
		b.WriteString("-A FORWARD -m physdev --physdev-is-bridged")
		if w.from != "" {
			b.WriteString(" --physdev-in " + w.from)
		}
		if w.to != "" {
			b.WriteString(" --physdev-out " + w.to)
		}
		fmt.Fprintf(&b, " -j NFQUEUE --queue-num %d --queue-bypass\n", f.delay[w].queue)
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// open counts the ends of the way that are not named.
func (w way) open() int {
	n := 0
	if w.from == "" {
		n++
	}
	if w.to == "" {
		n++
	}
	return n
}

// ways are the keys of m in a fixed order.
func ways[V any](m map[way]V) []way {
	var out []way
	for w := range m {
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b way) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
	return out
}

// text is one line for each fault, with names as name gives them for ports.
func (f faults) text(name func(port string) string) []string {
	out := []string{}
	for _, w := range ways(f.cut) {
		out = append(out, fmt.Sprintf("cut %s -> %s", name(w.from), name(w.to)))
	}
	for _, w := range ways(f.loss) {
		out = append(out, fmt.Sprintf("loss %s -> %s %g%%", name(w.from), name(w.to), f.loss[w]))
	}
	for _, w := range ways(f.delay) {
		out = append(out, fmt.Sprintf("delay %s -> %s %v ± %v", name(w.from), name(w.to), f.delay[w].base, f.delay[w].jitter))
	}
	return out
}
