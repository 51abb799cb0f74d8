package diagnose

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

var update = flag.Bool("update", false, "write what comes out into the files of testdata")

// incident is a file of testdata/incidents: made-up catalogues and a world in
// the shape of incidents that were published, and the diagnosis.
//
//	condition CODE KIND LAYER SEVERITY [probe=NAME]
//	  SURELY CODE within=DURATION PATH [idle]      what it brings about
//	edge SUBJECT RELATION SUBJECT
//	raised CODE SUBJECT clear=5s seen=8s by=HOST,HOST
//	clear CODE SUBJECT clear=40s by=HOST
//	unknown CODE SUBJECT [clear=5s] [by=HOST]
//	sees HOST SUBJECT ok|unreachable|timed-out|permission-denied
//	want
//	...
//
// Times count from the beginning of the story. An idle edge is known, but plays
// no part: without any of the others the diagnosis must be another.
type incident struct {
	catalogue fettle.Catalogue
	idle      map[string]bool // by edge
	w         *world.World
	subjects  []fettle.Subject
	want      string
	head      string // the file up to want
}

func parseIncident(text string) (*incident, error) {
	in := &incident{idle: map[string]bool{}, w: world.New()}
	head, want, ok := strings.Cut(text, "\nwant\n")
	if !ok {
		return nil, fmt.Errorf("no line that says want")
	}
	in.head, in.want = head+"\nwant\n", want
	edges := map[fettle.Subject][]fettle.Edge{}
	sights := map[fettle.Subject][]fettle.Observation{}
	byConditions := []fettle.Condition{}
	for i, line := range strings.Split(head, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		options := map[string]string{}
		var plain []string
		for _, w := range words {
			if k, v, ok := strings.Cut(w, "="); ok {
				options[k] = v
			} else {
				plain = append(plain, w)
			}
		}
		var err error
		switch {
		case strings.HasPrefix(line, "  "):
			err = in.addEffect(plain, options)
		case plain[0] == "condition" && len(plain) == 5:
			var layer fettle.Layer
			_ = layer.UnmarshalText([]byte(plain[3]))
			in.catalogue.Conditions = append(in.catalogue.Conditions, fettle.ConditionSpec{
				Code: fettle.Code(plain[1]), Kind: fettle.Kind(plain[2]), Layer: layer, Severity: fettle.Severity(plain[4]), Probe: options["probe"],
			})
		case plain[0] == "edge" && len(plain) == 4:
			from := fettle.Subject(plain[1])
			edges[from] = append(edges[from], fettle.Edge{From: from, Rel: fettle.Relation(plain[2]), To: fettle.Subject(plain[3])})
		case plain[0] == "sees" && len(plain) == 4:
			o := fettle.Observation{Subject: fettle.Subject(plain[2]), Host: fettle.Subject(plain[1]), Probe: "x.sight", Asked: epoch}
			if plain[3] != "ok" {
				o.Reason = fettle.Reason(strings.ReplaceAll(plain[3], "-", " "))
			}
			sights[o.Subject] = append(sights[o.Subject], o)
		case len(plain) == 3:
			var c fettle.Condition
			if c, err = parseCondition(plain, options); err == nil {
				byConditions = append(byConditions, c)
			}
		default:
			err = fmt.Errorf("not understood")
		}
		if err != nil {
			return nil, fmt.Errorf("line %d, %q: %w", i+1, line, err)
		}
	}
	for from, list := range edges {
		host := fettle.HostSubject(from.Root())
		in.w.Observe(fettle.Observation{Subject: from, Host: host, Probe: "x.edges", Asked: epoch, Edges: list})
		in.subjects = append(in.subjects, from)
	}
	for s, list := range sights {
		for _, o := range list {
			in.w.Observe(o)
		}
		in.subjects = append(in.subjects, s)
	}
	for _, c := range byConditions {
		in.w.SetCondition(c)
		in.subjects = append(in.subjects, c.Subject)
	}
	return in, nil
}

func (in *incident) addEffect(plain []string, options map[string]string) error {
	if len(in.catalogue.Conditions) == 0 || len(plain) < 3 {
		return fmt.Errorf("want: surely, code, path, after a condition")
	}
	c := &in.catalogue.Conditions[len(in.catalogue.Conditions)-1]
	if plain[len(plain)-1] == "idle" {
		plain = plain[:len(plain)-1]
		in.idle[fmt.Sprintf("%s %d", c.Code, len(c.Effects))] = true
	}
	within, err := time.ParseDuration(options["within"])
	if err != nil {
		return err
	}
	c.Effects = append(c.Effects, fettle.EffectOn{
		Condition: fettle.Code(plain[1]), Path: fettle.Path(strings.Join(plain[2:], " ")), Surely: fettle.Surely(plain[0]), Within: within,
	})
	return nil
}

func parseCondition(plain []string, options map[string]string) (fettle.Condition, error) {
	c := fettle.Condition{ConditionKey: fettle.ConditionKey{Code: fettle.Code(plain[1]), Subject: fettle.Subject(plain[2])}}
	switch plain[0] {
	case "raised":
		c.State = fettle.Yes
	case "clear":
		c.State = fettle.No
	case "unknown":
	default:
		return c, fmt.Errorf("not understood")
	}
	if _, err := fettle.ParseSubject(plain[2]); err != nil {
		return c, err
	}
	for name, t := range map[string]*time.Time{"clear": &c.LastClear, "seen": &c.FirstSeen} {
		if options[name] == "" {
			continue
		}
		after, err := time.ParseDuration(options[name])
		if err != nil {
			return c, err
		}
		*t = epoch.Add(after)
	}
	for _, h := range strings.Split(options["by"], ",") {
		if h != "" {
			c.Evidence = append(c.Evidence, fettle.Evidence{Observer: fettle.Observer{Host: fettle.HostSubject(h), Probe: "x"}, Says: c.State})
		}
	}
	return c, nil
}

func (in *incident) diagnose(t *testing.T, c fettle.Catalogue) []Group {
	t.Helper()
	d, err := New([]fettle.Catalogue{c}, DefaultWeights())
	if err != nil {
		t.Fatal(err)
	}
	d.Update(in.w, epoch, in.subjects...)
	return d.Groups()
}

func incidents(t *testing.T) map[string]*incident {
	t.Helper()
	files, err := filepath.Glob("testdata/incidents/*.txt")
	if err != nil || len(files) < 7 {
		t.Fatalf("%d incidents, %v", len(files), err)
	}
	all := map[string]*incident{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		in, err := parseIncident(string(text))
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		all[f] = in
	}
	return all
}

// TestIncidents diagnoses incidents of published shapes.
func TestIncidents(t *testing.T) {
	for file, in := range incidents(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			got := printGroups(in.diagnose(t, in.catalogue))
			if *update {
				if err := os.WriteFile(file, []byte(in.head+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != in.want {
				t.Errorf("got:\n%s\nwant:\n%s\n(go test -update rewrites the file)", got, in.want)
			}
		})
	}
}

// TestKnowledgeDecides takes one edge after the other out of the catalogues: the
// diagnosis must be another, unless the edge plays no part in the incident.
func TestKnowledgeDecides(t *testing.T) {
	// What is said for and against may change without any edge playing a part.
	gist := func(groups []Group) string {
		var kept []string
		for _, l := range strings.Split(printGroups(groups), "\n") {
			if !strings.HasPrefix(l, "    +") && !strings.HasPrefix(l, "    -") {
				kept = append(kept, l)
			}
		}
		return strings.Join(kept, "\n")
	}
	taken := 0
	for file, in := range incidents(t) {
		whole := gist(in.diagnose(t, in.catalogue))
		for i, c := range in.catalogue.Conditions {
			for j, e := range c.Effects {
				without := in.catalogue
				without.Conditions = slices.Clone(without.Conditions)
				without.Conditions[i].Effects = slices.Delete(slices.Clone(c.Effects), j, j+1)
				same := gist(in.diagnose(t, without)) == whole
				if idle := in.idle[fmt.Sprintf("%s %d", c.Code, j)]; idle != same {
					t.Errorf("%s: without %s %s %s the diagnosis is the same: %v; marked idle: %v", file, c.Code, e.Surely, e.Condition, same, idle)
				}
				taken++
			}
		}
	}
	if taken < 20 {
		t.Errorf("only %d edges in all incidents", taken)
	}
}
