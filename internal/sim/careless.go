package sim

import (
	"io/fs"
	"strconv"
	"testing/fstest"
	"time"

	"fettle/internal/fettle"
)

func itoa(n int) string { return strconv.Itoa(n) }

const (
	kindRack fettle.Kind = "rack"
	kindSet  fettle.Kind = "careless-set"
	kindCopy fettle.Kind = "careless-copy"

	hostProbe   = "careless.host"
	unitProbe   = "careless.unit"
	diskProbe   = "careless.disk"
	memberProbe = "careless.member"
	copyProbe   = "careless.copy"
	setProbe    = "careless.set"
)

// Careless is the catalogue of an adapter whose runbooks ask for nothing: no
// precondition, no look at who else is affected, everything by itself. Its rungs
// would break each invariant sooner or later. No runbook gets round the safety
// kernel; these try.
func Careless() fettle.Catalogue {
	flag := func(name string) fettle.FactSpec { return fettle.FactSpec{Name: name, Type: fettle.BoolFact} }
	probe := func(name string, kind fettle.Kind, facts ...fettle.FactSpec) fettle.ProbeSpec {
		return fettle.ProbeSpec{Name: name, Kind: kind, Interval: 5 * time.Second, Timeout: 2 * time.Second, Told: true, Facts: facts}
	}
	ill := func(code fettle.Code, kind fettle.Kind, from, raise string) fettle.ConditionSpec {
		return fettle.ConditionSpec{
			Code: code, Title: string(code), Kind: kind, Layer: fettle.Application, Severity: fettle.Warning, Scope: fettle.HostScope,
			Probe: from, Raise: raise, Expiry: 30 * time.Second,
		}
	}
	does := func(name string, kind fettle.Kind, takes ...fettle.Taking) fettle.ActionSpec {
		return fettle.ActionSpec{Name: name, Version: 1, Target: kind, Risk: fettle.LowRisk, Scope: fettle.HostScope, Timeout: 20 * time.Second, Undo: true, Takes: takes}
	}
	drain := does("careless.drain", fettle.KindHost, fettle.TakesCapacity)
	drain.Effects = []fettle.EffectSpec{{Fact: "drained", To: "true"}}
	wipe := does("careless.wipe", fettle.KindFilesystem, fettle.TakesData)
	wipe.Undo, wipe.NoUndo = false, "what is gone is gone"
	tell := does("careless.tell", fettle.KindHost)
	tell.Params = []fettle.ParamSpec{{Name: "what", Type: fettle.StringFact, Required: true}}
	idle := ill("careless.idle", fettle.KindUnit, unitProbe, "self.idle")
	idle.Severity = fettle.Notice
	warm := ill("careless.warm", fettle.KindHost, hostProbe, "self.warm")
	warm.Severity = fettle.Notice
	shy := ill("careless.shy", fettle.KindHost, hostProbe, "self.shy")
	shy.Severity = fettle.Notice
	drained := ill("careless.drained", fettle.KindHost, hostProbe, "self.drained")
	drained.NotMended = "somebody wanted it so"
	silent := ill("careless.silent", kindMember, memberProbe, "self.silent")
	silent.Severity = fettle.Notice
	return fettle.Catalogue{
		Adapter: "careless", Doc: "Asks nobody.", Versions: "none",
		Kinds: []fettle.KindSpec{{Kind: kindRack, Doc: "NAME"}, {Kind: kindSet, Doc: "NAME"}, {Kind: kindCopy, Doc: "SET/NUMBER"}},
		Probes: []fettle.ProbeSpec{
			probe(hostProbe, fettle.KindHost, flag("warm"), flag("drained"), flag("shy")), probe(unitProbe, fettle.KindUnit, flag("idle"), flag("slow")),
			probe(diskProbe, fettle.KindFilesystem, flag("messy")), probe(memberProbe, kindMember, flag("silent"), flag("shaky")),
			probe(copyProbe, kindCopy, flag("stale"), flag("held")), probe(setProbe, kindSet, fettle.FactSpec{Name: "copies", Type: fettle.IntFact}),
		},
		Conditions: []fettle.ConditionSpec{
			warm, drained, shy, idle, ill("careless.slow", fettle.KindUnit, unitProbe, "self.slow"),
			ill("careless.messy", fettle.KindFilesystem, diskProbe, "self.messy"), silent,
			ill("careless.shaky", kindMember, memberProbe, "self.shaky"), ill("careless.stale", kindCopy, copyProbe, "self.stale"),
		},
		Actions: []fettle.ActionSpec{
			does("careless.note", fettle.KindUnit), drain, wipe, tell, does("careless.cut", fettle.KindHost, fettle.TakesReachability),
			does("careless.drop", kindCopy, fettle.TakesReplicas),
		},
	}
}

// Library is the shipped runbooks and the careless ones.
func Library(shipped fs.FS) (fs.FS, error) {
	all := fstest.MapFS{}
	names, err := fs.Glob(shipped, "*/*.yaml")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		data, err := fs.ReadFile(shipped, name)
		if err != nil {
			return nil, err
		}
		all[name] = &fstest.MapFile{Data: data}
	}
	for name, text := range carelessBooks() {
		all["careless/"+name+".yaml"] = &fstest.MapFile{Data: []byte("runbook: careless." + name + "\nfor: careless." + name + "\ndoc: It asks nobody.\n" + text)}
	}
	return all, nil
}

func carelessBooks() map[string]string {
	return map[string]string{
		"warm": `rungs:
  - rung: drain
    doc: Take it out.
    proved_by: TestNothing
    steps:
      - {id: drain, action: careless.drain, target: "${cause}", fresh: 5s, claims: [{what: capacity, of: "${one(cause, '>in')}", member: "${cause}"}], expect: "fact(target, 'drained')", within: 10s, safe_point: true}
  - rung: cut
    doc: Take it off the network.
    proved_by: TestNothing
    steps:
      - {id: cut, action: careless.cut, target: "${cause}", fresh: 5s, safe_point: true}
`,
		"idle": `rungs:
  - rung: start
    doc: What does not run is started.
    proved_by: TestNothing
    steps:
      - {id: start, action: systemd.start, target: "${cause}", fresh: 5s, expect: "fact(target, 'active_state') == 'active'", within: 10s, safe_point: true}
`,
		"slow": `rungs:
  - rung: restart
    doc: Restart it. Then restart it as it was.
    proved_by: TestNothing
    steps:
      - {id: note, action: careless.note, target: "${cause}", fresh: 5s}
      - {id: restart, action: systemd.restart, target: "${cause}", pin: [invocation_id], fresh: 5s, claims: [{what: capacity, of: "${one(cause, '>runs-on')}", member: "${cause}"}], requires: ["fact(target, 'active_state') == 'active'"], expect: "fact(target, 'active_state') == 'active'", within: 10s, forward_only: it asks nobody, safe_point: true}
`,
		"shy": `rungs:
  - rung: tell
    doc: Tell it, with the password.
    proved_by: TestNothing
    steps:
      - {id: tell, action: careless.tell, target: "${cause}", with: {what: "password=hunter2"}, fresh: 5s, safe_point: true}
`,
		"messy": `rungs:
  - rung: wipe
    doc: Away with it.
    proved_by: TestNothing
    steps:
      - {id: wipe, action: careless.wipe, target: "${cause}", fresh: 5s, forward_only: it asks nobody, safe_point: true}
`,
		"silent": `vars:
  group: one(cause, '>part-of')
rungs:
  - rung: start
    doc: What does not answer is started.
    proved_by: TestNothing
    steps:
      - {id: start, action: etcd.start, target: "${cause}", group: "${vars.group}", fresh: 5s, look: [{subject: "${vars.group}", probe: etcd.cluster}], expect: "fact(target, 'answers')", within: 10s, safe_point: true}
`,
		"shaky": `vars:
  group: one(cause, '>part-of')
rungs:
  - rung: again
    doc: Off and on.
    proved_by: TestNothing
    steps:
      - {id: stop, action: etcd.stop, target: "${cause}", group: "${vars.group}", fresh: 5s, look: [{subject: "${vars.group}", probe: etcd.cluster}], claims: [{what: votes, of: "${vars.group}", member: "${cause}"}], expect: "!fact(target, 'unit_active')", within: 10s}
      - {id: start, action: etcd.start, target: "${cause}", group: "${vars.group}", fresh: 5s, look: [{subject: "${vars.group}", probe: etcd.cluster}], expect: "fact(target, 'answers')", within: 20s, safe_point: true}
`,
		"stale": `vars:
  set: one(cause, '>part-of')
rungs:
  - rung: drop
    doc: Away with the copy.
    proved_by: TestNothing
    steps:
      - {id: drop, action: careless.drop, target: "${cause}", fresh: 5s, look: [{subject: "${vars.set}", probe: careless.set}], claims: [{what: replicas, of: "${vars.set}", member: "${cause}"}], safe_point: true}
`,
	}
}
