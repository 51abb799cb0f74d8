package etcd

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"fettle/internal/adapter/adaptertest"
	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/loopback"
	"fettle/internal/machine/procservices"
	"fettle/runbooks"
)

const canary = "canary-3f9d1c"

// suite asks what every adapter is asked, of three real servers. All rigs have the
// same ports, so that the identities are the same in each.
type suite struct {
	ports []int
	now   *rig // the rig of the present question
}

func (s *suite) rig(t *testing.T) adaptertest.Rig {
	t.Helper()
	s.now = newRig(t, rigOptions{serial: true, ports: s.ports, comment: canary})
	s.now.put(s.now.witness(), "k", 10, 64)
	return s.of(s.now)
}

func (s *suite) of(r *rig) adaptertest.Rig {
	m := r.members[0]
	if err := m.in.Close(); err != nil { // the suite opens it itself
		r.t.Fatal(err)
	}
	return adaptertest.Rig{
		Adapter: New(), Machine: m.m, Config: fmt.Appendf(nil, "system: sys\nunit: %s\nenv_file: %s\n", m.unit, m.env),
		Canary: canary, State: r.state, Settle: r.settle,
	}
}

// witness is a member that no question is about.
func (r *rig) witness() *testMember { return r.members[2] }

// settle waits until all that run serve, and the others are seen not to.
func (r *rig) settle(ctx context.Context) {
	r.until("it settles", func() bool {
		l := r.witness().in.cluster.look(ctx)
		for _, m := range r.members {
			v, _ := l.of(m.in.member)
			u, err := r.svc.Unit(ctx, m.unit)
			if up := err == nil && u.ActiveState == "active"; v.listed && up != (l.serving(v) == fettle.Yes) {
				return false
			}
		}
		return l.leader != 0
	})
}

// state is what a question may change.
func (r *rig) state(ctx context.Context) string {
	var b strings.Builder
	l, err := r.witness().in.cluster.current(ctx)
	if err != nil {
		return err.Error()
	}
	for _, m := range r.members {
		v, _ := l.of(m.in.member)
		u, err := r.svc.Unit(ctx, m.unit)
		env, eerr := os.ReadFile(m.env)
		_, derr := os.Stat(filepath.Join(m.data, "member"))
		fmt.Fprintf(&b, "%s %s listed %v learner %v leads %v; unit %s %v; data %v; settings %q %v\n",
			m.name, hex(v.id), v.listed, v.learner, v.id == l.leader, u.ActiveState, err, derr == nil, env, eerr)
		snaps, _ := filepath.Glob(filepath.Join(filepath.Dir(m.data), "fettle-snapshots", "*"))
		fmt.Fprintf(&b, " snapshots %v\n", snaps)
		if v.status != nil {
			alarms, _ := alarmsIn(v.status.Errors)
			fmt.Fprintf(&b, " revision %d alarms %v\n", v.status.Header.GetRevision(), alarms)
		}
	}
	return b.String()
}

// follow makes sure that m1 does not lead, or that it does.
func follow(leads bool) func(context.Context, *testing.T, *rig) {
	return func(ctx context.Context, t *testing.T, r *rig) {
		m1, m2 := r.members[0], r.members[1]
		from, to := m1, m2
		if leads {
			from, to = m2, m1
		}
		r.until("leadership is where it must be", func() bool {
			l, _ := r.leader()
			if (l == m1) == leads {
				return true
			}
			if l == r.witness() {
				from = l
			}
			_, err := moveLeader{r.witness().in.cluster}.Apply(ctx, fettle.Dispatch{Step: fettle.Step{Target: from.in.member, Params: fettle.Facts{"to": string(to.in.member)}}})
			if err != nil {
				t.Logf("not yet: %v", err)
			}
			return false
		})
	}
}

// removed stops m1 and removes it.
func removed(ctx context.Context, t *testing.T, r *rig) {
	follow(false)(ctx, t, r)
	m1 := r.members[0]
	if _, err := r.svc.Stop(ctx, m1.unit); err != nil {
		t.Fatal(err)
	}
	l := r.witness().in.cluster.look(ctx)
	v, _ := l.of(m1.in.member)
	err := r.witness().in.cluster.attempt(ctx, func(ctx context.Context, e *endpoint) error { return removeAt(ctx, e, v.id) })
	if err != nil {
		t.Fatal(err)
	}
}

func (s *suite) action(name string, target fettle.Subject, params fettle.Facts, prepare ...func(context.Context, *testing.T, *rig)) adaptertest.ActionCase {
	return adaptertest.ActionCase{Action: name, Target: target, Params: params, Prepare: func(ctx context.Context, t *testing.T, _ adaptertest.Rig) []fettle.Generation {
		for _, p := range prepare {
			p(ctx, t, s.now)
		}
		return nil
	}}
}

// TestAdapter is the suite that every adapter passes.
func TestAdapter(t *testing.T) {
	s := &suite{ports: loopback.Ports(t, 6)}
	m1, cluster := fettle.NewSubject(KindMember, "sys", "m1"), fettle.NewSubject(KindCluster, "sys")
	id := ""
	t.Run("identity", func(t *testing.T) {
		r := newRig(t, rigOptions{serial: true, ports: s.ports})
		v, _ := r.members[0].in.cluster.look(r.ctx).of(m1)
		id = hex(v.id)
	})
	adaptertest.Run(t, adaptertest.Suite{
		New:   s.rig,
		Books: adaptertest.Books(runbooks.FS(), New()),
		Actions: []adaptertest.ActionCase{
			s.action("etcd.start", m1, nil, follow(false), func(ctx context.Context, t *testing.T, r *rig) {
				if _, err := r.svc.Stop(ctx, r.members[0].unit); err != nil {
					t.Fatal(err)
				}
			}),
			s.action("etcd.stop", m1, nil, follow(false)),
			s.action("etcd.move_leader", m1, nil, follow(true)),
			s.action("etcd.member_remove", m1, fettle.Facts{"id": id}, follow(false), func(ctx context.Context, t *testing.T, r *rig) {
				if _, err := r.svc.Stop(ctx, r.members[0].unit); err != nil {
					t.Fatal(err)
				}
			}),
			s.action("etcd.set_aside", m1, nil, removed),
			s.action("etcd.member_add", m1, nil, removed),
			s.action("etcd.configure", m1, fettle.Facts{"state": "new"}, func(ctx context.Context, t *testing.T, r *rig) {
				edit(t, r.members[0].env, Settings{setInitialState: "existing"})
			}),
			s.action("etcd.snapshot", cluster, nil),
			s.action("etcd.compact", cluster, fettle.Facts{"revision": int64(11)}, func(_ context.Context, _ *testing.T, r *rig) { r.put(r.witness(), "k", 20, 20) }),
			s.action("etcd.defrag", m1, nil),
			s.action("etcd.disarm", cluster, nil, func(ctx context.Context, t *testing.T, r *rig) {
				_, v, e, err := r.witness().in.cluster.leader(ctx)
				if err == nil {
					_, err = e.maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: v.id, Alarm: pb.AlarmType_NOSPACE})
				}
				if err != nil {
					t.Fatal(err)
				}
			}),
		},
		Faults: []adaptertest.FaultCase{
			{Fault: "etcd.wipe", Target: m1},
			{Fault: "etcd.damage_wal", Target: m1},
			{Fault: "etcd.flip", Target: m1, Params: fettle.Facts{"key": "k7"}},
		},
		Hang:     s.hang,
		ReadOnly: s.readOnly,
		Excused: map[string]string{
			"action etcd.promote":          "the identity that it promotes is minted while the test runs; TestDataLost and others do it",
			"action etcd.restore":          "it is for a cluster whose majority is lost; TestMajorityLost does it",
			"fault etcd.kill":              "one observer with one second of patience beside a delay of three; TestKilled does it",
			"fault etcd.fill_quota":        "reverting it leaves the alarm, which is freed and lifted by a plan; TestNoSpace does it",
			"read-only etcd.start":         "the member runs in that rig, so there is nothing to do",
			"read-only etcd.move_leader":   cannotReadOnly,
			"read-only etcd.member_remove": cannotReadOnly,
			"read-only etcd.member_add":    "its peer URL is that of a member, so it is refused before any right is asked for",
			"read-only etcd.compact":       cannotReadOnly,
			"read-only etcd.defrag":        cannotReadOnly,
			"read-only etcd.disarm":        cannotReadOnly,
		},
	})
}

const cannotReadOnly = "a cluster without users knows no client that may only read; TestDenied shows what a refused user becomes"

func edit(t *testing.T, file string, change Settings) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if data, err = EditEnvironment(data, change); err == nil {
		err = os.WriteFile(file, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// hang is a member that accepts and never answers.
func (s *suite) hang(t *testing.T) (adaptertest.Rig, []fettle.Look) {
	t.Helper()
	at := silent(t)
	m := machine.Machine{
		Identity: machine.Identity{Host: fettle.HostSubject("h1")}, Clock: wallClock{}, Files: osFiles{},
		Services: procservices.New(wallClock{}.Now), Filesystems: oneFilesystem{}, Commands: osCommands{},
	}
	config := fmt.Appendf(nil, "system: sys\nname: m1\ndata_dir: %s\nclient_endpoint: http://%s\n", t.TempDir(), at)
	return adaptertest.Rig{Adapter: New(), Machine: m, Config: config, Canary: canary},
		[]fettle.Look{{Subject: fettle.NewSubject(KindMember, "sys", "m1"), Probe: memberProbe}}
}

// silent is the address of a peer that accepts and never answers.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var held []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				for _, c := range held {
					c.Close()
				}
				return
			}
			held = append(held, c)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// readOnly is a machine on which nothing may be changed.
func (s *suite) readOnly(t *testing.T) adaptertest.Rig {
	t.Helper()
	rig := s.rig(t)
	rig.Machine.Services = lookingServices{rig.Machine.Services}
	rig.Machine.Files = lookingFiles{rig.Machine.Files}
	return rig
}

type lookingServices struct{ machine.Services }

func (lookingServices) Start(context.Context, string) (machine.JobResult, error) {
	return machine.JobResult{}, fmt.Errorf("start: %w", fs.ErrPermission)
}

func (lookingServices) Stop(context.Context, string) (machine.JobResult, error) {
	return machine.JobResult{}, fmt.Errorf("stop: %w", fs.ErrPermission)
}

type lookingFiles struct{ machine.Files }

func (lookingFiles) WriteFile(context.Context, string, []byte, fs.FileMode) error {
	return fs.ErrPermission
}
func (lookingFiles) Rename(context.Context, string, string) error        { return fs.ErrPermission }
func (lookingFiles) MkdirAll(context.Context, string, fs.FileMode) error { return fs.ErrPermission }
func (lookingFiles) Remove(context.Context, string) error                { return fs.ErrPermission }
func (lookingFiles) Create(context.Context, string, fs.FileMode) (machine.Writer, error) {
	return nil, fs.ErrPermission
}
