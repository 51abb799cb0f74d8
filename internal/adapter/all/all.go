// Package all lists the adapters that this binary is built with. To add a system
// is to add its folder, its runbooks and one line here. It holds the list and
// nothing else.
package all

import (
	"fettle/internal/adapter/clock"
	"fettle/internal/adapter/etcd"
	"fettle/internal/adapter/filesystem"
	"fettle/internal/adapter/firewall"
	"fettle/internal/adapter/systemd"
	"fettle/internal/machine"
)

// Adapters returns every adapter, in the order of their names.
func Adapters() []machine.Adapter {
	return []machine.Adapter{
		clock.Adapter{},
		etcd.New(),
		filesystem.Adapter{},
		firewall.Adapter{},
		systemd.Adapter{},
	}
}
