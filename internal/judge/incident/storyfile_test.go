package incident_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"fettle/internal/adapter/etcd"
	"fettle/internal/adapter/filesystem"
	"fettle/internal/adapter/systemd"
	"fettle/internal/fettle"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/topology"
)

// storyFile is a file of testdata/stories: a public incident, in the small, from
// what was observed to what must have been done at its end. Names may have one
// bracket, "n[001-018]", and then stand for each of them.
type storyFile struct {
	Title  string // what happened
	Source string // where it is told: title, who, year
	Hasty  string // what a tool that trusts each symptom does, or did
	Must   string // what must happen

	With       []string // shipped catalogues besides those below: fettle, systemd, filesystem, etcd
	Topology   string   // a topology file
	Hosts      []string // of the register; the server says where they stand
	Probes     map[string]probeShape
	Conditions []conditionShape
	Actions    []actionShape
	Runbooks   map[string]string // the rungs for a code; every rung is automatic, so that nothing but the judge holds it back
	See        []seeShape
	Until      string
	Expect     expectShape
}

type probeShape struct {
	Kind  fettle.Kind
	Facts map[string]fettle.FactType
	Actor []string // of the facts, those that name who changed the subject last
}

type conditionShape struct {
	Code, Title, Layer, Probe, Raise, Clear, Delay, Hold, Expiry, NotMended string
	Kind                                                                    fettle.Kind
	Severity                                                                fettle.Severity
	Observers                                                               fettle.Agreement
	Explains                                                                bool
	Effects                                                                 []string // "often CODE <path within 1m", and "idle" where it plays no part
	CausedBy                                                                []string // the same, from the other end
}

type actionShape struct {
	Name   string
	Target fettle.Kind
	Takes  []fettle.Taking
	Sets   map[string]string // facts of the target, as CEL
}

type seeShape struct {
	At      string // since the beginning, or since After
	After   string // "ACTION SUBJECT": each time that this was done
	Every   string // with Times: seen again and again
	Times   int
	Asked   bool // only who looks sees it
	Subject string
	By      string // its host; left out: the one that the subject is named after
	Probe   string
	Facts   map[string]any
	Reason  fettle.Reason
	Edges   []string // "RELATION SUBJECT"
}

type expectShape struct {
	Causes  []string // at the end; none: all is well
	Touched []string // "ACTION SUBJECT", in order
	Asked   []string // "PROBE SUBJECT": looks before anything was touched
	Calls   []string // a part of each call of a person, in order
}

func readStory(t testing.TB, file string) *storyFile {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s storyFile
	if err := yaml.UnmarshalWithOptions(src, &s, yaml.Strict()); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	for what, text := range map[string]string{"title": s.Title, "source": s.Source, "hasty": s.Hasty, "must": s.Must, "until": s.Until} {
		if text == "" {
			t.Errorf("%s: it has no %s", file, what)
		}
	}
	return &s
}

func span(t testing.TB, text string) time.Duration {
	t.Helper()
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// expand writes a name with a bracket out: "n[01-03,7]".
func expand(t testing.TB, name string) []string {
	t.Helper()
	head, rest, ok := strings.Cut(name, "[")
	if !ok {
		return []string{name}
	}
	set, tail, ok := strings.Cut(rest, "]")
	if !ok {
		t.Fatalf("%s: the bracket does not end", name)
	}
	var out []string
	for _, part := range strings.Split(set, ",") {
		low, high, is := strings.Cut(part, "-")
		if !is {
			high = low
		}
		a, errA := strconv.Atoi(low)
		b, errB := strconv.Atoi(high)
		if errA != nil || errB != nil || a > b {
			t.Fatalf("%s: no numbers between the brackets", name)
		}
		for ; a <= b; a++ {
			out = append(out, fmt.Sprintf("%s%0*d%s", head, len(low), a, tail))
		}
	}
	return out
}

func (s *storyFile) catalogues(t testing.TB) []fettle.Catalogue {
	t.Helper()
	own := fettle.Catalogue{Adapter: "story", Doc: s.Title}
	for name, p := range s.Probes {
		spec := fettle.ProbeSpec{Name: name, Kind: p.Kind, Interval: 10 * time.Second, Timeout: time.Second}
		for fact, kind := range p.Facts {
			spec.Facts = append(spec.Facts, fettle.FactSpec{Name: fact, Type: kind, Actor: slices.Contains(p.Actor, fact)})
		}
		slices.SortFunc(spec.Facts, func(a, b fettle.FactSpec) int { return strings.Compare(a.Name, b.Name) })
		own.Probes = append(own.Probes, spec)
	}
	slices.SortFunc(own.Probes, func(a, b fettle.ProbeSpec) int { return strings.Compare(a.Name, b.Name) })
	for _, c := range s.Conditions {
		spec := fettle.ConditionSpec{
			Code: fettle.Code(c.Code), Title: c.Title, Kind: c.Kind, Severity: c.Severity, Scope: fettle.ClusterScope, Probe: c.Probe, Observers: c.Observers,
			Raise: c.Raise, Clear: c.Clear, Delay: span(t, c.Delay), ClearHold: span(t, c.Hold), Expiry: span(t, c.Expiry), NotMended: c.NotMended, Explains: c.Explains,
		}
		for _, text := range c.CausedBy {
			spec.CausedBy = append(spec.CausedBy, effect(t, text))
		}
		if err := spec.Layer.UnmarshalText([]byte(c.Layer)); err != nil || spec.Layer == fettle.NoLayer {
			t.Fatalf("%s: no layer %q", c.Code, c.Layer)
		}
		for _, text := range c.Effects {
			spec.Effects = append(spec.Effects, effect(t, text))
		}
		own.Conditions = append(own.Conditions, spec)
	}
	for _, a := range s.Actions {
		spec := fettle.ActionSpec{Name: a.Name, Version: 1, Target: a.Target, Risk: fettle.LowRisk, Scope: fettle.HostScope, Takes: a.Takes, Timeout: 30 * time.Second, Undo: true}
		for _, fact := range sortedKeys(a.Sets) {
			spec.Effects = append(spec.Effects, fettle.EffectSpec{Fact: fact, To: a.Sets[fact]})
		}
		own.Actions = append(own.Actions, spec)
	}
	list := []fettle.Catalogue{own}
	for _, name := range s.With {
		switch name {
		case "fettle":
			list = append(list, server.Catalogue())
		case "systemd":
			list = append(list, systemd.Catalogue())
		case "filesystem":
			list = append(list, filesystem.Catalogue())
		case "etcd":
			list = append(list, etcd.Catalogue())
		default:
			t.Fatalf("no catalogue %q is shipped", name)
		}
	}
	return list
}

func effect(t testing.TB, text string) fettle.EffectOn {
	t.Helper()
	words := strings.Fields(strings.TrimSuffix(text, " idle"))
	at := slices.Index(words, "within")
	if at < 3 || at != len(words)-2 {
		t.Fatalf("effect %q: want SURELY CODE PATH within TIME", text)
	}
	return fettle.EffectOn{
		Surely: fettle.Surely(words[0]), Condition: fettle.Code(words[1]), Path: fettle.Path(strings.Join(words[2:at], " ")), Within: span(t, words[at+1]),
	}
}

// observations are what one entry shows, at the zero time.
func (e seeShape) observations(t testing.TB) []fettle.Observation {
	t.Helper()
	facts := fettle.Facts{}
	for name, v := range e.Facts {
		switch v := v.(type) {
		case uint64:
			facts[name] = int64(v)
		case int64, bool, string:
			facts[name] = v
		default:
			t.Fatalf("%s: fact %s is a %T", e.Subject, name, v)
		}
	}
	if e.Reason != "" {
		facts = nil
	}
	var list []fettle.Observation
	for _, name := range expand(t, e.Subject) {
		s, err := fettle.ParseSubject(name)
		if err != nil {
			t.Fatal(err)
		}
		by := fettle.HostSubject(s.Root())
		if e.By != "" {
			by = fettle.Subject(e.By)
		}
		o := fettle.Observation{Subject: s, Host: by, Probe: e.Probe, Facts: facts.Clone(), Reason: e.Reason}
		for _, edge := range e.Edges {
			rel, to, _ := strings.Cut(edge, " ")
			for _, other := range expand(t, to) {
				o.Edges = append(o.Edges, fettle.Edge{From: s, Rel: fettle.Relation(rel), To: fettle.Subject(other)})
			}
		}
		list = append(list, o)
	}
	return list
}

// places are what the server says of where the hosts stand.
func (s *storyFile) places(t testing.TB) []fettle.Observation {
	t.Helper()
	if s.Topology == "" {
		return nil
	}
	top, err := topology.Parse("topology.yaml", []byte(s.Topology))
	if err != nil {
		t.Fatal(err)
	}
	var list []fettle.Observation
	for _, h := range s.Hosts {
		for _, label := range expand(t, h) {
			host := fettle.HostSubject(label)
			list = append(list, fettle.Observation{Subject: host, Host: "fettle-server:s1", Probe: server.PlaceProbe, Facts: fettle.Facts{}, Edges: top.Of(label).Edges(host)})
		}
	}
	return list
}
