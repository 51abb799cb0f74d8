package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// Numbers of the embedded etcd.
const (
	// etcdKeep is how many old revisions stay readable; nothing here reads any.
	etcdKeep = "1000"
	// One member elects itself; of several, another leads within half a second to a
	// second of the last word of the one before. A leader that is only slow costs one
	// election. Shorter ticks start no quicker and cost idle time.
	etcdTickMs     = 100
	etcdElectionMs = 500
	etcdMaxOps     = 1 << 16
	// etcdSnapshot is after how many entries etcd writes a snapshot, and so how many it
	// reads back when it starts; etcdCatchUp is how many of them it keeps in memory for a
	// server that was away shortly (one that missed more gets everything). Its defaults
	// are ten and five times that, which for entries of 100 KiB is a gigabyte.
	etcdSnapshot = 1000
	etcdCatchUp  = 1000
	// etcdCompact is how many keys etcd compacts in one transaction. It writes every page
	// anew on which one key goes, and each has what was overwritten: with its default of
	// 1,000, and entries of 100 KiB, its file doubled at once, up to its quota.
	etcdCompact = 100
	// maxLog is how large etcd's own log of warnings may grow from start to start.
	maxLog = 1 << 20
	// maxSocketPath is the longest path of a socket (sun_path, unix(7)).
	maxSocketPath = 107
	startWait     = 60 * time.Second
)

// embedded is an etcd server in this process that nothing outside can reach but
// its peers, where it has any: it listens for clients on one unix socket, in a folder
// that only its owner may enter.
//
// It is spoken to over that socket and not by etcd's in-process client, which
// panics and deadlocks (Defragment, Status after Close, many watches). There may
// be one in a process: etcd registers its metrics globally.
type embedded struct {
	etcd   *embed.Etcd
	client *clientv3.Client
	temp   string // folder of the socket, when the data folder's path is too long for one
}

func startEmbedded(ctx context.Context, dir string, peers *Peers, quota int64) (_ *embedded, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("folder %s has mode %#o: whoever may enter it can write to the store (chmod 700 %s)", dir, info.Mode().Perm(), dir)
	}
	s := &embedded{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	socket := filepath.Join(dir, "etcd.sock")
	if len(socket) > maxSocketPath {
		if s.temp, err = os.MkdirTemp("", "fettle-etcd-"); err != nil {
			return nil, err
		}
		socket = filepath.Join(s.temp, "etcd.sock")
	}
	conf, err := etcdConfig(dir, socket, peers, quota)
	if err != nil {
		return nil, err
	}
	if s.etcd, err = embed.StartEtcd(conf); err != nil {
		s.etcd = nil
		return nil, fmt.Errorf("start the embedded etcd in %s: %w (its log is %s)", dir, err, conf.LogOutputs[0])
	}
	if peers == nil { // one of several is ready when a majority is there, whenever that is
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, startWait)
		defer cancel()
	}
	select {
	case <-s.etcd.Server.ReadyNotify():
	case <-s.etcd.Server.StopNotify():
		return nil, fmt.Errorf("the embedded etcd in %s stopped while it started (its log is %s)", dir, conf.LogOutputs[0])
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the embedded etcd in %s: %w (its log is %s)", dir, ctx.Err(), conf.LogOutputs[0])
	}
	s.client, err = clientv3.New(clientv3.Config{
		Endpoints:          []string{"unix://" + socket},
		DialTimeout:        5 * time.Second,
		MaxCallSendMsgSize: MaxTxn + (1 << 20),
		Logger:             conf.GetLogger(), // or it would write to stderr
	})
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded etcd: %w", err)
	}
	below(s.client, keyRoot)
	return s, nil
}

func etcdConfig(dir, socket string, peers *Peers, quota int64) (*embed.Config, error) {
	conf := embed.NewConfig()
	conf.Name = "fettle"
	conf.Dir = filepath.Join(dir, "data")
	client := url.URL{Scheme: "unix", Path: socket}
	conf.ListenClientUrls, conf.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	// One member has no peers. The address that it advertises to them stays the
	// same through every start and is listened on by nobody.
	peer := url.URL{Scheme: "http", Host: "localhost:2380"}
	conf.ListenPeerUrls, conf.AdvertisePeerUrls = nil, []url.URL{peer}
	conf.InitialCluster = conf.Name + "=" + peer.String()
	conf.TickMs, conf.ElectionMs = etcdTickMs, etcdElectionMs
	if peers != nil {
		peers.configure(conf)
	}
	conf.QuotaBackendBytes = quota
	conf.AutoCompactionMode, conf.AutoCompactionRetention = embed.CompactorModeRevision, etcdKeep
	conf.SnapshotCount, conf.SnapshotCatchUpEntries = etcdSnapshot, etcdCatchUp
	conf.CompactionBatchLimit = etcdCompact
	conf.MaxRequestBytes, conf.MaxTxnOps = MaxTxn+(1<<20), etcdMaxOps
	conf.EnableGRPCGateway = false
	conf.Logger, conf.LogLevel = "zap", "warn"
	log := filepath.Join(dir, "etcd.log")
	if info, err := os.Stat(log); err == nil && info.Size() > maxLog {
		if err := os.Rename(log, log+".old"); err != nil {
			return nil, err
		}
	}
	conf.LogOutputs = []string{log}
	return conf, nil
}

// close stops client and server and returns when both have stopped.
func (s *embedded) close() error {
	var err error
	if s.client != nil {
		err = s.client.Close()
		s.client = nil
	}
	if s.etcd != nil {
		s.etcd.Close()
		s.etcd = nil
	}
	if s.temp != "" {
		err = errors.Join(err, os.RemoveAll(s.temp))
	}
	return err
}
