//go:build lab

package spine_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

const (
	certExpiring fettle.Code = "etcd.cert_expiring"
	certExpired  fettle.Code = "etcd.cert_expired"

	etcdPKI = "/etc/etcd/pki"
)

// authority issues the members' certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.pem, _ = a.issue(time.Now().Add(1000*time.Hour), nil)
	return a
}

// issue makes a certificate, of the authority itself when it has none.
func (a *authority) issue(end time.Time, ip net.IP) (cert, key []byte) {
	a.t.Helper()
	must := func(err error) {
		if err != nil {
			a.t.Fatal(err)
		}
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "etcd"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: end, IPAddresses: []net.IP{ip, net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.IPAddresses = true, true, x509.KeyUsageCertSign, nil
		parent, signer = c, k
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &k.PublicKey, signer)
	must(err)
	if a.cert == nil {
		a.cert, err = x509.ParseCertificate(der)
		must(err)
		a.key = k
	}
	raw, err := x509.MarshalECPrivateKey(k)
	must(err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})
}

// give writes a host's certificate, good until end, over the one it has.
func (a *authority) give(h *lab.Host, end time.Time) {
	a.t.Helper()
	cert, key := a.issue(end, net.IP(h.Addr().AsSlice()))
	// One file, so that nobody reads a certificate with another's key.
	for name, data := range map[string][]byte{"ca.pem": a.pem, "member.pem": slices.Concat(cert, key)} {
		if err := h.WriteFile(etcdPKI+"/"+name, data, 0o644); err != nil {
			a.t.Fatal(err)
		}
	}
}

// tlsFleet is Debian's etcd on three hosts, which trust nobody without a
// certificate, and Fettle, which found it by itself.
type tlsFleet struct {
	*spine.Fleet
	t *testing.T
	*authority
}

func startTLS(t *testing.T) *tlsFleet {
	t.Helper()
	f := &tlsFleet{t: t, authority: newAuthority(t)}
	f.Fleet = start(t, 3, spine.Options{Policy: etcdPolicy, Prepare: func(l *lab.Lab) {
		var initial []string
		for _, h := range l.Hosts() {
			f.give(h, time.Now().Add(900*time.Hour))
			initial = append(initial, fmt.Sprintf("%s=https://%s:2380", h.Name(), h.Addr()))
		}
		for _, h := range l.Hosts() {
			env := fmt.Sprintf("ETCD_NAME=%s\nETCD_DATA_DIR=%s\nETCD_INITIAL_CLUSTER=%s\nETCD_INITIAL_CLUSTER_STATE=new\nETCD_INITIAL_CLUSTER_TOKEN=secure\n", h.Name(), etcdData, strings.Join(initial, ","))
			for _, v := range []string{"LISTEN_PEER_URLS", "INITIAL_ADVERTISE_PEER_URLS"} {
				env += fmt.Sprintf("ETCD_%s=https://%s:2380\n", v, h.Addr())
			}
			for _, v := range []string{"LISTEN_CLIENT_URLS", "ADVERTISE_CLIENT_URLS"} {
				env += fmt.Sprintf("ETCD_%s=https://%s:2379\n", v, h.Addr())
			}
			for _, v := range []string{"", "PEER_"} {
				env += fmt.Sprintf("ETCD_%[1]sCERT_FILE=%[2]s/member.pem\nETCD_%[1]sKEY_FILE=%[2]s/member.pem\nETCD_%[1]sTRUSTED_CA_FILE=%[2]s/ca.pem\nETCD_%[1]sCLIENT_CERT_AUTH=true\n", v, etcdPKI)
			}
			for file, text := range map[string]string{etcdEnv: env, "/etc/systemd/system/etcd.service.d/lab.conf": "[Service]\nRestart=no\n"} {
				if err := h.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := h.Shell(t.Context(), "systemctl daemon-reload; systemctl start --no-block "+etcdUnit); err != nil {
				t.Fatal(err)
			}
		}
		own := &spine.Fleet{Lab: l}
		for _, h := range l.Hosts() {
			spine.Until(t, h.Name()+"'s member to be healthy", func() bool { return healthyTLS(t, own, h) })
		}
	}})
	for _, h := range f.Hosts() {
		spine.Until(t, h.Name()+"'s agent to look after its member", func() bool {
			return f.Try(h, "journalctl -b -o cat -u "+spine.UpUnit+" -u "+spine.AgentUnit+" | grep 'an adapter is open' | grep -q etcd")
		})
	}
	return f
}

// healthyTLS is what the member's own tool says, over a new connection.
func healthyTLS(t *testing.T, f *spine.Fleet, h *lab.Host) bool {
	r, err := h.Exec(t.Context(), "env", "ETCDCTL_API=3", "etcdctl", "--endpoints=https://"+h.Addr().String()+":2379",
		"--cacert="+etcdPKI+"/ca.pem", "--cert="+etcdPKI+"/member.pem", "--key="+etcdPKI+"/member.pem", "endpoint", "health")
	if err != nil {
		t.Fatal(err)
	}
	return r.Code == 0
}

func (f *tlsFleet) member(h *lab.Host) fettle.Subject {
	return fettle.NewSubject("etcd-member", "secure", h.Name())
}

// A cluster that trusts nobody without a certificate is found, seen and mended as
// any other. A certificate that is about to end is reported, and nothing touched.
// When it has ended nothing shows it, until its member is started again: the
// certificate is the cause, the member that nobody takes in its symptom, and it is
// not started once more. A new file mends it.
func TestLabEtcdCertificates(t *testing.T) {
	f := startTLS(t)
	for _, h := range f.Hosts() {
		if found, r := doctor(t, h); r.Code != 0 || len(found.Conditions) != 0 || len(found.NotSeen) != 0 {
			t.Errorf("%s: doctor: exit status %d, raised %v, not seen %v", h.Name(), r.Code, found.Conditions, found.NotSeen)
		}
	}
	h3 := f.Host(3)
	f.Shell(h3, "systemctl kill -s TERM "+etcdUnit)
	ended := f.WaitFor("etcd.member_down", f.member(h3), fettle.Resolved)
	// etcd waits for its clients before it ends, for seconds: a person may have been
	// called about a member that does not answer and still runs.
	checkBegunOnce(t, ended)
	f.CheckStarts(h3, etcdUnit, 2)
	spine.Until(t, "the third member to be healthy", func() bool { return healthyTLS(t, f.Fleet, h3) })

	h := f.Host(2)
	before := f.Snapshot()
	end := time.Now().Add(30 * time.Second).Truncate(time.Second)
	f.give(h, end)
	// says is true of an incident whose raised condition names file and time.
	says := func(in fettle.Incident) bool {
		return slices.ContainsFunc(in.Story, func(e fettle.Event) bool {
			return strings.Contains(e.Text, etcdPKI+"/member.pem") && strings.Contains(e.Text, end.UTC().Format(time.RFC3339))
		})
	}
	warned := f.WaitFor(certExpiring, f.member(h), fettle.Held, fettle.Escalated)
	t.Logf("about to end: %s: %s", warned.State, warned.Why)
	if !says(warned) {
		t.Errorf("its story does not say which certificate and when: %v", warned.Story)
	}
	f.CheckUntouched(warned)

	over := f.WaitFor(certExpired, f.member(h), fettle.Held, fettle.Escalated)
	t.Logf("ended: %s: %s", over.State, over.Why)
	if now := time.Now(); now.Before(end) {
		t.Errorf("it was called ended at %v and ends at %v", now, end)
	}
	if !says(over) {
		t.Errorf("its story does not say which certificate and when: %v", over.Story)
	}
	f.CheckUnchanged(before)

	// A person starts the member again. The others do not take it in.
	f.Shell(h, "systemctl restart --no-block "+etcdUnit)
	down := key("etcd.member_down", f.member(h))
	f.WaitIncident("the certificate to be the cause, and the member that is down its symptom", func(in fettle.Incident) bool {
		return in.Cause == over.Cause && !in.State.Ended() && slices.Contains(in.Conditions, down)
	})
	other := goOn(f.Fleet, h, "other.service")
	f.CheckUntouched(f.Incident(over.ID))
	if state := f.Property(h, etcdUnit, "ActiveState"); state != "activating" {
		t.Errorf("the unit of the member that nobody takes in is %s", state)
	}
	f.CheckOnly(ended.Cause, warned.Cause, over.Cause, other)

	f.give(h, time.Now().Add(900*time.Hour))
	spine.Until(t, "the renewed member to be healthy", func() bool { return healthyTLS(t, f.Fleet, h) })
	f.CheckUntouched(f.WaitFor(certExpired, f.member(h), fettle.Resolved))
	f.CheckStarts(h, etcdUnit, 2) // mine, both
	f.CheckUnchanged(before, "h2 "+etcdUnit, "h2 other.service")
	f.CheckOnly(ended.Cause, warned.Cause, over.Cause, other)
}
