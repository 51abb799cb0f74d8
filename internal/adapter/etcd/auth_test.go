package etcd

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"fettle/internal/fettle"
	"fettle/internal/machine/loopback"
)

const secretOfRoot = "hunter2-of-the-cluster"

// enableAuth gives the cluster of a member users: root, and reader without any
// right.
func (r *rig) enableAuth(m *testMember) {
	r.t.Helper()
	e, err := m.in.cluster.dial.to(m.in.config.ClientEndpoint)
	if err != nil {
		r.t.Fatal(err)
	}
	auth := pb.NewAuthClient(e.conn)
	must := func(err error) {
		r.t.Helper()
		if err != nil {
			r.t.Fatal(err)
		}
	}
	_, err = auth.UserAdd(r.ctx, &pb.AuthUserAddRequest{Name: "root", Password: secretOfRoot})
	must(err)
	_, err = auth.UserAdd(r.ctx, &pb.AuthUserAddRequest{Name: "reader", Password: secretOfRoot})
	must(err)
	_, err = auth.UserGrantRole(r.ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
	must(err)
	_, err = auth.AuthEnable(r.ctx, &pb.AuthEnableRequest{})
	must(err)
}

// all is what every probe of an instance observes.
func all(r *rig, in *instance) map[string][]fettle.Observation {
	r.t.Helper()
	out := map[string][]fettle.Observation{}
	for _, p := range in.Probes() {
		list := p.Observe(r.ctx, in.member, in.cluster.subject)
		out[p.Spec().Name] = list
		data, err := json.Marshal(list)
		if err != nil {
			r.t.Error(err)
		}
		for _, secret := range []string{secretOfRoot, "PRIVATE KEY"} {
			if strings.Contains(string(data), secret) {
				r.t.Errorf("%s says %s", p.Spec().Name, data)
			}
		}
	}
	return out
}

// TestAuthNobody: a cluster with users tells nobody in particular little: 3.4
// everything but hashes, later versions nothing. What is not told is unknown, with
// what would let it be seen; it is never bad, and nobody is called down.
func TestAuthNobody(t *testing.T) {
	r := newRig(t, rigOptions{})
	m := r.members[0]
	r.enableAuth(m)
	told := 0
	for probe, list := range all(r, m.in) {
		if len(list) == 0 {
			t.Errorf("%s says nothing", probe)
		}
		for _, o := range list {
			switch {
			case o.Known():
				told++
				if o.Facts["answers"] == false || o.Facts["has_leader"] == false || o.Facts["log_lost"] == true {
					t.Errorf("%s: bad, and merely not told: %+v", probe, o)
				}
			case o.Reason != fettle.PermissionDenied || !strings.Contains(o.Detail, "role root"):
				t.Errorf("%s: %+v", probe, o)
			}
			if probe == hashProbe && o.Known() {
				t.Errorf("a hash is told to nobody: %+v", o)
			}
		}
	}
	if told == 0 {
		t.Error("not even its own machine sees anything")
	}
	if _, err := r.try(m, "etcd.defrag", m.in.member, nil); fettle.ClassOf(err) != fettle.Denied && fettle.ClassOf(err) != fettle.Refused {
		t.Errorf("defrag: %v", err)
	}
}

// TestAuthUsers: the adapter is the user that its certificate names. Who has no
// right is told the status and no hash; root is told everything, and may act.
func TestAuthUsers(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ca := newAuthority(t)
	for _, name := range []string{"server", "root", "reader"} {
		cert, key := ca.issue(t, name, time.Now().Add(240*time.Hour))
		for f, data := range map[string][]byte{"ca": ca.pem, name + ".pem": append(cert, key...)} {
			if err := os.WriteFile(file(f), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	as := func(user string) string {
		return fmt.Sprintf("tls: {ca: %s, cert: %[2]s, key: %[2]s}\n", file("ca"), file(user+".pem"))
	}
	ports := loopback.Ports(t, 2)
	client := fmt.Sprintf("https://127.0.0.1:%d", ports[0])
	r := newRig(t, rigOptions{members: 1, ports: ports, tls: as("root"), extra: map[string]string{
		"LISTEN_CLIENT_URLS": client, "ADVERTISE_CLIENT_URLS": client, "CLIENT_CERT_AUTH": "true",
		"TRUSTED_CA_FILE": file("ca"), "CERT_FILE": file("server.pem"), "KEY_FILE": file("server.pem"),
	}})
	m := r.members[0]
	r.enableAuth(m)
	for probe, list := range all(r, m.in) {
		for _, o := range list {
			if !o.Known() || o.Facts["health"] == false || o.Facts["answers"] == false || o.Facts["has_leader"] == false {
				t.Errorf("as root, %s: %+v", probe, o)
			}
		}
	}
	r.do(m, "etcd.defrag", m.in.member, nil)

	in, err := New().Open(r.ctx, m.m, fmt.Appendf(nil, "system: sys\nunit: %s\nenv_file: %s\n%s", m.unit, m.env, as("reader")))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for probe, list := range all(r, in.(*instance)) {
		for _, o := range list {
			if denied := o.Reason == fettle.PermissionDenied; denied != (probe == hashProbe) || !o.Known() && !denied {
				t.Errorf("as reader, %s: %+v", probe, o)
			}
		}
	}
	d := r.dispatch(m, "etcd.defrag", m.in.member, nil)
	if _, err := in.Actions()["etcd.defrag"].Apply(r.ctx, d); fettle.ClassOf(err) != fettle.Denied || !strings.Contains(err.Error(), "role root") {
		t.Errorf("defrag as reader: %v", err)
	}
}
