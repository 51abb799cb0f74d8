package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdmain"

	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/loopback"
	"fettle/internal/machine/procservices"
)

// The rig is real etcd servers on loopback, as child processes of this test
// binary: etcd of this module, or, where FETTLE_TEST_ETCD names a program, that
// one.

const childMark = "FETTLE_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childMark) != "" {
		etcdmain.Main([]string{"etcd"}) // does not return
	}
	os.Exit(m.Run())
}

// patience bounds what waits for real servers.
const patience = 60 * time.Second

type rig struct {
	t       *testing.T
	ctx     context.Context
	dir     string
	svc     *procservices.Services
	members []*testMember
}

type testMember struct {
	name, unit, env, data, client, peer string
	host                                fettle.Subject
	m                                   machine.Machine
	in                                  *instance
}

type rigOptions struct {
	members int               // 0: 3
	extra   map[string]string // settings
	oneHost bool              // all members on one machine, opened by one adapter
	serial  bool              // not beside other tests
	ports   []int             // two for each member; nil: any that are free
	comment string            // stands in every member's settings
	tls     string            // of the adapter's configuration
}

// newRig starts a cluster and waits until every member is healthy.
func newRig(t *testing.T, o rigOptions) *rig {
	t.Helper()
	if !o.serial {
		t.Parallel() // they wait more than they work
	}
	if o.members == 0 {
		o.members = 3
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	t.Cleanup(cancel)
	r := &rig{t: t, ctx: ctx, dir: t.TempDir()}
	clock := wallClock{}
	r.svc = procservices.New(clock.Now)
	run, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.svc.Run(run) }()
	t.Cleanup(func() {
		// At the end of a test nobody waits for a server to close in good order.
		for _, m := range r.members {
			_ = r.svc.Kill(context.Background(), m.unit, int(syscall.SIGKILL))
		}
		stop()
		<-ended
	})
	ports := o.ports
	if ports == nil {
		ports = loopback.Ports(t, 2*o.members)
	}
	for i := range o.members {
		name := fmt.Sprintf("m%d", i+1)
		m := &testMember{
			name: name, unit: "etcd-" + name + ".service", host: fettle.HostSubject("h" + name[1:]),
			env: filepath.Join(r.dir, name, "etcd.env"), data: filepath.Join(r.dir, name, "data"),
			client: fmt.Sprintf("http://127.0.0.1:%d", ports[2*i]), peer: fmt.Sprintf("http://127.0.0.1:%d", ports[2*i+1]),
		}
		if o.oneHost {
			m.host = fettle.HostSubject("h1")
		}
		m.m = machine.Machine{
			Identity: machine.Identity{Host: m.host, Hostname: m.host.Name(), BootID: "boot"},
			Clock:    clock, Files: osFiles{}, Services: r.svc, Filesystems: oneFilesystem{}, Commands: osCommands{},
		}
		r.members = append(r.members, m)
	}
	shared := New()
	for _, m := range r.members {
		r.define(m, o)
		a := shared
		if !o.oneHost {
			a = New()
		}
		config := fmt.Sprintf("system: sys\nunit: %s\nenv_file: %s\n%s", m.unit, m.env, o.tls)
		in, err := a.Open(ctx, m.m, []byte(config))
		if err != nil {
			t.Fatal(err)
		}
		m.in = in.(*instance)
		t.Cleanup(func() {
			if err := in.Close(); err != nil {
				t.Errorf("close %s: %v", m.name, err)
			}
		})
	}
	var start sync.WaitGroup
	for _, m := range r.members {
		start.Go(func() {
			if job, err := r.svc.Start(ctx, m.unit); err != nil || job.Result != "done" {
				t.Errorf("start %s: %+v, %v\n%s", m.name, job, err, r.log(m))
			}
		})
	}
	start.Wait()
	r.until("all serve", func() bool {
		l := r.members[0].in.cluster.look(ctx)
		serving := 0
		for _, v := range l.views {
			if v.listed && l.serving(v) == fettle.Yes {
				serving++
			}
		}
		return serving == o.members
	})
	return r
}

// define writes a member's settings and makes it a service.
func (r *rig) define(m *testMember, o rigOptions) {
	r.t.Helper()
	var all []string
	for _, other := range r.members {
		all = append(all, other.name+"="+other.peer)
	}
	settings := map[string]string{
		"NAME": m.name, "DATA_DIR": m.data, "LISTEN_PEER_URLS": m.peer, "LISTEN_CLIENT_URLS": m.client,
		"INITIAL_ADVERTISE_PEER_URLS": m.peer, "ADVERTISE_CLIENT_URLS": m.client, "INITIAL_CLUSTER": strings.Join(all, ","),
		"INITIAL_CLUSTER_STATE": "new", "INITIAL_CLUSTER_TOKEN": "tok",
		// Quicker than the default, so that a test does not wait long for elections.
		"HEARTBEAT_INTERVAL": "40", "ELECTION_TIMEOUT": "400", "LOG_LEVEL": "warn",
	}
	for k, v := range o.extra {
		settings[k] = v
	}
	text := "# settings of " + m.name + " " + o.comment + "\n"
	for _, k := range sortedKeys(settings) {
		text += fmt.Sprintf("ETCD_%s=%q\n", k, settings[k])
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(m.env), 0o755), os.MkdirAll(m.data, 0o700), os.WriteFile(m.env, []byte(text), 0o644)); err != nil {
		r.t.Fatal(err)
	}
	d := procservices.Definition{
		Name: m.unit, EnvFile: m.env, Ready: procservices.Ready{Notify: true},
		StartTimeout: 40 * time.Second, StopTimeout: 10 * time.Second,
	}
	if program := os.Getenv("FETTLE_TEST_ETCD"); program != "" {
		d.Argv = []string{program}
	} else {
		self, err := os.Executable()
		if err != nil {
			r.t.Fatal(err)
		}
		d.Argv, d.Env = []string{self}, []string{childMark + "=etcd"}
	}
	if err := r.svc.Define(d); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) log(m *testMember) string {
	lines, err := r.svc.Log(r.ctx, m.unit, 40)
	if err != nil {
		return err.Error()
	}
	return strings.Join(lines, "\n")
}

// until waits for the world to become so.
func (r *rig) until(what string, so func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	for !so() {
		over, stop := wallClock{}.After(20 * time.Millisecond)
		select {
		case <-over:
		case <-ctx.Done():
			stop()
			r.t.Fatalf("waited in vain: %s", what)
		}
	}
}

func (r *rig) member(s fettle.Subject) *testMember {
	for _, m := range r.members {
		if m.in.member == s {
			return m
		}
	}
	r.t.Fatalf("no member %s", s)
	return nil
}

// leader waits for a leader and returns it with the others.
func (r *rig) leader() (leads *testMember, others []*testMember) {
	r.t.Helper()
	r.until("a leader", func() bool {
		leads, others = nil, nil
		for _, m := range r.members {
			l := m.in.cluster.look(r.ctx)
			if v, ok := l.byID(l.leader); ok && v.status != nil {
				leads = r.member(v.subject)
				break
			}
		}
		for _, m := range r.members {
			if m != leads {
				others = append(others, m)
			}
		}
		return leads != nil
	})
	return leads, others
}

// put writes keys through a member.
func (r *rig) put(m *testMember, prefix string, n, length int) {
	r.t.Helper()
	e, err := m.in.cluster.dial.to(m.client)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range n {
		value := strings.Repeat(fmt.Sprintf("%s%06d.", prefix, i), length/8+1)[:length]
		if _, err := e.kv.Put(r.ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "%s%d", prefix, i), Value: []byte(value)}); err != nil {
			r.t.Fatalf("put %s%d at %s: %v", prefix, i, m.name, err)
		}
	}
}

// observe is one observation of a subject by a probe of a member's machine.
func (r *rig) observe(m *testMember, probe string, s fettle.Subject) fettle.Observation {
	r.t.Helper()
	for _, p := range m.in.Probes() {
		if p.Spec().Name != probe {
			continue
		}
		for _, o := range p.Observe(r.ctx, s) {
			if o.Subject == s {
				if err := o.Facts.Validate(); err != nil {
					r.t.Errorf("%s of %s: %v", probe, s, err)
				}
				return o
			}
		}
	}
	return fettle.Observation{Reason: "nothing was observed"}
}

// do applies an action on a member's machine, after its preview.
func (r *rig) do(m *testMember, action string, target fettle.Subject, params fettle.Facts) fettle.Result {
	r.t.Helper()
	res, err := r.try(m, action, target, params)
	if err != nil {
		r.t.Fatalf("%s on %s: %v", action, target, err)
	}
	return res
}

var keys sync.Map // how often an action was done, for its keys

func (r *rig) dispatch(m *testMember, action string, target fettle.Subject, params fettle.Facts) fettle.Dispatch {
	n, _ := keys.LoadOrStore(r.dir+action, new(int))
	count := n.(*int)
	*count++
	spec, ok := (&[]fettle.Catalogue{Catalogue()}[0]).FindAction(action)
	if !ok {
		r.t.Fatalf("no action %s", action)
	}
	return fettle.Dispatch{
		Schema: 1, Key: fmt.Sprintf("inc.%d.%s", *count, action), Incident: "inc",
		Step: fettle.Step{ID: "it", Action: action, Target: target, Host: m.host, Params: params, Timeout: spec.Timeout},
	}
}

func (r *rig) try(m *testMember, action string, target fettle.Subject, params fettle.Facts) (fettle.Result, error) {
	r.t.Helper()
	d := r.dispatch(m, action, target, params)
	act := m.in.Actions()[action]
	ctx, cancel := context.WithTimeout(r.ctx, d.Step.Timeout)
	defer cancel()
	preview, err := act.Preview(ctx, d.Step)
	if err != nil {
		return fettle.Result{}, fmt.Errorf("preview: %w", err)
	}
	if len(preview.Would) == 0 {
		r.t.Errorf("%s: the preview says nothing", action)
	}
	started := time.Now()
	res, err := act.Apply(ctx, d)
	r.t.Logf("%s on %s: %v: %v (%v)", action, target.Name(), time.Since(started).Round(time.Millisecond), res.Notes, preview.Would)
	return res, err
}

// wallClock is a machine.Clock.
type wallClock struct{}

func (wallClock) Now() time.Time  { return time.Now() }
func (wallClock) Wall() time.Time { return time.Now() }
func (wallClock) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// oneFilesystem says that everything is on one large filesystem.
type oneFilesystem struct{ machine.Filesystems }

func (oneFilesystem) Mounts(context.Context) ([]machine.Mount, error) {
	return []machine.Mount{{Point: "/", Type: "ext4"}}, nil
}

func (oneFilesystem) Usage(context.Context, string) (machine.Usage, error) {
	return machine.Usage{Size: 1 << 40, Free: 1 << 40, Avail: 1 << 40}, nil
}

// osFiles is a machine.Files.
type osFiles struct{}

func statOf(i fs.FileInfo) machine.Stat {
	s := i.Sys().(*syscall.Stat_t)
	return machine.Stat{
		Name: i.Name(), Mode: i.Mode(), Bytes: i.Size(), Allocated: s.Blocks * 512, UID: int(s.Uid), GID: int(s.Gid),
		Inode: s.Ino, Device: s.Dev, Links: uint64(s.Nlink), Modified: i.ModTime(),
	}
}

func (osFiles) ReadFile(_ context.Context, path string, limit int64) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err == nil && int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	return data, err
}

func (osFiles) Stat(_ context.Context, path string) (machine.Stat, error) {
	i, err := os.Lstat(path)
	if err != nil {
		return machine.Stat{}, err
	}
	return statOf(i), nil
}

func (osFiles) ReadDir(_ context.Context, path string) ([]machine.Stat, error) {
	list, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var out []machine.Stat
	for _, e := range list {
		if i, err := e.Info(); err == nil {
			out = append(out, statOf(i))
		}
	}
	return out, nil
}

func (osFiles) WriteFile(_ context.Context, path string, data []byte, perm fs.FileMode) error {
	part := path + ".new"
	if err := os.WriteFile(part, data, perm); err != nil {
		return err
	}
	return os.Rename(part, path)
}

func (osFiles) Rename(_ context.Context, from, to string) error {
	if _, err := os.Lstat(to); err == nil {
		return &fs.PathError{Op: "rename", Path: to, Err: fs.ErrExist}
	}
	return os.Rename(from, to)
}

func (osFiles) MkdirAll(_ context.Context, path string, perm fs.FileMode) error {
	return os.MkdirAll(path, perm)
}

func (osFiles) Chown(_ context.Context, path string, uid, gid int, recursive bool) error {
	if !recursive {
		return os.Lchown(path, uid, gid)
	}
	return filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(p, uid, gid))
	})
}

func (osFiles) Remove(_ context.Context, path string) error { return os.Remove(path) }

func (osFiles) Open(_ context.Context, path string) (io.ReadCloser, error) { return os.Open(path) }

func (osFiles) Create(_ context.Context, path string, perm fs.FileMode) (machine.Writer, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
}
