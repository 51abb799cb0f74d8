package diagnose

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

// fleetCatalogue is made-up causal knowledge with every trait that makes a
// diagnosis hard: shared causes on four layers that overlap, chains through
// conditions that nobody sees, and loops.
func fleetCatalogue() fettle.Catalogue {
	s := func(seconds int) time.Duration { return time.Duration(seconds) * time.Second }
	cond := func(code fettle.Code, kind fettle.Kind, layer fettle.Layer, effects ...fettle.EffectOn) fettle.ConditionSpec {
		return fettle.ConditionSpec{Code: code, Kind: kind, Layer: layer, Severity: fettle.Critical, Probe: "f." + string(kind), Effects: effects}
	}
	return fettle.Catalogue{Adapter: "f", Conditions: []fettle.ConditionSpec{
		cond("f.power_lost", "rack", fettle.Hardware,
			fettle.EffectOn{Condition: "f.host_dead", Path: "<in", Surely: fettle.Always, Within: s(5)}),
		cond("f.host_dead", "host", fettle.Hardware,
			fettle.EffectOn{Condition: "f.host_unreachable", Path: fettle.Self, Surely: fettle.Always, Within: s(10)},
			fettle.EffectOn{Condition: "f.service_degraded", Path: "<runs-on >part-of", Surely: fettle.Sometimes, Within: s(60)}),
		cond("f.switch_down", "switch", fettle.Network,
			fettle.EffectOn{Condition: "f.host_unreachable", Path: "<uses", Surely: fettle.Always, Within: s(10)}),
		cond("f.host_unreachable", "host", fettle.Network,
			fettle.EffectOn{Condition: "f.unit_failed", Path: "<runs-on <uses", Surely: fettle.Sometimes, Within: s(60)},
			fettle.EffectOn{Condition: "f.service_degraded", Path: "<runs-on >part-of", Surely: fettle.Often, Within: s(60)}),
		cond("f.time_wrong", "time-source", fettle.HostLayer,
			fettle.EffectOn{Condition: "f.clock_skew", Path: "<uses", Surely: fettle.Always, Within: s(120)}),
		cond("f.clock_skew", "host", fettle.HostLayer,
			fettle.EffectOn{Condition: "f.tls_refused", Path: "<runs-on", Surely: fettle.Often, Within: s(60)}),
		cond("f.authority_expired", "authority", fettle.Network,
			fettle.EffectOn{Condition: "f.tls_refused", Path: "<uses", Surely: fettle.Often, Within: s(300)}),
		cond("f.tls_refused", "unit", fettle.Coordination,
			fettle.EffectOn{Condition: "f.unit_failed", Path: fettle.Self, Surely: fettle.Sometimes, Within: s(60)}),
		cond("f.disk_full", "filesystem", fettle.HostLayer,
			fettle.EffectOn{Condition: "f.unit_failed", Path: "<uses", Surely: fettle.Often, Within: s(60)}),
		cond("f.unit_failed", "unit", fettle.HostLayer,
			fettle.EffectOn{Condition: "f.unit_failed", Path: "<uses", Surely: fettle.Often, Within: s(30)},
			fettle.EffectOn{Condition: "f.service_degraded", Path: ">part-of", Surely: fettle.Often, Within: s(30)}),
		cond("f.service_degraded", "service", fettle.Application,
			fettle.EffectOn{Condition: "f.unit_failed", Path: "<part-of", Surely: fettle.Sometimes, Within: s(300)}),
		cond("f.bad_job", "job", fettle.Application,
			fettle.EffectOn{Condition: "f.host_dead", Path: ">runs-on", Surely: fettle.Often, Within: s(60)}),
	}}
}

// fleet is a generated fleet and what is truly wrong with it.
type fleet struct {
	catalogue fettle.Catalogue
	w         *world.World
	subjects  []fettle.Subject
	raised    []fettle.ConditionKey
	roots     []fettle.ConditionKey // unrelated ones, each a raised condition
	shared    []fettle.ConditionKey // shared ones, some of them seen by nobody
	rng       *rand.Rand

	hosts    []fettle.Subject
	units    [][]fettle.Subject // by host
	services []fettle.Subject
}

const (
	fleetHosts    = 2000
	fleetSubjects = 10_000
	fleetRaised   = 2000
	fleetRoots    = 500
	bigSwitch     = 1000 // hosts on the first switch
)

// newFleet generates the same fleet from the same seed.
func newFleet(seed uint64) *fleet {
	f := &fleet{catalogue: fleetCatalogue(), w: world.New(), rng: rand.New(rand.NewPCG(seed, 1))}
	f.build()
	f.breakThings()
	f.judgeTheRest()
	return f
}

func (f *fleet) see(s fettle.Subject, edges ...fettle.Edge) {
	f.subjects = append(f.subjects, s)
	f.w.Observe(fettle.Observation{Subject: s, Host: f.observer(s), Probe: "f." + string(s.Kind()), Asked: epoch, Edges: edges})
}

// observer is the host that sees a subject: its own, or else one of ten.
func (f *fleet) observer(s fettle.Subject) fettle.Subject {
	if s.Kind() == "unit" || s.Kind() == "filesystem" {
		return fettle.HostSubject(s.Root())
	}
	return fettle.HostSubject(fmt.Sprintf("watch%d", f.rng.IntN(10)))
}

// build makes the subjects: racks and switches overlap, no one is inside the
// other; units use each other in chains and circles.
func (f *fleet) build() {
	named := func(kind fettle.Kind, n int) []fettle.Subject {
		var list []fettle.Subject
		for i := range n {
			list = append(list, fettle.NewSubject(kind, fmt.Sprintf("%s%d", kind, i)))
		}
		return list
	}
	racks, switches := named("rack", 50), named("switch", 11)
	sources, authorities, jobs := named("time-source", 4), named("authority", 2), named("job", 20)
	f.services = named("service", 113)
	for _, list := range [][]fettle.Subject{racks, switches, sources, authorities, f.services} {
		for _, s := range list {
			f.see(s)
		}
	}
	for i, j := range jobs {
		var edges []fettle.Edge
		for k := range 40 {
			edges = append(edges, fettle.Edge{From: j, Rel: fettle.RunsOn, To: fettle.HostSubject(fmt.Sprintf("h%04d", (i*97+k*13)%fleetHosts))})
		}
		f.see(j, edges...)
	}
	left := fleetSubjects - len(f.subjects) - 2*fleetHosts
	for i := range fleetHosts {
		id := fmt.Sprintf("h%04d", i)
		h, fs := fettle.HostSubject(id), fettle.NewSubject(fettle.KindFilesystem, id, "/var")
		sw := switches[0]
		if i >= bigSwitch {
			sw = switches[1+i%10]
		}
		f.see(h,
			fettle.Edge{From: h, Rel: fettle.In, To: racks[i%len(racks)]}, fettle.Edge{From: h, Rel: fettle.Uses, To: sw},
			fettle.Edge{From: h, Rel: fettle.Uses, To: sources[i%len(sources)]})
		f.see(fs, fettle.Edge{From: fs, Rel: fettle.RunsOn, To: h})
		f.hosts = append(f.hosts, h)
		n := left / (fleetHosts - i)
		left -= n
		var units []fettle.Subject
		for u := range n {
			units = append(units, fettle.NewSubject(fettle.KindUnit, id, fmt.Sprintf("u%d.service", u)))
		}
		f.units = append(f.units, units)
		for u, s := range units {
			edges := []fettle.Edge{
				{From: s, Rel: fettle.RunsOn, To: h}, {From: s, Rel: fettle.Uses, To: fs},
				{From: s, Rel: fettle.Uses, To: authorities[i%7/4]},
			}
			if u > 0 { // the first one is on its own, and some of the unrelated roots strike it
				edges = append(edges, fettle.Edge{From: s, Rel: fettle.PartOf, To: f.services[(i/8+u*31)%len(f.services)]})
			}
			if u > 0 || i%5 == 0 { // on every fifth host they go in a circle
				edges = append(edges, fettle.Edge{From: s, Rel: fettle.Uses, To: units[(u+len(units)-1)%len(units)]})
			}
			f.see(s, edges...)
		}
	}
}

// breakThings lets shared causes strike, then unrelated roots, until as many
// conditions are raised as there should be.
func (f *fleet) breakThings() {
	codes := map[fettle.Code]fettle.ConditionSpec{}
	for _, c := range f.catalogue.Conditions {
		codes[c.Code] = c
	}
	strike := func(code fettle.Code, s string, observed bool, share, most int) {
		k := fettle.ConditionKey{Code: code, Subject: fettle.Subject(s)}
		f.shared = append(f.shared, k)
		begin := 100 + f.rng.IntN(1000)
		if observed {
			f.raise(k, begin)
		}
		n := 0
		for _, e := range codes[code].Effects {
			for _, t := range f.w.Related(k.Subject, e.Path) {
				if n < most && f.rng.IntN(100) < share {
					n++
					f.spread(codes, fettle.ConditionKey{Code: e.Condition, Subject: t}, begin, int(e.Within/time.Second), 0)
				}
			}
		}
	}
	strike("f.switch_down", "switch:switch0", true, 40, 300)
	strike("f.switch_down", "switch:switch3", false, 90, 60)
	strike("f.switch_down", "switch:switch4", false, 90, 60)
	strike("f.power_lost", "rack:rack7", false, 90, 30)
	strike("f.power_lost", "rack:rack8", false, 90, 30)
	strike("f.power_lost", "rack:rack23", true, 90, 30)
	strike("f.time_wrong", "time-source:time-source2", false, 30, 150)
	strike("f.authority_expired", "authority:authority1", false, 10, 150)
	strike("f.bad_job", "job:job5", false, 60, 20)
	strike("f.bad_job", "job:job6", true, 60, 20)
	for i := 0; len(f.roots) < fleetRoots; i++ {
		h := f.rng.IntN(fleetHosts)
		k := fettle.ConditionKey{Code: "f.disk_full", Subject: fettle.NewSubject(fettle.KindFilesystem, f.hosts[h].Name(), "/var")}
		if i%2 == 0 {
			k = fettle.ConditionKey{Code: "f.unit_failed", Subject: f.units[h][0]}
		}
		if f.raise(k, 100+f.rng.IntN(1000)) {
			f.roots = append(f.roots, k)
		}
	}
	for len(f.raised) < fleetRaised {
		k := f.raised[f.rng.IntN(len(f.raised))]
		c, _ := f.w.Condition(k)
		begin := int(c.FirstSeen.Sub(epoch) / time.Second)
		for _, e := range codes[k.Code].Effects {
			for _, t := range f.w.Related(k.Subject, e.Path) {
				if codes[e.Condition].Kind == t.Kind() && f.rng.IntN(3) == 0 {
					f.raise(fettle.ConditionKey{Code: e.Condition, Subject: t}, begin+f.rng.IntN(1+int(e.Within/time.Second)))
				}
			}
		}
	}
}

// spread raises a condition and, with luck, what follows from it.
func (f *fleet) spread(codes map[fettle.Code]fettle.ConditionSpec, k fettle.ConditionKey, begin, within, depth int) {
	if codes[k.Code].Kind != k.Subject.Kind() {
		return
	}
	begin += f.rng.IntN(1 + within)
	if f.rng.IntN(5) == 0 { // nobody sees this one
		f.judge(k, fettle.Unknown, 0, 0)
	} else if !f.raise(k, begin) {
		return
	}
	if depth == 2 {
		return
	}
	for _, e := range codes[k.Code].Effects {
		for _, t := range f.w.Related(k.Subject, e.Path) {
			if f.rng.IntN(4) == 0 && e.Surely != fettle.Sometimes {
				f.spread(codes, fettle.ConditionKey{Code: e.Condition, Subject: t}, begin, int(e.Within/time.Second), depth+1)
			}
		}
	}
}

// raise raises a condition that was not judged yet, while there is room.
func (f *fleet) raise(k fettle.ConditionKey, begin int) bool {
	if c, judged := f.w.Condition(k); judged && c.State != fettle.Unknown || len(f.raised) == fleetRaised {
		return false
	}
	f.judge(k, fettle.Yes, begin-f.rng.IntN(30), begin)
	f.raised = append(f.raised, k)
	return true
}

func (f *fleet) judge(k fettle.ConditionKey, state fettle.Tri, lastClear, firstSeen int) {
	c := fettle.Condition{ConditionKey: k, State: state}
	if lastClear > 0 {
		c.LastClear = at(lastClear)
	}
	if state == fettle.Yes {
		c.FirstSeen = at(firstSeen)
	}
	o := f.w.Observations(k.Subject)[0]
	c.Evidence = []fettle.Evidence{{Observer: o.Observer(), Asked: at(max(lastClear, firstSeen)), Says: state}}
	f.w.SetCondition(c)
}

// judgeTheRest judges most of what was not judged yet to be clear, at different
// times, and leaves the rest open.
func (f *fleet) judgeTheRest() {
	hidden := map[fettle.ConditionKey]bool{}
	for _, k := range f.shared {
		hidden[k] = true
	}
	for _, s := range f.subjects {
		for _, spec := range specsOf(&f.catalogue, s) {
			k := fettle.ConditionKey{Code: spec.Code, Subject: s}
			if _, judged := f.w.Condition(k); judged || hidden[k] {
				continue
			}
			switch f.rng.IntN(10) {
			case 0, 1:
			case 2:
				f.judge(k, fettle.Unknown, 50, 0)
			case 3, 4, 5:
				f.judge(k, fettle.No, 2000, 0)
			default:
				f.judge(k, fettle.No, 90, 0)
			}
		}
	}
}

// score counts how many of the true causes a diagnosis names.
func (f *fleet) score(groups []Group) (roots, shared, named int) {
	causes := map[fettle.ConditionKey]bool{}
	for _, g := range groups {
		for _, c := range g.Diagnosis.Causes {
			causes[c.ConditionKey] = true
			named++
		}
	}
	count := func(list []fettle.ConditionKey) int {
		return len(slices.DeleteFunc(slices.Clone(list), func(k fettle.ConditionKey) bool { return !causes[k] }))
	}
	return count(f.roots), count(f.shared), named
}
