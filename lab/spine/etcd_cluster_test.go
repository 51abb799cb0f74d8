//go:build lab

package spine_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// etcdPolicy lets Fettle go on by itself where it would ask: nobody sits at the
// test. What loses something for good asks, whatever a policy says.
const etcdPolicy = `autonomy:
  - {runbook: "*", rung: "*", subject: "*", level: automatic}
budgets:
  - {kind: etcd-member, pool: ">part-of", max_number: 1, max_permille: 340, floor: 1, min_stay: 2}
rate: {per_subject: 10, per_fleet: 50, window: 1h}
`

const (
	etcdUnit = "etcd.service"
	etcdEnv  = "/etc/default/etcd"
	etcdData = "/var/lib/etcd/default"
)

// etcdOptions is how a cluster of three is laid out.
type etcdOptions struct {
	quota   int                          // bytes; 0: etcd's own default
	data    string                       // data directory of all members; "": where Debian has it
	files   map[string]map[string]string // adapters' configurations by host; what is not there is discovered
	prepare func(l *lab.Lab)             // called before etcd is started
	servers int                          // of Fettle's; 0: `fettle up`
	split   bool                         // Fettle runs under its units, and asks as it does out of the box
	binary  string                       // "": the one that is shipped
}

// etcdCluster is Debian's etcd on three hosts, which Fettle found by itself, with
// a client that writes all the time.
type etcdCluster struct {
	*spine.Fleet
	t    *testing.T
	data string
	name string // of the cluster: its token
	load *etcdLoad
}

// startEtcd boots the hosts, starts etcd on them, then Fettle, then the client,
// and returns when all agents look after their members and writes are taken.
func startEtcd(t *testing.T, o etcdOptions) *etcdCluster {
	t.Helper()
	if o.data == "" {
		o.data = etcdData
	}
	c := &etcdCluster{t: t, data: o.data, name: strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(t.Name(), "TestLab"), "/", "-"))}
	policy := etcdPolicy
	if o.split {
		_, policy, _ = strings.Cut(etcdPolicy, "level: automatic}\n")
	}
	c.Fleet = start(t, 3, spine.Options{Binary: o.binary, Policy: policy, Servers: o.servers, Split: o.split, Adapters: o.files, Prepare: func(l *lab.Lab) {
		c.Fleet = &spine.Fleet{Lab: l}
		if o.prepare != nil {
			o.prepare(l)
		}
		c.layOut(o)
	}})
	c.load = startLoad(t, c)
	for _, h := range c.Hosts() {
		spine.Until(t, h.Name()+"'s agent to look after its member", func() bool {
			return c.Try(h, "journalctl -b -o cat -u "+spine.UpUnit+" -u "+spine.AgentUnit+" | grep 'an adapter is open' | grep -q etcd")
		})
	}
	c.load.waitMore(50)
	return c
}

// layOut writes every member's settings and starts them together.
func (c *etcdCluster) layOut(o etcdOptions) {
	c.t.Helper()
	var initial []string
	for _, h := range c.Hosts() {
		initial = append(initial, h.Name()+"="+peerURL(h))
	}
	errs := make([]error, len(c.Hosts()))
	var group sync.WaitGroup
	for i, h := range c.Hosts() {
		env := fmt.Sprintf("ETCD_NAME=%s\nETCD_DATA_DIR=%s\nETCD_LISTEN_PEER_URLS=%s\nETCD_INITIAL_ADVERTISE_PEER_URLS=%s\nETCD_LISTEN_CLIENT_URLS=%s\nETCD_ADVERTISE_CLIENT_URLS=%s\n"+
			"ETCD_INITIAL_CLUSTER=%s\nETCD_INITIAL_CLUSTER_STATE=new\nETCD_INITIAL_CLUSTER_TOKEN=%s\n",
			h.Name(), o.data, peerURL(h), peerURL(h), clientURL(h), clientURL(h), strings.Join(initial, ","), c.name)
		if o.quota > 0 {
			env += fmt.Sprintf("ETCD_QUOTA_BACKEND_BYTES=%d\n", o.quota)
		}
		group.Go(func() {
			errs[i] = h.WriteFile(etcdEnv, []byte(env), 0o644)
			if errs[i] == nil {
				// Debian's unit restarts it on its own; here nobody but Fettle does.
				errs[i] = h.WriteFile("/etc/systemd/system/etcd.service.d/lab.conf", []byte("[Service]\nRestart=no\n"), 0o644)
			}
			if errs[i] == nil {
				_, errs[i] = h.Shell(c.t.Context(), "systemctl daemon-reload; systemctl start "+etcdUnit)
			}
		})
	}
	group.Wait()
	for i, err := range errs {
		if err != nil {
			c.t.Fatalf("%s: start etcd: %v", c.Hosts()[i].Name(), err)
		}
	}
	c.waitHealthy()
}

func peerURL(h *lab.Host) string   { return "http://" + h.Addr().String() + ":2380" }
func clientURL(h *lab.Host) string { return "http://" + h.Addr().String() + ":2379" }

// member is a host's member as Fettle names it, cluster the whole.
func (c *etcdCluster) member(h *lab.Host) fettle.Subject {
	return fettle.NewSubject("etcd-member", c.name, h.Name())
}

func (c *etcdCluster) cluster() fettle.Subject { return fettle.NewSubject("etcd", c.name) }

// client reaches one host's member, or several, from this machine.
func (c *etcdCluster) client(hosts ...*lab.Host) *clientv3.Client {
	c.t.Helper()
	var urls []string
	for _, h := range hosts {
		urls = append(urls, clientURL(h))
	}
	cl, err := clientv3.New(clientv3.Config{
		Endpoints: urls, DialTimeout: time.Second, Logger: zap.NewNop(), MaxCallRecvMsgSize: 64 << 20,
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return c.Dial(ctx, "tcp", addr)
		})},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return cl
}

// ask calls one member with a deadline.
func ask[T any](c *etcdCluster, h *lab.Host, do func(context.Context, *clientv3.Client) (T, error)) (T, error) {
	cl := c.client(h)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
	defer cancel()
	return do(ctx, cl)
}

// answer asks a member until it answers: one that is whole may be slow for a moment.
func answer[T any](c *etcdCluster, h *lab.Host, what string, do func(context.Context, *clientv3.Client) (T, error)) T {
	c.t.Helper()
	var got T
	spine.Until(c.t, h.Name()+"'s member to answer "+what, func() bool {
		v, err := ask(c, h, do)
		got = v
		return err == nil
	})
	return got
}

func (c *etcdCluster) status(h *lab.Host) (*clientv3.StatusResponse, error) {
	return ask(c, h, func(ctx context.Context, cl *clientv3.Client) (*clientv3.StatusResponse, error) {
		return cl.Status(ctx, clientURL(h))
	})
}

// leader finds the host whose member leads; follower the last that does not.
func (c *etcdCluster) leader() *lab.Host {
	c.t.Helper()
	var leads *lab.Host
	spine.Until(c.t, "a leader", func() bool {
		for _, h := range c.Hosts() {
			if s, err := c.status(h); err == nil && s.Leader == s.Header.MemberId {
				leads = h
			}
		}
		return leads != nil
	})
	return leads
}

func (c *etcdCluster) follower() *lab.Host {
	c.t.Helper()
	leads := c.leader()
	for _, h := range slices.Backward(c.Hosts()) {
		if h != leads {
			return h
		}
	}
	c.t.Fatal("no follower")
	return nil
}

// healthy is what the member's own /health says.
func (c *etcdCluster) healthy(h *lab.Host) bool {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, clientURL(h)+"/health", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	web := &http.Client{Transport: &http.Transport{DialContext: c.Dial, DisableKeepAlives: true}}
	resp, err := web.Do(req)
	return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

func (c *etcdCluster) waitHealthy() {
	c.t.Helper()
	for _, h := range c.Hosts() {
		spine.Until(c.t, h.Name()+"'s member to be healthy", func() bool { return c.healthy(h) })
	}
}

// identities are the ids that the cluster lists, by name.
func (c *etcdCluster) identities() map[string]uint64 {
	c.t.Helper()
	r := answer(c, c.leader(), "who the members are", func(ctx context.Context, cl *clientv3.Client) (*clientv3.MemberListResponse, error) {
		return cl.MemberList(ctx)
	})
	out := map[string]uint64{}
	for _, m := range r.Members {
		if m.IsLearner {
			c.t.Errorf("%s is still a learner", m.Name)
		}
		if _, twice := out[m.Name]; twice {
			c.t.Errorf("%q is listed twice", m.Name)
		}
		out[m.Name] = m.ID
	}
	return out
}

// checkIdentities fails the test unless exactly these hosts' members have another
// identity than before, and the others the same.
func (c *etcdCluster) checkIdentities(before map[string]uint64, renewed ...*lab.Host) {
	c.t.Helper()
	after := c.identities()
	if len(after) != len(before) {
		c.t.Errorf("the members are %x, were %x", after, before)
	}
	for _, h := range c.Hosts() {
		if want := slices.Contains(renewed, h); (before[h.Name()] != after[h.Name()]) != want || after[h.Name()] == 0 {
			c.t.Errorf("%s had identity %x and has %x; want another one: %v", h.Name(), before[h.Name()], after[h.Name()], want)
		}
	}
}

// checkWhole waits for all members to be healthy and to take writes, and fails
// the test unless each of them holds every acknowledged write and nothing else
// than the others.
func (c *etcdCluster) checkWhole() {
	c.t.Helper()
	c.waitHealthy()
	c.load.waitMore(20)
	c.load.stop()
	acked := c.load.acknowledged()
	for _, h := range c.Hosts() {
		spine.Until(c.t, h.Name()+" to have what the leader has", func() bool {
			mine, err := c.status(h)
			lead, err2 := c.status(c.leader())
			return err == nil && err2 == nil && mine.RaftAppliedIndex >= lead.RaftIndex
		})
		have := c.everything(h)
		lost := 0
		for _, k := range slices.Sorted(maps.Keys(acked)) {
			if have[k] != acked[k] {
				if lost++; lost < 5 {
					c.t.Errorf("%s: %s was acknowledged as %q and is %q", h.Name(), k, acked[k], have[k])
				}
			}
		}
		if lost > 0 {
			c.t.Errorf("%s: %d of %d acknowledged writes are not there", h.Name(), lost, len(acked))
		}
	}
	c.checkHashes()
	c.t.Logf("%d acknowledged writes are on all members; %d calls had no good answer", len(acked), c.load.failures())
}

// everything reads what the load wrote from one member alone.
func (c *etcdCluster) everything(h *lab.Host) map[string]string {
	c.t.Helper()
	r := answer(c, h, "what it holds", func(ctx context.Context, cl *clientv3.Client) (*clientv3.GetResponse, error) {
		return cl.Get(ctx, loadPrefix, clientv3.WithPrefix(), clientv3.WithSerializable())
	})
	out := map[string]string{}
	for _, kv := range r.Kvs {
		out[string(kv.Key)] = string(kv.Value)
	}
	return out
}

// checkHashes fails the test unless all members have one hash at one revision.
func (c *etcdCluster) checkHashes() {
	c.t.Helper()
	lead := c.leader()
	s := answer(c, lead, "its status", func(ctx context.Context, cl *clientv3.Client) (*clientv3.StatusResponse, error) {
		return cl.Status(ctx, clientURL(lead))
	})
	hashes := map[string]string{}
	spine.Until(c.t, "all members to answer their hash", func() bool {
		for _, h := range c.Hosts() {
			r, err := ask(c, h, func(ctx context.Context, cl *clientv3.Client) (*clientv3.HashKVResponse, error) {
				return cl.HashKV(ctx, clientURL(h), s.Header.Revision)
			})
			if err != nil {
				return false
			}
			hashes[h.Name()] = fmt.Sprintf("%d (compacted to %d)", r.Hash, r.CompactRevision)
		}
		return true
	})
	if all := slices.Compact(slices.Sorted(maps.Values(hashes))); len(all) != 1 {
		c.t.Errorf("hashes at revision %d differ: %v", s.Header.Revision, hashes)
	}
}

// each runs a script on several hosts at the same time.
func (c *etcdCluster) each(hosts []*lab.Host, script string) {
	c.t.Helper()
	errs := make([]error, len(hosts))
	var group sync.WaitGroup
	for i, h := range hosts {
		group.Go(func() { _, errs[i] = h.Shell(c.t.Context(), script) })
	}
	group.Wait()
	for i, err := range errs {
		if err != nil {
			c.t.Fatalf("%s: %v", hosts[i].Name(), err)
		}
	}
}

// fettle runs fettle on the server's host, where it must do well.
func (c *etcdCluster) fettle(args ...string) {
	c.t.Helper()
	if out, err := c.Host(1).Output(c.t.Context(), append([]string{spine.Program}, args...)...); err != nil {
		c.t.Fatalf("%v: %s", err, out)
	}
}
