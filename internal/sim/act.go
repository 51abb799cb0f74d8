package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"fettle/internal/fettle"
)

// doer is one action as one agent's process does it.
type doer struct {
	p    *process
	name string
}

// Preview implements fettle.Action.
func (a *doer) Preview(_ context.Context, s fettle.Step) (fettle.Preview, error) {
	return fettle.Preview{Would: []string{s.Action + " on " + string(s.Target)}}, nil
}

// Apply implements fettle.Action.
func (a *doer) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	return a.handOver(ctx, d)
}

// Undo implements fettle.Action.
func (a *doer) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	return a.handOver(ctx, d)
}

// handOver gives a step to the world, which has its effect some time later, and
// waits for the answer. Who is killed meanwhile does not return to anybody.
func (a *doer) handOver(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	s, done := a.p.s, make(chan *effect, 1)
	s.begun(a.p, d)
	ev := s.e.post("effect of "+d.Key, spread{time.Millisecond, 400 * time.Millisecond}, func() { s.touch(a.p, d, done) })
	a.p.hand(d.Key, ev)
	select {
	case e := <-done:
		return e.result, e.err
	case <-a.p.gone:
		return fettle.Result{}, &fettle.Error{Op: d.Step.Action, Subject: d.Step.Target, Class: fettle.NoAnswer, Err: errors.New("killed")}
	case <-ctx.Done():
		return fettle.Result{}, &fettle.Error{Op: d.Step.Action, Subject: d.Step.Target, Class: fettle.NoAnswer, Err: ctx.Err()}
	}
}

// Recover implements fettle.Action: the world knows what became of a key.
func (a *doer) Recover(_ context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	e := a.p.s.became(d.Key)
	switch {
	case e == nil:
		return fettle.NeverWillBe, fettle.Result{}, nil
	case e.times > 0:
		return fettle.Done, e.result, nil
	case e.pending:
		return fettle.Running, fettle.Result{}, nil
	}
	return fettle.NeverWillBe, fettle.Result{}, nil
}

// touch is the effect of a step on the world.
func (s *Sim) touch(p *process, d fettle.Dispatch, done chan<- *effect) {
	s.mu.Lock()
	e := s.w.effects[d.Key]
	s.mu.Unlock()
	e.pending = false
	s.checkTouch(p, d, e)
	e.times++
	e.outputs, e.err = s.w.do(d)
	e.result = fettle.Result{Outputs: e.outputs}
	if e.err == nil && !d.Undo {
		e.result.Receipts = receipts(d)
	}
	s.e.tell("%s: %s%s on %s under %s: %v", p.h.name, map[bool]string{true: "undo "}[d.Undo], d.Step.Action, d.Step.Target, d.Key, said(e.err))
	s.e.post("answer to "+d.Key, spread{0, 200 * time.Millisecond}, func() { done <- e })
}

func said(err error) string {
	if err == nil {
		return "done"
	}
	return err.Error()
}

func receipts(d fettle.Dispatch) []fettle.Receipt {
	if !slices.Contains(d.Step.Takes, fettle.TakesData) {
		return nil
	}
	if d.Step.Undo {
		return []fettle.Receipt{{What: "what was there", Where: "aside", Back: "mv aside back"}}
	}
	return []fettle.Receipt{{What: "what was there"}}
}

// do changes the world as an action says.
func (w *world) do(d fettle.Dispatch) (fettle.Facts, error) {
	s := d.Step
	if u := w.unit(s.Target); u != nil {
		return w.doUnit(u, d)
	}
	if m := w.member(s.Target); m != nil {
		return w.doMember(m, d)
	}
	if c := w.cluster(s.Target); c != nil {
		return w.doCluster(c, d)
	}
	return w.doOther(d)
}

func (w *world) doUnit(u *unit, d fettle.Dispatch) (fettle.Facts, error) {
	up := func() (fettle.Facts, error) {
		if err := u.start(); err != nil {
			return nil, err
		}
		return fettle.Facts{"invocation_id": u.invocation()}, nil
	}
	switch d.Step.Action {
	case "systemd.start":
		if d.Undo {
			u.stop("fettle")
			return nil, nil
		}
		return up()
	case "systemd.stop":
		if d.Undo {
			return up()
		}
		u.stop("fettle")
		return nil, nil
	case "systemd.restart":
		u.stop("fettle")
		return up()
	case "systemd.reset_failed":
		if u.state == "failed" {
			u.result = "success"
			u.turn("inactive")
		}
		return nil, nil
	case "careless.note":
		return nil, nil
	}
	return nil, fmt.Errorf("%s: %w", d.Step.Action, fettle.ErrNotSupported)
}

func (w *world) doMember(m *member, d fettle.Dispatch) (fettle.Facts, error) {
	c := m.c
	quorate := func() error {
		if c.leader == nil {
			return errors.New("the cluster has no leader")
		}
		return nil
	}
	undo := d.Undo
	switch d.Step.Action {
	case "etcd.start", "etcd.stop":
		if (d.Step.Action == "etcd.start") != undo {
			if err := m.unit.start(); err != nil {
				return nil, err
			}
			return fettle.Facts{"invocation_id": m.unit.invocation()}, nil
		}
		m.unit.stop("fettle")
		return nil, nil
	case "etcd.move_leader":
		if err := quorate(); err != nil {
			return nil, err
		}
		for _, o := range c.members {
			if s := c.seat(o); !undo && o != m && s != nil && s.voter && o.serves() && o.data.index == c.leader.data.index {
				c.leader, c.touched = o, w.e.now()
				return fettle.Facts{"leader": string(o.subject())}, nil
			}
		}
		return nil, nil
	case "etcd.member_remove":
		id, _ := d.Step.Params.Str("id")
		if err := quorate(); err != nil {
			return nil, err
		}
		if s := c.seat(m); s == nil || s.id != id {
			return nil, fmt.Errorf("no member has the identity %s", id)
		}
		c.remove(m)
		return nil, nil
	case "etcd.set_aside":
		switch n := len(m.aside); {
		case undo && n > 0:
			m.data, m.aside = m.aside[n-1], m.aside[:n-1]
		case !undo && m.unit.state == "active":
			return nil, errors.New("its server runs")
		case !undo && m.data != nil:
			m.aside, m.data, m.flipped = append(m.aside, m.data), nil, false
		}
		m.touched = w.e.now()
		return fettle.Facts{"path": "/aside", "bytes": int64(64)}, nil
	case "etcd.member_add":
		if err := quorate(); err != nil {
			return nil, err
		}
		if undo {
			c.remove(m)
			return nil, nil
		}
		if c.seat(m) != nil {
			return nil, errors.New("it is a member already")
		}
		id := c.mint(m)
		c.config = append(c.config, seat{id: id, member: m})
		c.touched, m.touched = w.e.now(), w.e.now()
		return fettle.Facts{"id": id}, nil
	case "etcd.configure":
		m.state, _ = d.Step.Params.Str("state")
		if undo {
			m.state = "new"
		}
		m.touched = w.e.now()
		return fettle.Facts{"backup": "/backup"}, nil
	case "etcd.promote":
		s := c.seat(m)
		if err := quorate(); err != nil {
			return nil, err
		}
		if s == nil || s.voter || !m.serves() {
			return nil, errors.New("it is no learner that serves")
		}
		m.data.index = c.leader.data.index // it is asked again until it has caught up
		s.voter, c.touched = true, w.e.now()
		return nil, nil
	case "etcd.defrag":
		return fettle.Facts{"before_bytes": int64(100), "after_bytes": int64(10)}, nil
	}
	return nil, fmt.Errorf("%s: %w", d.Step.Action, fettle.ErrNotSupported)
}

func (w *world) doCluster(c *cluster, d fettle.Dispatch) (fettle.Facts, error) {
	switch d.Step.Action {
	case "etcd.snapshot":
		if c.leader == nil {
			return nil, errors.New("no member serves")
		}
		return fettle.Facts{"path": "/snapshot", "sha256": "5", "revision": c.leader.data.index, "bytes": int64(10), "from": string(c.leader.subject())}, nil
	case "etcd.compact":
		rev, _ := d.Step.Params.Int("revision")
		return fettle.Facts{"revision": rev}, nil
	case "etcd.disarm":
		c.nospace, c.touched = false, w.e.now()
		return nil, nil
	case "etcd.restore":
		name, _ := d.Step.Params.Str("survivor")
		m := w.member(fettle.Subject(name))
		if m == nil || m.data == nil || m.data.damaged {
			return nil, errors.New("the survivor has no data")
		}
		m.unit.stop("fettle")
		m.aside = append(m.aside, m.data)
		m.data = &data{id: c.mint(m), index: m.data.index}
		c.config = []seat{{id: m.data.id, member: m, voter: true, joined: true}}
		c.acked = m.data.index // a person has given the rest up
		c.touched = w.e.now()
		return fettle.Facts{"path": "/aside", "snapshot": "/snapshot", "revision": m.data.index}, m.unit.start()
	}
	return nil, fmt.Errorf("%s: %w", d.Step.Action, fettle.ErrNotSupported)
}

// doOther does what is done to hosts, disks and copies.
func (w *world) doOther(d fettle.Dispatch) (fettle.Facts, error) {
	s, now := d.Step, w.e.now()
	h := w.host(s.Host)
	switch s.Action {
	case "filesystem.clean_package_cache":
		freed := h.disk.cache
		h.disk.cache, h.disk.touched = 0, now
		w.changed(h)
		return fettle.Facts{"freed_bytes": freed}, nil
	case "careless.drain":
		h.drained, h.touched = !d.Undo, now
	case "careless.tell":
		h.shy, h.touched = false, now
	case "careless.cut":
		w.e.tell("%s is cut off by a step", h.name)
	case "careless.wipe":
		h.disk.kept, h.disk.messy, h.disk.touched = 0, false, now
	case "careless.drop":
		for i := range w.copies.hosts {
			if w.copies.subject(i) == s.Target {
				w.copies.insync[i], w.copies.stale, w.copies.touched = d.Undo, -1, now
			}
		}
	default:
		return nil, fmt.Errorf("%s: %w", s.Action, fettle.ErrNotSupported)
	}
	w.changed(h)
	return nil, nil
}
