//go:build lab

package spine_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// storeFiles is where a server has what it shows the etcd that is its store.
const storeFiles = "/etc/fettle/store"

// outside is an etcd cluster on three hosts, which trust nobody without a certificate,
// with others' keys in it: the store of three servers that run on the same hosts.
type outside struct {
	*spine.Fleet
	t *testing.T
	*authority
}

func startOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{t: t, authority: newAuthority(t)}
	args := "--store-ca " + storeFiles + "/ca.pem --store-cert " + storeFiles + "/cert.pem --store-key " + storeFiles + "/key.pem --store-prefix /fettle/lab --store "
	o.Fleet = start(t, 3, spine.Options{Servers: 3, Policy: etcdPolicy, Store: args + "$STORE", Prepare: func(l *lab.Lab) { o.layOut(l) }})
	for _, h := range o.Hosts() {
		spine.Until(t, h.Name()+"'s agent to look after its member", func() bool {
			return o.Try(h, "journalctl -b -o cat -u "+spine.AgentUnit+" | grep 'an adapter is open' | grep -q etcd")
		})
		o.Service(h, "web.service", "ExecStart=/bin/sleep infinity")
	}
	return o
}

// layOut starts the members: the etcd that fettle itself is made of, since Debian's is
// older than a store may be.
func (o *outside) layOut(l *lab.Lab) {
	const program = "/opt/etcd/etcd"
	o.Fleet = &spine.Fleet{Lab: l}
	var initial, endpoints []string
	for _, h := range l.Hosts() {
		o.give(h, time.Now().Add(900*time.Hour))
		initial = append(initial, fmt.Sprintf("%s=https://%s:2380", h.Name(), h.Addr()))
		endpoints = append(endpoints, fmt.Sprintf("https://%s:2379", h.Addr()))
	}
	for _, h := range l.Hosts() {
		env := fmt.Sprintf("ETCD_NAME=%s\nETCD_DATA_DIR=%s\nETCD_INITIAL_CLUSTER=%s\nETCD_INITIAL_CLUSTER_STATE=new\nETCD_INITIAL_CLUSTER_TOKEN=outside\n", h.Name(), etcdData, strings.Join(initial, ","))
		for v, port := range map[string]int{"LISTEN_PEER_URLS": 2380, "INITIAL_ADVERTISE_PEER_URLS": 2380, "LISTEN_CLIENT_URLS": 2379, "ADVERTISE_CLIENT_URLS": 2379} {
			env += fmt.Sprintf("ETCD_%s=https://%s:%d\n", v, h.Addr(), port)
		}
		for _, v := range []string{"", "PEER_"} {
			env += fmt.Sprintf("ETCD_%[1]sCERT_FILE=%[2]s/member.pem\nETCD_%[1]sKEY_FILE=%[2]s/member.pem\nETCD_%[1]sTRUSTED_CA_FILE=%[2]s/ca.pem\nETCD_%[1]sCLIENT_CERT_AUTH=true\n", v, etcdPKI)
		}
		cert, key := o.issue(time.Now().Add(900*time.Hour), net.IP(h.Addr().AsSlice()))
		_, err := h.Shell(o.t.Context(), "mkdir -p "+storeFiles+" /opt/etcd")
		for file, text := range map[string]string{
			etcdEnv: env, "/etc/systemd/system/etcd.service.d/lab.conf": "[Service]\nRestart=no\nExecStart=\nExecStart=" + program + " demo-etcd\n",
			storeFiles + "/ca.pem": string(o.pem), storeFiles + "/cert.pem": string(cert), storeFiles + "/key.pem": string(key),
			storeFiles + "/env": "STORE=" + strings.Join(endpoints, ",") + "\n",
		} {
			if err == nil {
				err = h.WriteFile(file, []byte(text), 0o644)
			}
		}
		if err == nil {
			err = h.CopyIn(binary, program)
		}
		if err == nil {
			_, err = h.Shell(o.t.Context(), "chmod 600 "+storeFiles+"/key.pem; systemctl daemon-reload; systemctl start --no-block "+etcdUnit)
		}
		if err != nil {
			o.t.Fatal(err)
		}
	}
	o.waitMembers(l.Hosts()...)
	o.etcdctl(l.Host(1), "put /registry/others theirs")
}

func (o *outside) waitMembers(hosts ...*lab.Host) {
	o.t.Helper()
	for _, h := range hosts {
		spine.Until(o.t, h.Name()+"'s member to be healthy", func() bool { return healthyTLS(o.t, o.Fleet, h) })
	}
}

// etcdctl runs etcd's own tool against a host's member.
func (o *outside) etcdctl(h *lab.Host, args string) string {
	o.t.Helper()
	out, err := h.Shell(o.t.Context(), fmt.Sprintf("ETCDCTL_API=3 etcdctl --endpoints=https://%s:2379 --cacert=%[2]s/ca.pem --cert=%[2]s/member.pem --key=%[2]s/member.pem %s", h.Addr(), etcdPKI, args))
	if err != nil {
		o.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func (o *outside) member(h *lab.Host) fettle.Subject {
	return fettle.NewSubject("etcd-member", "outside", h.Name())
}

// breaks kills a service, and waits until Fettle has mended it.
func (o *outside) breaks(h *lab.Host, unit string) {
	o.t.Helper()
	seen := map[string]bool{}
	for _, in := range o.Incidents() {
		seen[in.ID] = true
	}
	killService(o.Fleet, h, unit)
	in := o.WaitIncident(unit+" on "+h.Name()+" to be mended", func(in fettle.Incident) bool {
		return !seen[in.ID] && spine.About(failed, o.Unit(h, unit), fettle.Resolved)(in)
	})
	o.CheckMended(in, "start", "start")
}

// others returns the hosts but these.
func (o *outside) others(but ...*lab.Host) (out []*lab.Host) {
	for _, h := range o.Hosts() {
		if !slices.Contains(but, h) {
			out = append(out, h)
		}
	}
	return out
}

// An etcd cluster that is there is the store of three servers: what fails is mended, also
// when the server that leads is killed in the middle of it. One member of the cluster
// ends: Fettle goes on, and leaves that member to a person, saying why. Then the majority
// of it: nobody decides, the agents mend under their permits what is not the store, and
// when a person has started it there is one leader and one log. What others keep in the
// cluster is as it was.
func TestLabExistingStore(t *testing.T) {
	f := startOutside(t)
	waitPermits(t, f.Fleet)
	f.breaks(f.Host(3), "web.service")

	// The leader is killed while a start is under way.
	was := f.Leader()
	h := f.others(was)[0]
	f.Service(h, "slow.service", "ExecStartPre=/bin/sleep 3", "ExecStart=/bin/sleep infinity")
	killService(f.Fleet, h, "slow.service")
	waitUnit(t, f.Fleet, h, "slow.service", "activating")
	killService(f.Fleet, was, spine.ServerUnit)
	at := time.Now()
	var now *lab.Host
	spine.Until(t, "another server to lead", func() bool { now = f.Leader(); return now != nil && now != was })
	took := time.Since(at)
	t.Logf("%s was killed in mid-repair, and %s leads after %v", was.Name(), now.Name(), took.Round(10*time.Millisecond))
	if took > 5*time.Second {
		t.Errorf("it took longer than 5 s")
	}
	f.CheckMended(f.WaitFor(failed, f.Unit(h, "slow.service"), fettle.Resolved), "start", "start")
	f.CheckStarts(h, "slow.service", 2) // mine, and the repair's, once
	f.WaitFor(failed, f.Unit(was, spine.ServerUnit), fettle.Resolved)
	f.WaitReady()

	// One member of the store ends.
	ill := f.Host(2)
	f.Shell(ill, "systemctl kill -s KILL "+etcdUnit)
	down := f.WaitIncident("the store's member to be left to a person", func(in fettle.Incident) bool {
		return !in.State.Ended() && (in.Cause.Subject == f.member(ill) || in.Cause.Subject == f.Unit(ill, etcdUnit)) && slices.ContainsFunc(in.Story, func(e fettle.Event) bool {
			return e.Kind == fettle.EvRefused && slices.ContainsFunc(e.Verdicts, func(v fettle.Verdict) bool {
				return v.Guard == "own-store" && !v.Allow && strings.Contains(v.Lifts, "by hand")
			})
		})
	})
	t.Logf("the store's member is down: %s: %s", down.State, down.Why)
	f.breaks(f.Host(3), "web.service")
	f.CheckUntouched(f.Incident(down.ID))
	f.CheckStarts(ill, etcdUnit, 1)

	// A second one: the majority.
	also := f.Host(1)
	f.Shell(also, "systemctl kill -s KILL "+etcdUnit)
	for _, h := range f.Hosts() {
		spine.Until(t, h.Name()+" to have no leader", func() bool {
			return f.Try(h, "journalctl -b -o cat -u "+spine.ServerUnit+" | grep -c 'leads no more' | grep -qv '^0' || ! "+spine.Program+" servers")
		})
	}
	at = time.Now()
	for _, h := range f.Hosts() {
		killService(f.Fleet, h, "web.service")
	}
	for _, h := range f.Hosts() {
		waitUnit(t, f.Fleet, h, "web.service", "active")
		t.Logf("%s's web.service runs again %v after it was killed, with the store gone", h.Name(), time.Since(at).Round(10*time.Millisecond))
	}
	for _, h := range []*lab.Host{ill, also} {
		if state := f.Property(h, etcdUnit, "ActiveState"); state != "failed" {
			t.Errorf("%s: the store's member is %s", h.Name(), state)
		}
		f.CheckStarts(h, etcdUnit, 1)
	}

	// A person starts both.
	for _, h := range []*lab.Host{ill, also} {
		f.Shell(h, "systemctl start --no-block "+etcdUnit)
	}
	f.waitMembers(f.Hosts()...)
	f.WaitServer()
	spine.Until(t, "a server to lead", func() bool { return f.Leader() != nil })
	for _, h := range f.Hosts() {
		checkAlone(t, f.Fleet, h, "web.service")
	}
	for _, in := range f.Incidents() {
		if in.Cause.Subject.Kind() == "etcd-member" || in.Cause.Subject.Kind() == "etcd" || strings.HasSuffix(string(in.Cause.Subject), etcdUnit) {
			f.CheckUntouched(in)
		}
	}
	f.Service(f.Host(3), "mail.service", "ExecStart=/bin/sleep infinity") // web.service has come and gone often enough
	f.breaks(f.Host(3), "mail.service")
	checkOneLog(t, f.Fleet)
	if got := f.etcdctl(f.Host(3), "get /registry/others --print-value-only"); got != "theirs" {
		t.Errorf("what others keep there is %q", got)
	}
	if got := f.etcdctl(f.Host(3), "get '' --from-key --keys-only | grep . | grep -cv '^/fettle/lab/'"); got != "1" {
		t.Errorf("%s keys are outside of the prefix, want the others' one", got)
	}

	// Debian's own etcd is older than a store may be.
	f.Shell(h, "systemd-run --quiet --unit=old /usr/bin/etcd --data-dir /srv/old --listen-client-urls http://127.0.0.1:12379 --advertise-client-urls http://127.0.0.1:12379 --listen-peer-urls http://127.0.0.1:12380")
	spine.Until(t, "an old etcd to answer", func() bool {
		return f.Try(h, "ETCDCTL_API=3 etcdctl --endpoints=http://127.0.0.1:12379 endpoint health")
	})
	r, err := h.Exec(t.Context(), spine.Program, "server", "--dir", "/srv/new", "--listen", "127.0.0.1:17401", "--store", "http://127.0.0.1:12379")
	if err != nil || r.Code == 0 || !strings.Contains(r.Stderr, "runs etcd 3.4.") || !strings.Contains(r.Stderr, "upgrade it") {
		t.Errorf("a store in an old etcd: %+v, %v", r, err)
	}
	t.Log(strings.TrimSpace(r.Stderr))
}
