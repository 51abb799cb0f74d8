package firewall

import (
	"context"
	"fmt"

	"fettle/internal/fettle"
)

// faultTable is the fault's own.
const faultTable = "inet fettle_fault"

// drop drops what comes in for a port.
type drop struct{ *instance }

// Inject implements fettle.Fault.
func (f drop) Inject(ctx context.Context, target fettle.Subject, params fettle.Facts) (fettle.Injected, error) {
	port, ok := params.Int("port")
	if !ok {
		port = 9
	}
	if port < 1 || port > 65535 {
		return nil, fettle.Refuse("firewall.drop", target, "a port from 1 to 65535", "port %d", port)
	}
	script := fmt.Sprintf("table %s {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t\ttcp dport %d drop\n\t}\n}\n", faultTable, port)
	if _, err := f.nft(ctx, script, "-f", "-"); err != nil {
		return nil, fail("firewall.drop", target, err)
	}
	return revert(func(ctx context.Context) error {
		if _, err := f.nft(ctx, replace([]string{faultTable}, ruleset{}), "-f", "-"); err != nil {
			return fail("revert firewall.drop", target, err)
		}
		return nil
	}), nil
}

type revert func(context.Context) error

func (r revert) Revert(ctx context.Context) error { return r(ctx) }
