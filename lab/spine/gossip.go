package spine

import (
	"time"

	"fettle/lab"
)

// Gossip is how the hosts see each other, as `fettle status` tells it.
type Gossip struct {
	Members  int           `json:"members"`
	Seen     int           `json:"seen"` // the fewest others that one of them sees
	P50      time.Duration `json:"spread_p50_ns"`
	P99      time.Duration `json:"spread_p99_ns"`
	Settings string        `json:"settings"`
	Key      string        `json:"key"`
	Rotation string        `json:"rotation"`
}

// Gossip asks how the hosts see each other.
func (f *Fleet) Gossip() Gossip {
	f.t.Helper()
	var status struct{ Gossip Gossip }
	f.read(&status, "status")
	return status.Gossip
}

// Lives are the hosts that the server judges so, as `fettle hosts` tells it.
func (f *Fleet) Lives(life string) []*lab.Host {
	f.t.Helper()
	var hosts []struct{ Label, Life string }
	f.read(&hosts, "hosts")
	var list []*lab.Host
	for _, one := range hosts {
		for _, h := range f.Hosts() {
			if one.Label == h.Name() && one.Life == life {
				list = append(list, h)
			}
		}
	}
	return list
}
