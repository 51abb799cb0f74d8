package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.uber.org/zap"
)

// Existing is a store in an etcd cluster that is there already: Fettle writes below one
// prefix of it, takes the leader's lease there, and never touches its members.
type Existing struct {
	Where
	Name, Address string // of this server, as the others know it
	// Found: the prefix may be empty, and becomes this fleet's then. Without it an empty
	// one is a store that was lost.
	Found bool
	// Look: nothing is written; what is there is asked whose it is.
	Look bool
	// Waiting is told why the store cannot be used yet, while it is tried again; nil:
	// nobody is.
	Waiting func(error)
}

const (
	// keyCluster says in which etcd cluster the fleet's store is: a copy elsewhere is
	// another store.
	keyCluster = "cluster"
	// keyTrial is written to find out whether that is allowed. Nothing stays there.
	keyTrial = "trial/"
)

// What is asked of an existing cluster, and for how long.
const (
	statusWait = 3 * time.Second
	dialWait   = 5 * time.Second
	// etcd lets a client ask no more often than every five seconds whether the
	// connection is there (grpc-keepalive-min-time).
	aliveEvery = 6 * time.Second
	aliveWait  = 2 * time.Second
	existAgain = time.Second // between two tries to open a store that is not there
)

// leastMajor and leastMinor are the oldest version: 3.4 may lose a lease's end or a
// member's log, and its makers do not mend it any more.
const leastMajor, leastMinor = 3, 5

// errEmptied says that the fleet's keys are gone.
var errEmptied = errors.New("the fleet's keys are gone from the store (restore a backup: `fettle restore --store …`)")

// errUnready is wrapped by why a store cannot be used at the moment.
var errUnready = errors.New("the store cannot be used yet")

// below puts a root before all keys of a client.
func below(c *clientv3.Client, root string) {
	c.KV = namespace.NewKV(c.KV, root)
	c.Watcher = namespace.NewWatcher(c.Watcher, root)
	c.Lease = namespace.NewLease(c.Lease, root)
}

// openExisting connects to an existing cluster and makes sure that it is one that can be
// used, and the fleet's. It waits while no member answers, until ctx ends.
func openExisting(ctx context.Context, o EtcdOptions) (*Etcd, error) {
	if err := o.Existing.Check(); err != nil {
		return nil, err
	}
	for {
		e, err := tryExisting(ctx, o)
		if err == nil {
			return e, nil
		}
		if !errors.Is(err, errUnready) || ctx.Err() != nil {
			return nil, fmt.Errorf("store %s: %w", o.Existing, err)
		}
		if o.Existing.Waiting != nil {
			o.Existing.Waiting(err)
		}
		pause(ctx, existAgain)
	}
}

func tryExisting(ctx context.Context, o EtcdOptions) (_ *Etcd, err error) {
	w := o.Existing.Where
	word, err := w.password()
	if err != nil {
		return nil, err
	}
	secure, err := w.tls()
	if err != nil {
		return nil, err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: w.Endpoints, DialTimeout: dialWait, DialKeepAliveTime: aliveEvery, DialKeepAliveTimeout: aliveWait, TLS: secure, Username: w.User, Password: word,
		MaxCallSendMsgSize: MaxTxn, RejectOldCluster: false, // its error does not say what to do; see version
		Logger: zap.NewNop(), // what goes wrong is returned
	})
	if err != nil {
		return nil, sortOpen(fmt.Errorf("connect: %w", err))
	}
	e := &Etcd{o: o, client: client}
	e.room.limits, e.room.own, e.room.outside = o.Limits, &e.tally, true
	defer func() {
		if err != nil {
			err = errors.Join(err, e.closeClient())
		}
	}()
	if err := e.survey(ctx); err != nil {
		return nil, err
	}
	if err := e.apart(ctx); err != nil { // while keys are not below the root
		return nil, sortOpen(err)
	}
	below(client, w.root())
	e.kv = client.KV
	if o.Existing.Look {
		return e, nil
	}
	if err := e.openFiles(); err != nil {
		return nil, err
	}
	if err := e.found(ctx); err != nil {
		return nil, sortOpen(err)
	}
	return e, sortOpen(e.trial(ctx))
}

// sortOpen marks what may be better in a moment.
func sortOpen(err error) error {
	if err == nil || strings.Contains(err.Error(), "authentication handshake failed") || strings.Contains(err.Error(), "tls: ") {
		return err
	}
	var known rpctypes.EtcdError
	transient := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, rpctypes.ErrNoLeader) || errors.Is(err, rpctypes.ErrTimeout) ||
		errors.Is(err, rpctypes.ErrLeaderChanged) || errors.Is(err, rpctypes.ErrNoSpace) || errors.Is(err, rpctypes.ErrTimeoutDueToLeaderFail) || errors.Is(err, rpctypes.ErrTimeoutDueToConnectionLost)
	if !errors.As(err, &known) && strings.Contains(err.Error(), "code = Unavailable") || transient {
		return fmt.Errorf("%w: %w", errUnready, err)
	}
	return explain(err)
}

// closeClient ends the connections to an existing cluster. Closing again does nothing.
func (e *Etcd) closeClient() error {
	e.tally.close()
	if err := e.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close the store: %w", err)
	}
	return nil
}

// survey asks every member who it is.
func (e *Etcd) survey(ctx context.Context) error {
	type answer struct {
		from   string
		status *clientv3.StatusResponse
		err    error
	}
	answers := make(chan answer)
	ctx, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	for _, from := range e.o.Existing.Endpoints {
		go func() { // all are waited for below
			s, err := e.client.Status(ctx, from)
			answers <- answer{from, s, err}
		}()
	}
	var failed []error
	var cluster uint64
	var refused error
	for range e.o.Existing.Endpoints {
		switch a := <-answers; {
		case a.err != nil:
			failed = append(failed, fmt.Errorf("%s: %w", a.from, a.err))
		case !recent(a.status.Version):
			refused = fmt.Errorf("%s runs etcd %.20s, and a store needs %d.%d or later (upgrade it)", a.from, a.status.Version, leastMajor, leastMinor)
		case a.status.IsLearner:
			refused = fmt.Errorf("%s is a learner and answers nobody (name members that vote)", a.from)
		case cluster != 0 && cluster != a.status.Header.GetClusterId():
			refused = fmt.Errorf("the addresses are of different clusters, %x and %x (name the members of one)", cluster, a.status.Header.GetClusterId())
		default:
			cluster = a.status.Header.GetClusterId()
		}
	}
	switch {
	case refused != nil:
		return refused
	case cluster == 0:
		for _, err := range failed {
			if sorted := sortOpen(err); !errors.Is(sorted, errUnready) {
				return sorted
			}
		}
		return fmt.Errorf("%w: %w", errUnready, errors.Join(failed...))
	}
	e.cluster.Store(cluster)
	return nil
}

// recent reports whether a version is one that a store may have. What cannot be read is
// not.
func recent(version string) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (major > leastMajor || major == leastMajor && minor >= leastMinor)
}

// apart makes sure that no other fleet's keys are around ours: neither the embedded
// store of servers that have one, nor a prefix that ours lies within.
func (e *Etcd) apart(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	above := []string{keyRoot}
	for root := e.o.Existing.root(); ; {
		i := strings.LastIndex(strings.TrimSuffix(root, "/"), "/")
		if i < 0 {
			break
		}
		if root = root[:i+1]; !slices.Contains(above, root) {
			above = append(above, root)
		}
	}
	for _, root := range above {
		got, err := e.client.Get(ctx, root+keyFleet)
		switch {
		case errors.Is(err, rpctypes.ErrPermissionDenied): // nor can we touch anything there
		case err != nil:
			return err
		case len(got.Kvs) > 0 && root == keyRoot:
			return fmt.Errorf("it is the embedded store of the servers of fleet %.80q, which they keep for themselves (join them with --join and without --store, or name another etcd)", got.Kvs[0].Value)
		case len(got.Kvs) > 0:
			return fmt.Errorf("the prefix lies within %s, which is the store of fleet %.80q (choose a prefix beside it)", root, got.Kvs[0].Value)
		}
	}
	return nil
}

// found makes sure whose store it is, and makes it the fleet's where it is nobody's.
func (e *Etcd) found(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	cluster := strconv.FormatUint(e.cluster.Load(), 16)
	read := func() (fleet, in string, err error) {
		resp, err := e.kv.Txn(ctx).Then(clientv3.OpGet(keyFleet), clientv3.OpGet(keyCluster)).Commit()
		if err != nil {
			return "", "", err
		}
		return string(value(resp.Responses[0].GetResponseRange())), string(value(resp.Responses[1].GetResponseRange())), nil
	}
	fleet, in, err := read()
	if err == nil && fleet == "" {
		if err = e.vacant(ctx); err == nil {
			_, err = e.kv.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(keyFleet), "=", 0)).
				Then(clientv3.OpPut(keyFleet, e.o.Fleet), clientv3.OpPut(keyEpoch, "1"), clientv3.OpPut(keyCluster, cluster)).Commit()
		}
		if err == nil {
			fleet, in, err = read()
		}
	}
	switch {
	case err != nil:
		return err
	case fleet != e.o.Fleet:
		return fmt.Errorf("it is the store of fleet %.80q%s, and not of %q (choose another --store-prefix; to make this machine a server of that fleet, join it with a token)", fleet, e.whose(ctx), e.o.Fleet)
	case in != cluster:
		return moved(in, cluster)
	}
	return nil
}

// moved refuses a copy of a store.
func moved(from, to string) error {
	return fmt.Errorf("it is a copy of the fleet's store: that was in etcd cluster %.20s, and this is %s. Two stores would have two leaders, and agents do not obey an old one: clear the prefix and restore a backup, which begins a new epoch (`fettle restore --store …`)", from, to)
}

// vacant says why a prefix that is no fleet's may not become one's.
func (e *Etcd) vacant(ctx context.Context) error {
	got, err := e.kv.Get(ctx, first, clientv3.WithRange(last), clientv3.WithLimit(1))
	switch {
	case err != nil:
		return err
	case !e.o.Existing.Found:
		return errEmptied
	case len(got.Kvs) == 0:
		return nil
	case string(got.Kvs[0].Key) == keyRestoring:
		return fmt.Errorf("a restore was broken off there, or is under way (%.100s): clear it with etcdctl del %s --prefix, and restore again", got.Kvs[0].Value, e.o.Existing.root())
	}
	return fmt.Errorf("the prefix holds keys that are no fleet's, such as %.100q (choose an empty one)", e.o.Existing.root()+string(got.Kvs[0].Key))
}

// whose names the servers of the fleet that the store belongs to.
func (e *Etcd) whose(ctx context.Context) string {
	list, err := e.Shelf().List(ctx, "servers")
	if err != nil || len(list) == 0 {
		return ""
	}
	var names []string
	for _, data := range list {
		var h struct {
			Label string `json:"label"`
		}
		if json.Unmarshal(data, &h) == nil && h.Label != "" {
			names = append(names, fmt.Sprintf("%.64s", h.Label))
		}
	}
	slices.Sort(names)
	return " (servers " + strings.Join(names, ", ") + ")"
}

// trial finds out now, and not in an incident, what the store takes of us: leases, and
// changes as large as they may be. Nothing of it stays.
func (e *Etcd) trial(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	key := keyTrial + e.o.Existing.Name
	grant, err := e.client.Grant(ctx, leaseLife)
	if err != nil {
		return fmt.Errorf("a lease: %w", err)
	}
	defer func() { _, _ = e.client.Revoke(ctx, grant.ID) }() // it ends by itself
	if _, err := e.kv.Put(ctx, key, "x", clientv3.WithLease(grant.ID)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if _, err := e.kv.Delete(ctx, key); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	ops := []clientv3.Op{clientv3.OpPut(key, string(make([]byte, stageItem)))}
	for len(ops) < stageOps {
		ops = append(ops, clientv3.OpPut(key+strconv.Itoa(len(ops)), ""))
	}
	never := clientv3.Compare(clientv3.CreateRevision(key), ">", 0)
	if _, err := e.kv.Txn(ctx).If(never).Then(ops...).Commit(); err != nil {
		return fmt.Errorf("a change of %d KiB and %d operations: %w (it must take as much as etcd does out of the box: --max-request-bytes 1572864, --max-txn-ops 128)", stageItem>>10, stageOps, err)
	}
	return nil
}

// Warnings says what of an existing cluster a person should know and mend: that others
// can write there, and that it is slow to give up who leads.
func (e *Etcd) Warnings(ctx context.Context) []string {
	if e.o.Existing == nil {
		return nil
	}
	var list []string
	ctx, cancel := bounded(ctx)
	defer cancel()
	if slices.ContainsFunc(e.o.Existing.Endpoints, func(s string) bool { return strings.HasPrefix(s, "http://") }) {
		list = append(list, "the store is asked without TLS: whoever is root on this machine, or on the way, can read and change it")
	}
	// Who may not ask is told so only where there are users.
	if s, err := e.client.AuthStatus(ctx); err == nil && !s.Enabled {
		list = append(list, "the store's etcd has no users (auth is disabled): whoever reaches it can change the fleet's store, and so lead the fleet (etcdctl auth enable, with a user for "+e.o.Existing.root()+")")
	}
	if g, err := e.client.Grant(ctx, leaseLife); err == nil {
		if g.TTL > leaseLife {
			list = append(list, fmt.Sprintf("the store's etcd grants no lease shorter than %d s, for its election-timeout is long: so long nobody leads when a server that leads dies", g.TTL))
		}
		_, _ = e.client.Revoke(ctx, g.ID) // it ends by itself
	}
	return list
}

// answered notes which cluster an answer came from: one that was restored has another
// name.
func (e *Etcd) answered(h *etcdserverpb.ResponseHeader) {
	if id := h.GetClusterId(); id != 0 {
		e.cluster.Store(id)
	}
}

// Outside returns how the members of an existing cluster know it, in hexadecimal;
// false where the store is Fettle's own.
func (e *Etcd) Outside() (cluster string, ok bool) {
	if e.o.Existing == nil {
		return "", false
	}
	return strconv.FormatUint(e.cluster.Load(), 16), true
}
