//go:build lab

package spine_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"fettle/lab"
	"fettle/lab/spine"
)

// How many pairs of servers are killed, where FETTLE_LAB_SEEDS does not say. Each seed
// takes half a minute or so.
const someSeeds = 2

// seedsALab is how many of them share a lab: a service that is killed more often than
// twice is in a loop, as far as anybody can see, and Fettle does not start it.
const seedsALab = 2

// Two of three servers, or all, are killed in one repair: the one that leads, at a random
// record of it or of the agent, and whichever leads then, each at one of its own first
// records, if it comes to that. Fettle starts them again: the third server, or, where that is one of three,
// the agents of their hosts by themselves. The repair ends as if nobody had died.
func TestLabServersPairs(t *testing.T) {
	seeds := someSeeds
	if text := os.Getenv("FETTLE_LAB_SEEDS"); text != "" {
		var err error
		if seeds, err = strconv.Atoi(text); err != nil || seeds < 1 {
			t.Fatalf("FETTLE_LAB_SEEDS is %q: say how many", text)
		}
	}
	killable, err := spine.Build(t.TempDir(), "labkill")
	if err != nil {
		t.Fatal(err)
	}
	from := uint64(time.Now().Unix() / (24 * 60 * 60)) // others each day
	if text := os.Getenv("FETTLE_LAB_SEED"); text != "" {
		if from, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("FETTLE_LAB_SEED is %q: %v", text, err)
		}
	}
	for n := 0; n < seeds && !t.Failed(); n += seedsALab {
		t.Run(fmt.Sprintf("lab%d", n/seedsALab+1), func(t *testing.T) {
			c := startEtcd(t, etcdOptions{servers: 3, binary: killable})
			waitPermits(t, c.Fleet)
			for i := n; i < min(n+seedsALab, seeds) && !t.Failed(); i++ {
				c.withoutTwo(from+uint64(i), i)
			}
			c.checkWhole()
			checkOneLog(t, c.Fleet)
		})
	}
}

// withoutTwo is a repair in which two servers are killed, as a seed has it.
func (c *etcdCluster) withoutTwo(seed uint64, n int) {
	c.t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	h := c.Hosts()[r.IntN(3)]
	m, x := momentOf{repair: "service", part: "server", n: 1 + r.IntN(3)}, (*mending)(nil)
	if r.IntN(4) > 0 {
		m.repair, m.n = "member", 1+r.IntN(18)
	}
	if r.IntN(3) == 0 {
		m.part, m.n = "agent", (m.n+1)/2
	}
	if m.repair == "service" {
		x = c.breakService(h, fmt.Sprintf("web-%d.service", n))
	} else {
		x = c.breakMember(h, n)
	}
	leader := c.Leader()
	if leader == nil {
		c.t.Fatal("no server leads")
	}
	ran, next, second := map[*lab.Host]string{}, map[*lab.Host]stop{}, 1+r.IntN(4)
	for _, s := range c.Hosts() {
		ran[s] = c.Property(s, spine.ServerUnit, "InvocationID")
		if s != leader {
			next[s] = x.order(s, momentOf{repair: m.repair, part: "server", n: second})
		}
	}
	what := fmt.Sprintf("seed %d, %s on %s: %s killed at record %d of the %s", seed, m.repair, h.Name(), leader.Name(), m.n, m.part)
	about, killed, hit := x.killedAt(m, leader)
	if !hit {
		c.t.Logf("%s: there is no such record", what)
		for _, s := range next {
			s.callOff()
		}
		x.checkEnd()
		return
	}
	what += fmt.Sprintf(" (%s)", about)
	in := x.end()
	dead := []*lab.Host{leader}
	for s, order := range next {
		if about, when, hit := order.hit(); hit {
			dead = append(dead, s)
			what += fmt.Sprintf(", %s %v later at its record %d (%s)", s.Name(), when.Sub(killed).Round(time.Millisecond), second, about)
			order.done()
		} else {
			order.callOff()
		}
	}
	for _, s := range dead {
		awaitBack(c.t, c.Fleet, s, ran[s], killed, false)
	}
	c.t.Logf("%s; mended after %v", what, in.Ended.Sub(killed).Round(time.Millisecond))
	x.checkEnd()
}
