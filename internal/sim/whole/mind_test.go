package whole_test

import (
	"context"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

// counted is of how many hosts the mind of the server that leads knows a fact of their
// agents to be true.
func (r *run) counted(fact string) int {
	n := r.leading()
	if n == nil || n.life == nil {
		return 0
	}
	lo := n.life.leads()
	if lo == nil {
		return 0
	}
	count := 0
	if err := lo.Ask(context.Background(), func(m *incident.Mind) {
		for _, h := range r.hosts {
			if yes, _ := m.View().Facts(fettle.HostSubject(h.id)).Bool(fact); yes {
				count++
			}
		}
	}); err != nil {
		return 0
	}
	return count
}
