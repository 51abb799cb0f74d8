package crash

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/judge/runbook"
	"fettle/runbooks"
)

// scenario is one case of a runbook's own tests: the world as it is when the plan
// is expected, in which the plan is then carried out.
type scenario struct {
	name    string
	runbook string
	rung    string
	steps   []string
	dir     string           // authority, identities, policy and machines, to be copied for each run
	acting  []fettle.Subject // hosts whose agents do steps
	watch   []fettle.Subject // the other hosts
	store   string           // file or etcd
}

// scenarios makes one of each case that expects a plan, of every runbook: the
// first one of those that expect the same steps of the same rung. A runbook
// without one is an error: then nothing would be proven of it.
func scenarios(t *testing.T) []*scenario {
	t.Helper()
	m, err := newMind(fettle.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	var list []*scenario
	had := map[string]bool{}
	tests, err := fs.Glob(runbooks.FS(), "*/*_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tests {
		src, err := fs.ReadFile(runbooks.FS(), name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := runbook.ParseTests(name, src, m.Catalogues())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range file.Cases {
			for _, check := range c.Checks {
				if check.Plan == nil {
					continue
				}
				s := &scenario{runbook: file.Runbook, rung: check.Plan.Rung, store: "file"}
				for _, step := range check.Plan.Steps {
					s.steps = append(s.steps, step.ID)
				}
				s.name = s.runbook + "/" + s.rung
				if key := s.name + " " + strings.Join(s.steps, " "); had[key] {
					continue
				} else {
					had[key] = true
				}
				if n := len(slices.Collect(filter(list, func(o *scenario) bool { return o.runbook == s.runbook && o.rung == s.rung }))); n > 0 {
					s.name += fmt.Sprintf("#%d", n+1)
				}
				s.found(t, file.Policy, c, check)
				list = append(list, s)
			}
		}
	}
	for _, b := range m.Books().All() {
		if !slices.ContainsFunc(list, func(s *scenario) bool { return s.runbook == b.Name }) {
			t.Errorf("runbook %s: no case of its tests expects a plan, so nothing can be killed in it", b.Name)
		}
	}
	return list
}

func filter[T any](list []T, keep func(T) bool) func(func(T) bool) {
	return func(yield func(T) bool) {
		for _, v := range list {
			if keep(v) && !yield(v) {
				return
			}
		}
	}
}

// found founds the scenario's fleet: an authority, an identity for each host and
// the machines as the case has them. The hosts' names in the case become the
// identities that were minted for them, as in any fleet.
func (s *scenario) found(t *testing.T, policy fettle.Policy, c runbook.Case, check runbook.Check) {
	t.Helper()
	s.dir = t.TempDir()
	ca, err := pki.Init(caDir(s.dir), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[sight]fettle.Observation{}
	for _, a := range c.Arrivals {
		if a.After > check.After {
			break
		}
		if a.Observation.Gone {
			delete(seen, sightOf(a.Observation))
			continue
		}
		seen[sightOf(a.Observation)] = a.Observation
	}
	names := renaming{}
	for _, host := range hostsOf(seen) {
		names[host.Name()] = enrol(t, ca, s.dir, host.Name())
	}
	var first effect
	for _, o := range (history{present: seen}).sorted() {
		first.Now = append(first.Now, names.observation(o))
	}
	if _, err := (&machines{path: machinesFile(s.dir)}).append(func(history) (effect, error) { return first, nil }); err != nil {
		t.Fatal(err)
	}
	acting := map[string]bool{}
	for _, step := range check.Plan.Steps {
		acting[step.Host.Name()] = true
	}
	for _, old := range slices.Sorted(maps.Keys(names)) {
		host := fettle.HostSubject(names[old])
		if acting[old] || len(names) == 1 {
			s.acting = append(s.acting, host)
		} else {
			s.watch = append(s.watch, host)
		}
	}
	// Everything that a policy can permit goes by itself; what always asks is
	// approved by a person.
	policy.Rules = append(policy.Rules, fettle.PolicyRule{Runbook: "*", Rung: "*", Subject: "*", Level: fettle.Automatic})
	if err := os.WriteFile(policyFile(s.dir), toJSON(policy), 0o600); err != nil {
		t.Fatal(err)
	}
}

// enrol admits a host into the fleet, keeps its identity and returns its name.
func enrol(t *testing.T, ca *pki.CA, dir, label string) string {
	t.Helper()
	req, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	h, cert, err := ca.Admit(req.CSR, label, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	admin, err := ca.Mint(pki.RoleApprover, "ann", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	id, err := req.Complete(cert, admin.Authority(), ca.Pin())
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Save(hostDir(dir, fettle.HostSubject(h.ID))); err != nil {
		t.Fatal(err)
	}
	return h.ID
}

// hostsOf lists the hosts that observations are of or speak of.
func hostsOf(seen map[sight]fettle.Observation) []fettle.Subject {
	set := map[fettle.Subject]bool{}
	for _, o := range seen {
		subjects := []fettle.Subject{o.Host, o.Subject}
		for _, e := range o.Edges {
			subjects = append(subjects, e.From, e.To)
		}
		for _, s := range subjects {
			if s.Kind() == fettle.KindHost {
				set[s] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// renaming is from a host's name to its identity.
type renaming map[string]string

// subject renames what belongs to a host.
func (r renaming) subject(s fettle.Subject) fettle.Subject {
	segs := s.Segments()
	if len(segs) == 0 {
		return s
	}
	if id, ok := r[segs[0]]; ok {
		segs[0] = id
	}
	return fettle.NewSubject(s.Kind(), segs...)
}

func (r renaming) observation(o fettle.Observation) fettle.Observation {
	o.Host, o.Subject = r.subject(o.Host), r.subject(o.Subject)
	o.Edges = slices.Clone(o.Edges)
	for i, e := range o.Edges {
		o.Edges[i] = fettle.Edge{From: r.subject(e.From), Rel: e.Rel, To: r.subject(e.To)}
	}
	return o
}

// copyTo makes the folder of a run.
func (s *scenario) copyTo(dir string) error {
	err := os.CopyFS(dir, os.DirFS(s.dir))
	if err != nil {
		return err
	}
	// CopyFS gives folders the modes that anybody may read; keys want their owner only.
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o700)
	})
}
