package sim

import (
	"context"
	"time"

	"fettle/internal/act/execute"
	"fettle/internal/fettle"
	"fettle/internal/judge/condition"
	"fettle/internal/judge/incident"
)

// silence is how long a session stands without a word from the other end.
const silence = 4 * time.Second

// link is a session between an agent's process and a server's. Its messages come
// in order; where they do not arrive they wait, until one end gives up.
type link struct {
	s       *Sim
	p       *process
	host    fettle.Subject // of the agent, as it was when this began
	sp      *serverProcess
	up      bool
	gone    chan struct{} // closed when the server knows that it has ended
	toSrv   []func()
	toAgent []func()
	cutAt   time.Time // since when nothing arrives; zero: it does
	met     bool      // the welcome has come
	held    []func()  // what the agent says once it has
	since   time.Time // on the server's clock: when it welcomed the agent
	timed   bool      // the server has heard of the agent since
	missed  bool      // some message could not be delivered when it was due
}

func newLink(p *process, sp *serverProcess) {
	l := &link{s: p.s, p: p, host: p.h.subject(), sp: sp, up: true, gone: make(chan struct{})}
	p.link = l
	head, keeps := p.ex.Head()
	first, conds := p.everything()
	l.send("hello", func() { sp.attach(l, head, keeps) })
	l.report(first, conds)
	if p.stage >= stages {
		l.settle()
	}
	l.watch()
}

// everything is what is sent when a session begins.
func (p *process) everything() ([]fettle.Observation, []fettle.Condition) {
	var list []fettle.Observation
	for _, key := range sortedSights(p.seen) {
		list = append(list, p.seen[key])
	}
	var conds []fettle.Condition
	for _, o := range list {
		for _, c := range p.picture.ConditionsOf(o.Subject) {
			if p.conds[c.ConditionKey] {
				conds = append(conds, c)
				delete(p.conds, c.ConditionKey)
			}
		}
	}
	for _, c := range conds {
		p.conds[c.ConditionKey] = true
	}
	return list, conds
}

// send sends a message to the server, in order.
func (l *link) send(what string, deliver func()) {
	l.toSrv = append(l.toSrv, deliver)
	l.s.e.post(what+" of "+l.p.name+" to "+l.sp.name, l.s.delay(), l.pumpUp)
}

// tell sends a message to the agent, in order.
func (l *link) tell(what string, deliver func()) {
	l.toAgent = append(l.toAgent, deliver)
	l.s.e.post(what+" of "+l.sp.name+" to "+l.p.name, l.s.delay(), l.pumpDown)
}

// pumpUp delivers one message to the server: two at once would wake two who wait,
// and who of them is first nobody could say.
func (l *link) pumpUp() {
	if !l.s.w.reach(l.p.h.name, l.sp.srv.name) {
		l.missed = true
		return
	}
	if l.up && len(l.toSrv) > 0 && !l.sp.dead {
		first := l.toSrv[0]
		l.toSrv = l.toSrv[1:]
		first()
	}
}

// pumpDown delivers one message to the agent.
func (l *link) pumpDown() {
	if !l.s.w.reach(l.sp.srv.name, l.p.h.name) {
		l.missed = true
		return
	}
	if l.up && len(l.toAgent) > 0 && !l.p.dead {
		first := l.toAgent[0]
		l.toAgent = l.toAgent[1:]
		first()
	}
}

// catchUp delivers what has waited, one after the other.
func (l *link) catchUp() {
	for range l.toSrv {
		l.s.e.post("late word of "+l.p.name+" to "+l.sp.name, exactly(0), l.pumpUp)
	}
	for range l.toAgent {
		l.s.e.post("late word of "+l.sp.name+" to "+l.p.name, exactly(0), l.pumpDown)
	}
}

// watch pings until the session ends.
func (l *link) watch() {
	l.s.e.post("ping of "+l.p.name, exactly(time.Second), func() {
		if !l.up {
			return
		}
		now := l.s.e.now()
		switch {
		case l.s.w.linked(l.p.h.name, l.sp.srv.name) && !l.p.dead && !l.sp.dead:
			if l.missed {
				l.missed = false
				l.catchUp()
			}
			l.cutAt = time.Time{}
			if tip, ok := l.sp.share.tip(); ok && l.met {
				l.head(tip)
			}
		case l.cutAt.IsZero():
			l.cutAt = now
		case now.Sub(l.cutAt) >= silence:
			l.broken(false)
			return
		}
		l.watch()
	})
}

// head shows the agent where the log ends.
func (l *link) head(tip execute.LogHead) {
	l.tell("head", func() {
		if !l.s.o.Waive["agent-head"] {
			_ = l.p.ex.Follow(tip) // a fork is refused with each dispatch
		}
		l.p.a.shown(l.s, tip)
	})
}

// broken ends the session at both ends: at once, or where nothing tells of it after
// a silence.
func (l *link) broken(silently bool) {
	if !l.up {
		return
	}
	l.up = false
	l.p.link = nil
	wait := l.s.delay()
	if silently {
		wait = exactly(silence)
	}
	l.s.e.post("end of the session of "+l.p.name, wait, func() { l.sp.detach(l) })
}

// settle says that everything was told.
func (l *link) settle() {
	if !l.met {
		l.held = append(l.held, l.settle)
		return
	}
	l.send("settled", func() { l.sp.settled(l) })
}

// report tells what was seen and judged.
func (l *link) report(list []fettle.Observation, conds []fettle.Condition) {
	if !l.met {
		l.held = append(l.held, func() { l.report(list, conds) })
		return
	}
	theirs := l.p.clock.Now().UnixNano()
	l.send("report", func() { l.sp.report(l, theirs, list, conds) })
}

// ask has the agent look; its answer comes behind what it judged of it.
func (l *link) ask(looks []fettle.Look, answer func([]fettle.Observation)) {
	l.tell("look", func() {
		p := l.p
		asked := p.clock.Now()
		took := spread{time.Millisecond, 100 * time.Millisecond}
		if p.a.slow {
			took = exactly(6 * time.Second)
		}
		l.s.e.post("probes of "+p.name, took, func() {
			if p.dead {
				return
			}
			list := p.look(asked, func(o fettle.Observation) bool {
				for _, k := range looks {
					if k.Subject == o.Subject && k.Probe == o.Probe {
						return true
					}
				}
				return false
			})
			if p.link == l {
				theirs := p.clock.Now().UnixNano()
				l.send("answer", func() { answer(l.sp.place(l, theirs, list)) })
			}
		})
	})
}

// deliver brings a dispatch to whatever process of the agent runs when it comes:
// twice, late, after its session, behind later ones.
func (s *Sim) deliver(sp *serverProcess, a *agent, d fettle.Dispatch, recovers bool, answer func(fettle.Outcome)) {
	what := "dispatch "
	if recovers {
		what = "question about "
	}
	times := 1
	if s.chance(s.f.again) {
		times = 2
	}
	for range times {
		wait := s.delay()
		if late := s.f.late; recovers && s.chance(2*late) || s.chance(late) {
			wait = spread{time.Second, 20 * time.Second}
		}
		s.e.post(what+d.Key+" of "+sp.name, wait, func() {
			p := a.proc
			if p == nil || !s.w.reach(sp.srv.name, a.h.name) {
				return
			}
			// What comes before the welcome waits for it, as in a stream; what is of
			// another history does not come outside of its session.
			switch l := p.link; {
			case l != nil && l.sp == sp && !l.met:
				l.toAgent = append(l.toAgent, func() { s.arrive(p, sp, d, recovers, answer) })
				s.e.post("after the welcome: "+what+d.Key, s.delay(), l.pumpDown)
			case l != nil && l.sp == sp, sp.branch == s.depot.branch:
				s.arrive(p, sp, d, recovers, answer)
			}
		})
	}
}

// arrive hands a message to the executor.
func (s *Sim) arrive(p *process, sp *serverProcess, d fettle.Dispatch, recovers bool, answer func(fettle.Outcome)) {
	forked := p.a.head.Entries > 0 && d.Token.Epoch <= p.a.head.Epoch && !s.depot.holds(p.a.head) // not obeyed, and its token not taken
	if !forked && p.highest.Less(d.Token) && d.Token.Fleet == fleet && (p.highest.Epoch == 0 || s.signed[d.Token.Epoch]) {
		p.highest = d.Token
	}
	if s.o.Waive["agent-token"] { // as if it were always the present leader's
		d.Token = p.ex.Highest()
		if d.Token.Epoch == 0 {
			d.Token = p.highest
		}
	}
	if s.o.Waive["agent-key"] && !recovers { // as if it were always a new one, for this very process
		s.renamed++
		d.Key, d.Incarnation = d.Key+"#"+itoa(s.renamed), p.ex.Incarnation()
	}
	key := d.Key
	go func() {
		var out fettle.Outcome
		if recovers {
			ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
			out = p.ex.Recover(ctx, d)
			cancel()
		} else {
			out = p.ex.Do(s.ctx, d)
		}
		s.e.post("outcome of "+key+" from "+p.name, s.delay(), func() {
			if sp.dead || p.dead || !s.w.reach(p.h.name, sp.srv.name) {
				return
			}
			answer(out)
		})
	}()
}

// attach begins a session at the server.
func (sp *serverProcess) attach(l *link, kept execute.LogHead, keeps bool) {
	if sp.dead || !sp.leads {
		return
	}
	if sp.share.away() {
		l.broken(false)
		return
	}
	c := sp.contact(l.host)
	sp.mu.Lock()
	c.link, c.incarnation, c.settledAt, c.began = l, l.p.name, time.Time{}, sp.s.e.now()
	c.round++
	c.lost, c.unsaid = time.Time{}, false
	sp.mu.Unlock()
	there := ""
	tip, shows := sp.share.tip()
	if keeps && kept.Epoch == tip.Epoch {
		there = sp.share.hashAt(kept.Entries)
	}
	l.since = sp.now()
	l.tell("welcome", func() {
		l.met = true
		for _, say := range l.held {
			say()
		}
		l.held = nil
		if shows && !sp.s.o.Waive["agent-head"] {
			_ = l.p.ex.Meet(&tip, there) // a fork is refused with each dispatch
		}
		l.p.a.shown(sp.s, tip)
	})
	sp.feed(incident.Input{Observations: []fettle.Observation{sp.agentSeen(c)}})
}

// ended reports whether a condition ended because its subject is gone.
func ended(c fettle.Condition) bool {
	return c.State == fettle.No && len(c.Evidence) == 1 && c.Evidence[0].Reason == condition.GoneReason
}
