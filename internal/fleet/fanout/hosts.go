package fanout

import (
	"fmt"
	"regexp"

	"fettle/internal/judge/runbook/yamlfile"
)

// hostsFile is the file that lists hosts for SSH.
type hostsFile struct {
	Hosts []hostEntry `yaml:"hosts" jsonschema:"required"`
}

// Noun implements yamlfile.Noun.
func (hostsFile) Noun() string { return "a hosts file" }

// hostEntry is one host, or several that differ in numbers.
type hostEntry struct {
	yamlfile.Placed
	Name    yamlfile.Text               `yaml:"name" jsonschema:"required"`
	Address yamlfile.Text               `yaml:"address"`
	User    yamlfile.Text               `yaml:"user"`
	Port    yamlfile.Int                `yaml:"port" jsonschema:"minimum=1"`
	Groups  []yamlfile.Text             `yaml:"groups"`
	Labels  yamlfile.Map[yamlfile.Expr] `yaml:"labels"`
}

// Noun implements yamlfile.Noun.
func (hostEntry) Noun() string { return "a host" }

// FromText implements yamlfile.FromText: a host that is its name and no more.
func (h *hostEntry) FromText(t yamlfile.Text) { h.Name = t }

// word is a group's name, or a label's key or value: what a selector can say.
var word = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]*$`)

// ParseHosts reads a hosts file:
//
//	hosts:
//	  - db1
//	  - name: web[1-3]
//	    address: 10.0.0.[11-13]   # else the name, as ssh understands it
//	    user: deploy              # else as the ssh configuration says
//	    port: 2222
//	    groups: [web]
//	    labels: {role: front}
//
// An error names every mistake, with line and column.
func ParseHosts(file string, src []byte) (Inventory, error) {
	inv := Inventory{What: "the hosts file " + file}
	var f hostsFile
	report, parsed := yamlfile.Decode(file, src, &f)
	if !parsed {
		return inv, report.Err()
	}
	seen := map[string]yamlfile.At{}
	for _, e := range f.Hosts {
		if !e.Name.Set() {
			continue // reported
		}
		names, err := Unfold(e.Name.Value)
		if err != nil {
			report.Add(e.Name.At, "", "name: %v", err)
			continue
		}
		var addresses []string
		if e.Address.Set() {
			if addresses, err = Unfold(e.Address.Value); err != nil {
				report.Add(e.Address.At, "", "address: %v", err)
				continue
			}
			if len(addresses) != len(names) {
				report.Add(e.Address.At, "write as many addresses as names", "%d names and %d addresses", len(names), len(addresses))
				continue
			}
		}
		template := e.template(report)
		if len(inv.Hosts)+len(names) > maxNames {
			report.Add(e.Name.At, "", "more than %d hosts", maxNames)
			break
		}
		for i, name := range names {
			h := template
			h.Name = name
			if addresses != nil {
				h.Address = addresses[i]
				if err := CheckName(h.Address); err != nil {
					report.Add(e.Address.At, "a host name or an address", "%v", err)
				}
			}
			if err := CheckName(name); err != nil {
				report.Add(e.Name.At, "", "%v", err)
			}
			if at, twice := seen[name]; twice {
				report.Add(e.Name.At, fmt.Sprintf("the first is on line %d; keep one", at.Line), "host %s is there twice", name)
			}
			seen[name] = e.Name.At
			inv.Hosts = append(inv.Hosts, h)
		}
	}
	return inv, report.Err()
}

// template is what all hosts of an entry have in common.
func (e hostEntry) template(report *yamlfile.Report) Host {
	h := Host{User: e.User.Value, Port: e.Port.Value}
	if e.User.Set() && !word.MatchString(h.User) {
		report.Add(e.User.At, "", "%q is no user's name", h.User)
	}
	if h.Port > 65535 {
		report.Add(e.Port.At, "1 to 65535", "%d is no port", h.Port)
	}
	for _, g := range e.Groups {
		if !word.MatchString(g.Value) || g.Value == "all" {
			report.Add(g.At, "letters, digits and . _ / -, the first a letter or digit; @all is all hosts", "a group cannot be named %q", g.Value)
		}
		h.Groups = append(h.Groups, g.Value)
	}
	for _, l := range e.Labels {
		if !word.MatchString(l.Key.Value) || !word.MatchString(l.Value.Value) {
			report.Add(l.Key.At, "letters, digits and . _ / -, the first a letter or digit", "a label cannot be %q: %q", l.Key.Value, l.Value.Value)
		}
		if h.Labels == nil {
			h.Labels = map[string]string{}
		}
		h.Labels[l.Key.Value] = l.Value.Value
	}
	return h
}
