package fanout

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Host is one machine that commands can be run on.
type Host struct {
	Name   string            // as people call it; unique among hosts
	ID     string            // of a host of the fleet; "" where there is none
	Groups []string          // without "@"
	Labels map[string]string // role: database
	// For SSH: what is not empty goes before the ssh configuration.
	Address string
	User    string
	Port    int
}

// Inventory is the hosts that can be selected.
type Inventory struct {
	Hosts []Host
	// Open takes a name that is in no list for a host all the same: what ssh is given.
	Open bool
	// What it is, for messages: "the hosts file /etc/fettle/hosts.yaml".
	What string
}

// SelectorHelp is the selector's grammar, for people.
const SelectorHelp = `Hosts are selected by any of some terms, with commas between them:
  web1  web[1-3,7]  web*    names, ranges, patterns (* ? as in a shell)
  @db                       a group
  role=db  zone!=b          hosts with a label; without it
  *  @all                   all hosts
  @web&rack=7               hosts that both select
  !web2  !@db               not these, whatever else selects them
A term that matches nothing is an error.`

// Select gives the hosts that a selector names, sorted by name, each once.
func Select(selector string, inv Inventory) ([]Host, error) {
	terms := splitTerms(selector)
	if len(terms) == 0 {
		return nil, inv.miss("the selector is empty")
	}
	chosen := map[string]Host{}
	var out [][]Host
	positive := 0
	for _, term := range terms {
		body, not := strings.CutPrefix(term, "!")
		found, err := inv.match(body)
		switch {
		case err != nil:
			return nil, err
		case len(found) == 0:
			return nil, inv.miss(fmt.Sprintf("%q matches no host", term))
		case not:
			out = append(out, found)
			continue
		}
		positive++
		for _, h := range found {
			chosen[h.Name] = h
		}
	}
	if positive == 0 {
		return nil, fmt.Errorf("%q says only which hosts not: write *,%s for all others", selector, strings.Join(terms, ","))
	}
	for _, hosts := range out {
		for _, h := range hosts {
			delete(chosen, h.Name)
		}
	}
	if len(chosen) == 0 {
		return nil, inv.miss(fmt.Sprintf("%q selects no host: what it names is excluded again", selector))
	}
	hosts := make([]Host, 0, len(chosen))
	for _, h := range chosen {
		hosts = append(hosts, h)
	}
	slices.SortFunc(hosts, func(a, b Host) int { return CompareNames(a.Name, b.Name) })
	return hosts, nil
}

// match gives the hosts that all parts of one term name.
func (inv Inventory) match(term string) ([]Host, error) {
	var found []Host
	for i, part := range strings.Split(term, "&") {
		hosts, err := inv.part(part)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			too := map[string]bool{}
			for _, h := range hosts {
				too[h.Name] = true
			}
			hosts = slices.DeleteFunc(slices.Clone(found), func(h Host) bool { return !too[h.Name] })
		}
		found = hosts
	}
	return found, nil
}

// part gives the hosts that one part of a term names.
func (inv Inventory) part(term string) ([]Host, error) {
	filter := func(keep func(Host) bool) []Host {
		var out []Host
		for _, h := range inv.Hosts {
			if keep(h) {
				out = append(out, h)
			}
		}
		return out
	}
	if term == "*" || term == "@all" {
		return inv.Hosts, nil
	}
	if group, ok := strings.CutPrefix(term, "@"); ok {
		return filter(func(h Host) bool { return slices.Contains(h.Groups, group) }), nil
	}
	if key, value, ok := strings.Cut(term, "="); ok {
		key, not := strings.CutSuffix(key, "!")
		if key == "" || value == "" {
			return nil, fmt.Errorf("%q is no label: write role=db, or role!=db", term)
		}
		return filter(func(h Host) bool { return (h.Labels[key] == value) != not }), nil
	}
	names, err := Expand(term)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(term, "*?") {
		for _, n := range names {
			if _, err := path.Match(n, ""); err != nil {
				return nil, fmt.Errorf("%q is no pattern: %w", term, err)
			}
		}
		return filter(func(h Host) bool {
			return slices.ContainsFunc(names, func(n string) bool { ok, err := path.Match(n, h.Name); return ok && err == nil })
		}), nil
	}
	known := map[string]Host{}
	for _, h := range inv.Hosts {
		known[h.Name] = h
		if h.ID != "" {
			known[h.ID] = h
		}
	}
	var out []Host
	for _, n := range names {
		h, ok := known[n]
		switch {
		case ok:
		case inv.Open:
			h = Host{Name: n}
			user, name, hasUser := strings.Cut(n, "@")
			if hasUser {
				h.User, h.Name = user, name
			}
			if err := CheckName(h.Name); err != nil || hasUser && user == "" {
				return nil, fmt.Errorf("%q is no host: %w\n%s", n, orNil(err, "the user before @ is missing"), SelectorHelp)
			}
		default:
			return nil, inv.miss(fmt.Sprintf("there is no host %q", n))
		}
		out = append(out, h)
	}
	return out, nil
}

func orNil(err error, text string) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%s", text)
}

// miss is the error of a selector that finds nothing: it says what there is.
func (inv Inventory) miss(text string) error {
	what := inv.What
	if what == "" {
		what = "the list of hosts"
	}
	if len(inv.Hosts) == 0 && inv.Open {
		return fmt.Errorf("%s: %s has no groups, labels or patterns: write names", text, what)
	}
	if len(inv.Hosts) == 0 {
		return fmt.Errorf("%s: %s has no hosts", text, what)
	}
	var names []string
	groups, labels := map[string]bool{}, map[string]bool{}
	for _, h := range inv.Hosts {
		names = append(names, h.Name)
		for _, g := range h.Groups {
			groups["@"+g] = true
		}
		for k, v := range h.Labels { // any order: they are sorted below
			labels[k+"="+v] = true
		}
	}
	const most = 200 // characters: a hint, not a listing
	there := clip(Fold(names), most)
	for _, set := range []map[string]bool{groups, labels} {
		var list []string
		for s := range set {
			list = append(list, s)
		}
		slices.Sort(list)
		if len(list) > 0 {
			there += "; " + clip(strings.Join(list, " "), most)
		}
	}
	return fmt.Errorf("%s; in %s: %s", text, what, there)
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
