package linuxmachine

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables"

	"fettle/internal/machine"
)

// rules is the packet filter of the network namespace that this process is in.
type rules struct{}

// WatchRules implements machine.Rulesets: the kernel sends what a transaction
// changed and then the new generation, with who committed it (NFT_MSG_NEWGEN in
// net/netfilter/nf_tables_api.c).
func (rules) WatchRules(ctx context.Context, emit func(machine.RulesChange)) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("watch the packet filter: %w", err)
	}
	monitor := nftables.NewMonitor(nftables.WithMonitorEventBuffer(64))
	events, err := conn.AddGenerationalMonitor(monitor)
	if err != nil {
		return fmt.Errorf("watch the packet filter: %w", err)
	}
	// Its goroutine ends when its socket is closed and everything that it holds was
	// taken from it.
	defer func() {
		_ = monitor.Close()
		for range events { //nolint:revive // until it is closed
		}
	}()
	emit(machine.RulesChange{})
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, open := <-events:
			switch {
			case !open:
				return errors.New("watch the packet filter: the kernel ended it")
			case e.GeneratedBy.Error != nil && e.GeneratedBy.Type == nftables.MonitorEventTypeOOB:
				return fmt.Errorf("watch the packet filter: %w", e.GeneratedBy.Error)
			}
			c := machine.RulesChange{}
			if g, ok := e.GeneratedBy.Data.(*nftables.GenMsg); ok && g != nil {
				c = machine.RulesChange{Generation: g.ID, PID: int(g.ProcPID), Process: g.ProcComm}
			}
			emit(c)
		}
	}
}
