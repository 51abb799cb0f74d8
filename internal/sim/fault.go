package sim

import (
	"slices"
	"time"
)

// faults is how the network is, and what may still go wrong.
type faults struct {
	delay    spread
	again    int // messages that come twice, per mille
	late     int // messages that come seconds later
	until    time.Time
	victim   *host // most of it befalls one host
	mid      int   // how often something goes wrong just when a step begins, per mille
	restored bool
}

// fault is one thing that can go wrong.
type fault struct {
	name   string
	weight int
	strike func(s *Sim, h *host)
}

func after(s *Sim, what string, d spread, f func()) { s.e.post(what, d, f) }

// kinds lists everything that goes wrong, and how often.
func kinds() []fault {
	return []fault{
		{"member killed", 12, func(_ *Sim, h *host) { etcdOf(h).failIf("signal") }},
		{"data lost", 5, func(s *Sim, h *host) { s.lose(h, false) }},
		{"log damaged", 4, func(s *Sim, h *host) { s.lose(h, true) }},
		{"bytes flipped", 2, func(s *Sim, h *host) {
			if m := etcdOf(h).member; m.runs() {
				m.flipped, m.touched = true, s.e.now()
			}
		}},
		{"no space", 2, func(s *Sim, _ *host) {
			c := s.w.clusters[0]
			c.nospace, c.touched = true, s.e.now()
		}},
		{"cache fills the disk", 3, func(s *Sim, h *host) { s.fill(h, 600, 0) }},
		{"something fills the disk", 2, func(s *Sim, h *host) { s.fill(h, 0, 600) }},
		{"service crashes", 10, func(_ *Sim, h *host) { h.units[0].failIf("exit-code") }},
		{"service is broken", 4, func(_ *Sim, h *host) {
			h.units[0].broken = true
			h.units[0].failIf("exit-code")
		}},
		{"service hangs", 4, func(s *Sim, h *host) {
			u := h.units[0]
			u.hung, u.touched = u.state == "active", s.e.now()
			s.changed(h)
		}},
		{"service is slow", 8, func(s *Sim, h *host) {
			u := h.units[s.e.rng.IntN(len(h.units))]
			u.slow, u.touched = u.state == "active", s.e.now()
			s.changed(h)
		}},
		{"person stops a service", 6, func(s *Sim, h *host) { s.byHand(h, "stop") }},
		{"person works on one member, and another is slow", 5, func(s *Sim, h *host) {
			if u := etcdOf(h); u.state == "active" {
				u.stop("person")
			}
			after(s, "another is slow", spread{8 * time.Second, 15 * time.Second}, func() {
				for _, o := range s.w.hosts {
					if u := etcdOf(o); u.state == "active" {
						u.slow, u.touched = true, s.e.now()
						s.changed(o)
						return
					}
				}
			})
		}},
		{"person masks a service", 3, func(s *Sim, h *host) { s.byHand(h, "mask") }},
		{"person starts a service", 5, func(s *Sim, h *host) { s.byHand(h, "start") }},
		{"host loses power", 4, func(s *Sim, h *host) { s.blackout(h) }},
		{"agent killed", 12, func(s *Sim, h *host) { s.bounce(h, spread{50 * time.Millisecond, 8 * time.Second}) }},
		{"host imaged anew", 1, func(s *Sim, h *host) { s.reimage(h) }},
		{"probes hang", 5, func(s *Sim, h *host) {
			a := s.agentOf(h)
			a.slow = true
			after(s, "probes of "+h.name+" answer again", spread{5 * time.Second, 25 * time.Second}, func() { a.slow, a.hung = false, s.e.now() })
		}},
		{"server killed", 8, func(s *Sim, _ *host) { s.fell() }},
		{"server resigns", 3, func(s *Sim, _ *host) { s.resign() }},
		{"store away", 4, func(s *Sim, _ *host) {
			s.depot.set(func(d *depot) { d.refuses = true })
			after(s, "store is back", spread{time.Second, 20 * time.Second}, func() { s.depot.set(func(d *depot) { d.refuses = false }) })
		}},
		{"store slow", 4, func(s *Sim, _ *host) {
			slow := spread{50 * time.Millisecond, 3 * time.Second}.draw(s.e.rng)
			s.depot.set(func(d *depot) { d.slow, d.wasSlow = slow, true })
			after(s, "store is fast", spread{5 * time.Second, 30 * time.Second}, func() { s.depot.set(func(d *depot) { d.slow = 0 }) })
		}},
		{"server cut from the store", 4, func(s *Sim, _ *host) { s.cut(s.leading(), "store", spread{2 * time.Second, 30 * time.Second}, false) }},
		{"agent cut from the server", 6, func(s *Sim, h *host) {
			s.cut(s.leading(), h.name, spread{time.Second, 25 * time.Second}, s.chance(400))
		}},
		{"members cut from each other", 4, func(s *Sim, h *host) {
			for _, o := range s.w.hosts {
				if o != h && s.chance(700) {
					s.cut(h.name, o.name, spread{3 * time.Second, 30 * time.Second}, s.chance(200))
				}
			}
		}},
		{"copy of the store put back", 6, func(s *Sim, _ *host) { s.putBack() }},
		{"host to be drained", 8, func(s *Sim, _ *host) {
			for _, h := range s.w.hosts {
				if s.chance(500) {
					h.warm, h.touched = !h.drained, s.e.now()
					s.changed(h)
				}
			}
		}},
		{"host is shy", 3, func(s *Sim, h *host) {
			h.shy, h.touched = true, s.e.now()
			s.changed(h)
		}},
		{"disk is messy", 4, func(s *Sim, h *host) {
			h.disk.messy, h.disk.touched = true, s.e.now()
			s.changed(h)
		}},
		{"copy is stale", 4, func(s *Sim, h *host) {
			c := s.w.copies
			if i := slices.Index(c.hosts, h); i >= 0 {
				c.stale, c.touched = i, s.e.now()
				s.changed(h)
			}
		}},
		{"fleet frozen", 4, func(s *Sim, _ *host) { s.freezeFleet() }},
		{"host in maintenance", 6, func(s *Sim, h *host) { s.maintain(h) }},
		{"host frozen", 4, func(s *Sim, h *host) { s.freezeHost(h) }},
		{"service comes and goes", 3, func(s *Sim, h *host) { s.flap(h, 10) }},
	}
}

// nemesis breaks things until the end.
func (s *Sim) nemesis(end time.Time) {
	r := s.e.rng
	s.f = faults{delay: spread{time.Millisecond, 20 * time.Millisecond}, until: end, victim: s.w.hosts[r.IntN(len(s.w.hosts))]}
	if r.IntN(2) == 0 {
		s.f.delay.most = 400 * time.Millisecond
	}
	if r.IntN(2) == 0 {
		s.f.again, s.f.late = 250, 250
	}
	if r.IntN(2) == 0 {
		s.f.mid = 300
	}
	pace := []time.Duration{5 * time.Second, 15 * time.Second, 40 * time.Second}[r.IntN(3)]
	s.next(pace)
}

func (s *Sim) next(pace time.Duration) {
	s.e.post("nemesis", spread{time.Second, pace}, func() {
		if s.e.now().Before(s.f.until) {
			s.strike()
			s.next(pace)
		}
	})
}

// strike lets one thing go wrong.
func (s *Sim) strike() {
	r, list := s.e.rng, kinds()
	total := 0
	for i, f := range list {
		if slices.Contains(s.o.Often, f.name) {
			list[i].weight = 10 * f.weight
		}
		total += list[i].weight
	}
	h := s.f.victim
	if r.IntN(3) > 0 {
		h = s.w.hosts[r.IntN(len(s.w.hosts))]
	}
	n := r.IntN(total)
	for _, f := range list {
		if n -= f.weight; n < 0 {
			s.e.tell("FAULT %s (%s)", f.name, h.name)
			f.strike(s, h)
			return
		}
	}
}

// midway may let something go wrong just when a step was begun.
func (s *Sim) midway() {
	s.e.post("midway", spread{0, 1500 * time.Millisecond}, func() {
		if s.e.now().Before(s.f.until) && s.chance(s.f.mid) {
			s.strike()
		}
	})
}

func etcdOf(h *host) *unit { return h.units[1] }

func (s *Sim) agentOf(h *host) *agent {
	for _, a := range s.agents {
		if a.h == h {
			return a
		}
	}
	return nil
}

func (u *unit) failIf(result string) {
	if u.state == "active" {
		u.fail(result)
	}
}

// lose takes a member's data, or damages it, under a server that runs.
func (s *Sim) lose(h *host, damaged bool) {
	u := etcdOf(h)
	m := u.member
	if m.data == nil {
		return
	}
	if damaged {
		m.data.damaged = true
	} else {
		m.data = nil
	}
	m.touched = s.e.now()
	if u.state == "active" {
		u.fail("exit-code")
	}
	s.changed(h)
}

func (s *Sim) fill(h *host, cache, unknown int64) {
	h.disk.cache, h.disk.unknown = max(h.disk.cache, cache), max(h.disk.unknown, unknown)
	h.disk.touched = s.e.now()
	if u := etcdOf(h); h.disk.full() && u.state == "active" {
		after(s, "no room for "+string(u.subject()), spread{time.Second, 20 * time.Second}, func() {
			if h.disk.full() {
				u.failIf("exit-code")
			}
		})
	}
	s.changed(h)
}

func (s *Sim) blackout(h *host) {
	if !h.on {
		return
	}
	h.power(false)
	s.killAgent(s.agentOf(h), "power off")
	after(s, h.name+" boots", spread{2 * time.Second, 60 * time.Second}, func() { s.boot(h) })
}

func (s *Sim) boot(h *host) {
	h.power(true)
	h.skew += spread{0, 2 * time.Minute}.draw(s.e.rng) - time.Minute // its clock was set
	after(s, "agent of "+h.name+" starts", spread{100 * time.Millisecond, 5 * time.Second}, func() { s.startAgent(s.agentOf(h)) })
}

// bounce kills an agent, which is started again.
func (s *Sim) bounce(h *host, down spread) {
	a := s.agentOf(h)
	s.killAgent(a, "fault")
	after(s, "agent of "+h.name+" is started again", down, func() { s.startAgent(s.agentOf(h)) })
}

// reimage makes a host a new one: all that was on it is gone.
func (s *Sim) reimage(h *host) {
	if !h.on {
		return
	}
	a := s.agentOf(h)
	s.killAgent(a, "imaged anew")
	h.power(false)
	h.id += "x"
	h.disk.cache, h.disk.unknown, h.warm, h.drained, h.shy = 0, 0, false, false, false
	m := etcdOf(h).member
	m.data, m.flipped, m.state, m.touched = nil, false, "new", s.e.now()
	*a = agent{h: h, memory: a.memory}
	clear(a.memory)
	after(s, h.name+" boots anew", spread{5 * time.Second, 40 * time.Second}, func() { s.boot(h) })
}

func (s *Sim) leading() string {
	for _, srv := range s.servers {
		if srv.proc != nil && srv.proc.leads {
			return srv.name
		}
	}
	return s.servers[0].name
}

// fell kills the leader; it is back some time later.
func (s *Sim) fell() {
	for _, srv := range s.servers {
		if srv.proc != nil && srv.proc.leads {
			s.killServer(srv.proc)
			srv.on = false
			after(s, srv.name+" is back", spread{time.Second, 30 * time.Second}, func() { srv.on = true })
			return
		}
	}
}

// resign takes the lead from a server that is told so, and goes on for a while.
func (s *Sim) resign() {
	for _, srv := range s.servers {
		if sp := srv.proc; sp != nil && sp.leads && sp.resigned.IsZero() {
			sp.stepDown()
			after(s, sp.name+" ends", spread{5 * time.Second, 20 * time.Second}, func() { s.killServer(sp) })
			return
		}
	}
}

// cut lets nothing through between two, or in one direction.
func (s *Sim) cut(a, b string, d spread, oneWay bool) {
	s.w.cut[[2]string{a, b}] = true
	if !oneWay {
		s.w.cut[[2]string{b, a}] = true
	}
	s.relinked()
	s.e.tell("%s is cut from %s (one way: %v)", a, b, oneWay)
	after(s, a+" reaches "+b, d, func() {
		delete(s.w.cut, [2]string{a, b})
		delete(s.w.cut, [2]string{b, a})
		s.relinked()
	})
}

func (s *Sim) relinked() {
	for _, c := range s.w.clusters {
		c.touched = s.e.now()
		c.settle()
	}
}

func (d *depot) set(f func(*depot)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d)
}

// putBack puts an old copy of the store in its place: with a new epoch that an
// administrator has signed, with one that nobody has, or without one. What is not as
// it should be is put right a while later: then an administrator signs.
func (s *Sim) putBack() {
	if !s.depot.keeps || s.f.restored || len(s.depot.txns) < 20 {
		return
	}
	s.f.restored = true
	for _, srv := range s.servers {
		if srv.proc != nil {
			s.killServer(srv.proc)
		}
	}
	n := len(s.depot.txns) - 1 - s.e.rng.IntN(min(60, len(s.depot.txns)-2))
	epoch := s.depot.epoch
	how := s.e.rng.IntN(3)
	if how < 2 {
		epoch++
	}
	s.depot.restore(n, epoch)
	s.forget()
	s.e.tell("a copy of %d commits is put back, epoch %d (%s)", n, epoch, []string{"signed", "not signed", "as if nothing were"}[how])
	if how == 0 {
		s.signed[epoch] = true
		return
	}
	after(s, "administrator", spread{20 * time.Second, 60 * time.Second}, s.putRight)
}

// putRight begins an epoch that an administrator signs.
func (s *Sim) putRight() {
	if s.signed[s.depot.epoch] && s.depot.epoch > 1 {
		return
	}
	for _, srv := range s.servers {
		if srv.proc != nil {
			s.killServer(srv.proc)
		}
	}
	if s.depot.epoch == 1 {
		s.depot.set(func(d *depot) { d.epoch++ })
	}
	s.signed[s.depot.epoch] = true
	s.e.tell("an administrator signs epoch %d", s.depot.epoch)
}

// flap lets a service come and go by itself.
func (s *Sim) flap(h *host, times int) {
	if times == 0 || s.e.now().After(s.f.until) {
		return
	}
	u := h.units[0]
	after(s, "flap of "+string(u.subject()), spread{2 * time.Second, 6 * time.Second}, func() {
		if !h.on || u.masked || u.stoppedBy == "person" {
			return
		}
		if u.state == "active" {
			u.fail("exit-code")
		} else {
			_ = u.start()
		}
		s.flap(h, times-1)
	})
}

// heal puts right what nobody but a person could.
func (s *Sim) heal() {
	s.e.tell("HEAL")
	s.f.again, s.f.late, s.f.mid = 0, 0, 0
	clear(s.w.cut)
	s.depot.set(func(d *depot) { d.refuses, d.slow = false, 0 })
	s.putRightIfForked()
	for _, srv := range s.servers {
		srv.on = true
	}
	for _, h := range s.w.hosts {
		h.disk.unknown, h.disk.touched = 0, s.e.now()
		for _, u := range h.units {
			u.broken = false
		}
		if !h.on {
			s.boot(h)
		}
		a := s.agentOf(h)
		a.slow, a.frozen, a.hung = false, false, s.e.now()
		s.startAgent(a)
	}
	s.relinked()
	s.thawFleet()
}

func (s *Sim) putRightIfForked() {
	if s.f.restored {
		s.putRight()
	}
}
