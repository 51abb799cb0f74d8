package etcd

import (
	"context"
	"strings"
	"testing"

	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
)

// debianUnit is the unit of Debian 12's etcd-server.
const debianUnit = `[Service]
Environment=DAEMON_ARGS=
Environment=ETCD_NAME=%H
Environment=ETCD_DATA_DIR=/var/lib/etcd/default
EnvironmentFile=-/etc/default/%p
Type=notify
User=etcd
#ExecStart=/bin/sh -c "GOMAXPROCS=$(nproc) /usr/bin/etcd $DAEMON_ARGS"
ExecStart=/usr/bin/etcd $DAEMON_ARGS
Restart=on-abnormal
`

// TestDiscover finds a member as Debian's package lays it out, one with a
// configuration file, and nothing else; and what it proposes can be opened.
func TestDiscover(t *testing.T) {
	mem := memmachine.New(memmachine.Options{Host: "id1", Hostname: "h1"})
	m := mem.Ports()
	write := func(path, text string) {
		t.Helper()
		if err := m.Files.MkdirAll(t.Context(), path[:strings.LastIndex(path, "/")], 0o755); err != nil {
			t.Fatal(err)
		}
		if err := m.Files.WriteFile(t.Context(), path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("/lib/systemd/system/etcd.service", debianUnit)
	write("/etc/default/etcd", "ETCD_INITIAL_CLUSTER_TOKEN=\"orders\"\nETCD_LISTEN_CLIENT_URLS=\"http://10.0.0.1:2379,http://127.0.0.1:2379\"\nETCD_ADVERTISE_CLIENT_URLS=http://10.0.0.1:2379\nETCD_INITIAL_ADVERTISE_PEER_URLS=http://10.0.0.1:2380\n")
	write("/lib/systemd/system/kv.service", "[Service]\nExecStart=/opt/etcd/etcd --config-file /etc/kv.yml\n")
	write("/etc/kv.yml", "name: kv1\ndata-dir: /srv/kv\ninitial-cluster-token: kv\nlisten-client-urls: https://10.0.0.1:12379\nadvertise-client-urls: https://10.0.0.1:12379\n"+
		"initial-advertise-peer-urls: https://10.0.0.1:12380\nclient-transport-security:\n  client-cert-auth: true\n  cert-file: /etc/kv/cert\n  key-file: /etc/kv/key\n  trusted-ca-file: /etc/kv/ca\n")
	write("/lib/systemd/system/web.service", "[Service]\nExecStart=/usr/bin/web --etcd\n")
	m.Services = unitList{units: []machine.Unit{{Name: "etcd.service", LoadState: "loaded", FragmentPath: "/lib/systemd/system/etcd.service"},
		{Name: "kv.service", LoadState: "loaded", FragmentPath: "/lib/systemd/system/kv.service"},
		{Name: "web.service", LoadState: "loaded", FragmentPath: "/lib/systemd/system/web.service"},
		{Name: "gone.service", LoadState: "not-found"}}}
	a := New()
	found, err := a.Discover(t.Context(), m)
	if err != nil || len(found) != 2 {
		t.Fatalf("%v, %+v", err, found)
	}
	in, err := a.Open(t.Context(), m, found[0].Config)
	if err != nil {
		t.Fatalf("%v\n%s", err, found[0].Config)
	}
	defer in.Close()
	c := in.(*instance).config
	if c.Name != "h1" || c.System != "orders" || c.DataDir != "/var/lib/etcd/default" || c.EnvFile != "/etc/default/etcd" ||
		c.ClientEndpoint != "http://10.0.0.1:2379" || c.PeerURL != "http://10.0.0.1:2380" || !strings.HasPrefix(string(found[0].Config), "# Found:") {
		t.Errorf("%s", found[0].Config)
	}
	if in.(*instance).unit != fettle.NewSubject(fettle.KindUnit, "id1", "etcd.service") {
		t.Errorf("unit %s", in.(*instance).unit)
	}
	kv, err := ParseConfig(found[1].Config)
	if err != nil || kv.ConfigFile != "/etc/kv.yml" || kv.EnvFile != "" || kv.Name != "kv1" || kv.TLS != (TLS{"/etc/kv/ca", "/etc/kv/cert", "/etc/kv/key"}) {
		t.Errorf("%v\n%s", err, found[1].Config)
	}
}

// unitList answers with these units.
type unitList struct {
	machine.Services
	units []machine.Unit
}

func (f unitList) Units(context.Context, ...string) ([]machine.Unit, error) {
	return f.units, nil
}
