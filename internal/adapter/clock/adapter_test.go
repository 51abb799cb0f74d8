package clock

import (
	"context"
	"flag"
	"os"
	"strings"
	"testing"

	"fettle/internal/adapter/adaptertest"
	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
	"fettle/internal/machine/units"
	"fettle/runbooks"
)

var update = flag.Bool("update", false, "rewrite README.md")

// In the form of chronyc 4.3: a client of a server five seconds ahead, and of one that
// is not believed.
const (
	tracks  = "0A510002,10.81.0.2,11,1764000000.123456789,4.999998569,-0.000000012,0.000000041,-1.234,0.001,0.050,0.000200000,0.000100000,64.2,Normal\n"
	nobody  = "00000000,,0,0.000000000,0.000000000,0.000000000,0.000000000,0.000,0.000,0.000,1.000000000,1.000000000,0.0,Not synchronised\n"
	sources = "^,*,10.81.0.2,10,6,377,23,-0.000000123,-0.000000124,0.000012000\n^,x,2001:db8::7,2,6,17,5,378691200.312258363,378691200.312258363,0.088274002\n#,?,PPS0,0,4,0,4294967295,0.000000000,0.000000000,0.000000000\n"
)

// Captured from chrony 4.3: a client of one server, and of another that never answered.
const (
	realTracking = "7F000001,127.0.0.1,11,1795391480.440944653,-0.000006263,0.000006263,0.000006263,0.000,-1.522,1000000.000,0.000012803,0.554928720,0.0,Normal\n"
	realSources  = "^,*,127.0.0.1,10,0,7,0,-0.000001795,0.000004468,0.000011630\n^,?,127.0.0.2,0,0,0,4294967295,0.000000000,0.000000000,0.000000000\n"
)

// What a real chronyd said is understood.
func TestCaptured(t *testing.T) {
	tr, err := parseTracking([]byte(realTracking))
	if want := (tracking{source: "127.0.0.1", stratum: 11, offsetUs: -6, synced: true}); err != nil || tr != want {
		t.Errorf("%+v, %v; want %+v", tr, err, want)
	}
	list, err := parseSources([]byte(realSources))
	if want := (source{address: "127.0.0.2", state: "unusable"}); err != nil || len(list) != 2 || list[1] != want || list[0].reach != 7 || list[0].offsetUs != -1 {
		t.Errorf("%+v, %v", list, err)
	}
}

const canary = "hunter2-in-the-environment"

// host is a machine whose chronyc says this.
func host(says map[string]machine.Output) *memmachine.Machine {
	m := memmachine.New(memmachine.Options{Host: "h1"})
	m.Define(units.Definition{Unit: machine.Unit{Name: "chrony.service", UnitFileState: "enabled"}}, memmachine.Behaviour{Says: []string{"key=" + canary}})
	m.Program("chronyc", func(c machine.Command) (machine.Output, error) { return says[c.Args[len(c.Args)-1]], nil })
	return m
}

func well() map[string]machine.Output {
	return map[string]machine.Output{"tracking": {Stdout: []byte(tracks)}, "sources": {Stdout: []byte(sources)}}
}

func TestAdapter(t *testing.T) {
	adaptertest.Run(t, adaptertest.Suite{
		New: func(*testing.T) adaptertest.Rig {
			return adaptertest.Rig{Adapter: Adapter{}, Machine: host(well()).Ports(), Canary: canary,
				State: func(context.Context) string { return "" }, Settle: func(context.Context) {}}
		},
		Books: adaptertest.Books(runbooks.FS(), Adapter{}),
		Hang: func(*testing.T) (adaptertest.Rig, []fettle.Look) {
			m := host(nil).Ports()
			m.Commands = stuck{}
			return adaptertest.Rig{Adapter: Adapter{}, Machine: m, Canary: canary}, []fettle.Look{{Subject: "host:h1", Probe: trackingProbe}, {Subject: "time-source:10.81.0.2", Probe: sourceProbe}}
		},
		Excused: map[string]string{"read-only": "it changes nothing, so there is nothing that read-only credentials would refuse"},
	})
}

// stuck is a program that says nothing, cut off a little before its caller would be.
type stuck struct{}

func (stuck) Run(ctx context.Context, _ machine.Command) (machine.Output, error) {
	return machine.Output{}, context.DeadlineExceeded
}

// What is asked for is answered; what cannot be, is unknown, and says why.
func TestObserves(t *testing.T) {
	look := func(says map[string]machine.Output, probe int, of ...fettle.Subject) []fettle.Observation {
		t.Helper()
		in, err := Adapter{}.Open(t.Context(), host(says).Ports(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return in.Probes()[probe].Observe(t.Context(), of...)
	}
	if o := look(well(), 0)[0]; o.Facts["offset_us"] != int64(4999998) || o.Facts["synchronised"] != true || o.Facts["source"] != "10.81.0.2" {
		t.Errorf("tracking: %+v", o)
	}
	if o := look(map[string]machine.Output{"tracking": {Stdout: []byte(nobody)}}, 0)[0]; o.Facts["synchronised"] != false || o.Facts["source"] != "" {
		t.Errorf("nobody is followed: %+v", o)
	}
	down := map[string]machine.Output{"tracking": {Exit: 1, Stdout: []byte("506 Cannot talk to daemon\n")}, "sources": {Exit: 1, Stdout: []byte("506 Cannot talk to daemon\n")}}
	if o := look(down, 0)[0]; o.Reason != fettle.Unreachable {
		t.Errorf("chronyd is down: %+v", o)
	}
	if list := look(down, 1, "time-source:10.81.0.2"); len(list) != 1 || list[0].Known() {
		t.Errorf("chronyd is down: %+v", list)
	}
	list := look(well(), 1)
	if len(list) != 3 || list[1].Subject != fettle.NewSubject(fettle.KindTimeSource, "2001:db8::7") || list[1].Facts["state"] != "falseticker" ||
		list[1].Facts["reach"] != int64(15) || list[1].Facts["offset_us"] != int64(378691200312258) || list[1].Edges[0].From != "host:h1" {
		t.Errorf("sources: %+v", list)
	}
	if list := look(well(), 1, "time-source:other"); len(list) != 0 {
		t.Errorf("of a source that is not used here: %+v", list)
	}
}

// It is for machines on which chronyd runs, and for no other.
func TestDiscover(t *testing.T) {
	m := host(well())
	if found, err := (Adapter{}).Discover(t.Context(), m.Ports()); err != nil || len(found) != 0 {
		t.Errorf("chronyd does not run: %v, %v", found, err)
	}
	if _, err := m.Ports().Services.Start(t.Context(), "chrony.service"); err != nil {
		t.Fatal(err)
	}
	found, err := (Adapter{}).Discover(t.Context(), m.Ports())
	if err != nil || len(found) != 1 {
		t.Fatalf("chronyd runs: %v, %v", found, err)
	}
	if _, err := ParseConfig(found[0].Config); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"chronyc: bin/chronyc", "chronic: x"} {
		if _, err := ParseConfig([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestREADME: the README says what the catalogue says.
func TestREADME(t *testing.T) {
	sample, err := os.ReadFile("testdata/sample.yaml")
	if err != nil {
		t.Fatal(err)
	}
	adaptertest.CheckREADME(t, Adapter{}, memmachine.New(memmachine.Options{}).Ports(), sample, *update)
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{tracks, nobody, sources, realTracking, realSources, "", "506 Cannot talk to daemon\n", "^,*,a,1,1,777777,1,-,1,1\n", strings.Repeat(",", 13) + "\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if tr, err := parseTracking(text); err == nil && !tr.synced && tr.source != "" {
			t.Errorf("%q: it follows nobody and %q", text, tr.source)
		}
		list, err := parseSources(text)
		if err != nil && list != nil {
			t.Errorf("%q: half understood", text)
		}
		for _, s := range list {
			if s.reach < 0 || s.address == "" {
				t.Errorf("%q: %+v", text, s)
			}
		}
	})
}
