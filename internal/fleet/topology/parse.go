package topology

import (
	_ "embed"
	"fmt"
	"path"
	"slices"
	"strings"

	"fettle/internal/judge/runbook/yamlfile"
)

// schema is generated from the shape by a test, which fails when it is not current.
//
//go:embed schema/topology.schema.json
var schema []byte

// Schema returns the JSON Schema of the file, for editors.
func Schema() []byte { return slices.Clone(schema) }

type fileShape struct {
	yamlfile.Placed
	Hosts []hostsShape `yaml:"hosts" jsonschema:"required" jsonschema_description:"Where hosts stand. Of the entries that match a host, the last one that says something decides."`
}

func (fileShape) Noun() string { return "a topology" }

type hostsShape struct {
	yamlfile.Placed
	Match  []yamlfile.Text `yaml:"match" jsonschema:"required" jsonschema_description:"Labels of hosts (their host names); * is any text, ? one character, [a-z] a class."`
	Zone   yamlfile.Text   `yaml:"zone" jsonschema_description:"What fails as a whole only in a disaster: a room, a site."`
	Rack   yamlfile.Text   `yaml:"rack" jsonschema_description:"Racks of two zones that have one name are two."`
	Switch []yamlfile.Text `yaml:"switch" jsonschema_description:"The switches whose ports they use."`
	Power  []yamlfile.Text `yaml:"power" jsonschema_description:"The feeds that they draw from."`
}

func (hostsShape) Noun() string { return "an entry" }

// Parse reads a topology file. The error, if any, is a *yamlfile.Error with
// everything that is wrong, each with its line and a hint.
func Parse(file string, src []byte) (Topology, error) {
	var s fileShape
	report, parsed := yamlfile.Decode(file, src, &s)
	if !parsed {
		return Topology{}, report.Err()
	}
	var t Topology
	first := map[string]int{}
	for _, h := range s.Hosts {
		e := entry{place: Place{Zone: h.Zone.Value, Rack: h.Rack.Value, Switches: names(h.Switch), Power: names(h.Power)}}
		for _, m := range h.Match {
			if _, err := path.Match(m.Value, ""); err != nil {
				report.Add(m.At, "* is any text, ? one character, [a-z] a class; \\ takes the next character as it is", "the pattern %q is malformed", m.Value)
			}
			// The same pattern twice is a slip, unless the two speak of different things.
			for _, what := range e.speaksOf() {
				key := what + " " + m.Value
				if line, twice := first[key]; twice && m.Set() {
					report.Add(m.At, fmt.Sprintf("the first is on line %d; keep one", line), "a second %s for %s", what, m.Value)
				}
				first[key] = m.At.Line
			}
			e.hosts = append(e.hosts, m.Value)
		}
		if e.place.Empty() && len(h.Match) > 0 {
			report.Add(h.At, "give it a zone, rack, switch or power", "the entry for %s says nothing", strings.Join(e.hosts, ", "))
		}
		t.entries = append(t.entries, e)
	}
	if err := report.Err(); err != nil {
		return Topology{}, err
	}
	return t, nil
}

// speaksOf lists what an entry says something of.
func (e entry) speaksOf() []string {
	var list []string
	for what, said := range map[string]bool{
		"zone": e.place.Zone != "", "rack": e.place.Rack != "", "switch": e.place.Switches != nil, "power": e.place.Power != nil,
	} {
		if said {
			list = append(list, what)
		}
	}
	slices.Sort(list)
	return list
}

// names are sorted and each there once; nil where the key was left out.
func names(list []yamlfile.Text) []string {
	if list == nil {
		return nil
	}
	out := []string{}
	for _, t := range list {
		out = append(out, t.Value)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
