package sim

import (
	"fmt"
	"slices"
	"time"

	"fettle/internal/fettle"
)

// world is what is true. Only the driver changes it.
type world struct {
	e        *engine
	hosts    []*host
	clusters []*cluster
	copies   *copies
	cut      map[[2]string]bool // messages from the first to the second do not arrive
	effects  map[string]*effect // by key
	changed  func(*host)        // told of every change on a host
}

// host is a machine. It is told of by its name; its identity changes when it is
// imaged anew.
type host struct {
	w       *world
	name    string
	id      string
	rack    string
	on      bool
	boot    int
	units   []*unit
	disk    *disk
	skew    time.Duration
	ppm     int64
	warm    bool      // somebody says that it should be drained
	drained bool      // and it was
	shy     bool      // somebody says that it should be talked to
	touched time.Time // its own facts changed
}

func (h *host) subject() fettle.Subject { return fettle.HostSubject(h.id) }

// unit is a service.
type unit struct {
	host      *host
	name      string
	state     string // active, inactive, failed
	result    string
	stoppedBy string
	masked    bool
	wasActive bool
	runs      int // invocation
	starts    []time.Time
	broken    bool // it ends soon after every start
	hung      bool
	slow      bool // a restart would help
	member    *member
	health    bool // it has an address that is asked
	touched   time.Time
	turns     []time.Time // when it began or ceased to run
}

func (u *unit) subject() fettle.Subject {
	return fettle.NewSubject(fettle.KindUnit, u.host.id, u.name)
}

// disk is the filesystem of a host, in thousandths of its size.
type disk struct {
	host    *host
	cache   int64 // of packages, which can be fetched again
	unknown int64 // of what nobody knows
	kept    int64 // of what is somebody's, and precious
	messy   bool
	touched time.Time
}

func (d *disk) subject() fettle.Subject {
	return fettle.NewSubject(fettle.KindFilesystem, d.host.id, "/")
}

func (d *disk) used() int64 { return min(1000, 400+d.cache+d.unknown+d.kept) }
func (d *disk) full() bool  { return d.used() >= 995 }

// copies is data in copies.
type copies struct {
	hosts   []*host
	insync  []bool
	minimum int
	stale   int // the copy that somebody says is stale; -1: none
	touched time.Time
}

func (c *copies) set() fettle.Subject { return fettle.NewSubject(kindSet, "shop") }

func (c *copies) count() int {
	n := 0
	for i, h := range c.hosts {
		if c.insync[i] && h.on {
			n++
		}
	}
	return n
}

// effect is what a key did to the world.
type effect struct {
	times   int
	outputs fettle.Facts
	result  fettle.Result
	err     error
	pending bool // it was handed over and will have its effect
}

// reach reports whether messages from one to another arrive.
func (w *world) reach(from, to string) bool { return !w.cut[[2]string{from, to}] }

// linked reports whether two can talk.
func (w *world) linked(a, b string) bool { return w.reach(a, b) && w.reach(b, a) }

func (w *world) host(s fettle.Subject) *host {
	for _, h := range w.hosts {
		if h.subject() == s {
			return h
		}
	}
	return nil
}

func (w *world) unit(s fettle.Subject) *unit {
	for _, h := range w.hosts {
		for _, u := range h.units {
			if u.subject() == s {
				return u
			}
		}
	}
	return nil
}

func (w *world) member(s fettle.Subject) *member {
	for _, c := range w.clusters {
		for _, m := range c.members {
			if m.subject() == s {
				return m
			}
		}
	}
	return nil
}

func (w *world) cluster(s fettle.Subject) *cluster {
	for _, c := range w.clusters {
		if c.subject() == s {
			return c
		}
	}
	return nil
}

// turn notes a change of a unit and of what hangs on it.
func (u *unit) turn(state string) {
	now := u.host.w.e.now()
	if (u.state == "active") != (state == "active") {
		u.turns = append(u.turns, now)
	}
	u.state, u.touched = state, now
	if u.member != nil {
		u.member.touched = now
		u.member.c.settle()
	}
	u.host.w.changed(u.host)
}

// start starts a unit. What cannot run ends again soon.
func (u *unit) start() error {
	w := u.host.w
	switch {
	case !u.host.on:
		return fmt.Errorf("the machine is off")
	case u.masked:
		return fmt.Errorf("the unit is masked")
	case u.state == "active":
		return nil
	}
	u.runs++
	u.starts = append(u.starts, w.e.now())
	u.result, u.stoppedBy, u.wasActive, u.hung, u.slow = "success", "", true, false, false
	if m := u.member; m != nil {
		m.join()
	}
	u.turn("active")
	if run := u.runs; u.fails() {
		w.e.post("end of "+string(u.subject()), spread{50 * time.Millisecond, 2 * time.Second}, func() {
			if u.runs == run && u.state == "active" && u.fails() {
				u.fail("exit-code")
			}
		})
	}
	return nil
}

// fails reports whether it cannot stay up.
func (u *unit) fails() bool {
	return u.broken || u.member != nil && (u.member.unfit() || u.host.disk.full())
}

// fail ends a unit as failed.
func (u *unit) fail(result string) {
	u.result = result
	u.host.w.e.tell("%s fails (%s)", u.subject(), result)
	u.turn("failed")
}

// stop stops a unit.
func (u *unit) stop(by string) {
	if u.state == "active" { // what has failed stays failed
		u.stoppedBy = by
		u.turn("inactive")
	}
}

// power turns a host on or off.
func (h *host) power(on bool) {
	if h.on == on {
		return
	}
	h.on, h.touched = on, h.w.e.now()
	if on {
		h.boot++
	}
	for _, u := range h.units {
		switch {
		case !on && u.state == "active":
			u.turn("inactive")
		case !on:
			u.turn("inactive") // what failed is forgotten with the boot
		case !u.masked:
			u.wasActive, u.stoppedBy, u.result = false, "", "success"
			u.starts = nil
			_ = u.start() // enabled: a machine that boots starts it
		}
	}
	for _, c := range h.w.clusters {
		c.settle()
	}
}

func (u *unit) starts10m(now time.Time) int64 {
	n := int64(0)
	for _, t := range u.starts {
		if now.Sub(t) < 10*time.Minute {
			n++
		}
	}
	return n
}

// quiet reports whether none of these changed since.
func quiet(since time.Time, touched ...time.Time) bool {
	return !slices.ContainsFunc(touched, func(t time.Time) bool { return t.After(since) })
}
