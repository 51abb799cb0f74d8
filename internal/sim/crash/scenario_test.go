package crash

import (
	"cmp"
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
	"fettle/internal/judge/incident"
	"fettle/internal/judge/rehearse"
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
// first one of those that expect the same steps of the same rung. Left out are
// cases in which something is refused that a person cannot approve, and cases
// whose plan follows from what was before and not from what is: there is no such
// world to begin with. A runbook that is left with none is an error: nothing would
// be proven of it. The exception are rungs that are armed (S8): a pretended machine
// has no unit that outlives its agent, so its agent refuses them. Their deaths are
// died in act/armed, step by step, and in the lab.
func scenarios(t *testing.T) []*scenario {
	t.Helper()
	m, err := newMind(fettle.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	var list []*scenario
	for _, c := range candidates(t, m) {
		if armed(m, c.file.Runbook) {
			continue
		}
		s := &scenario{runbook: c.file.Runbook, rung: c.check.Plan.Rung, store: "file"}
		for _, step := range c.check.Plan.Steps {
			s.steps = append(s.steps, step.ID)
		}
		same := func(o *scenario) bool {
			return o.runbook == s.runbook && o.rung == s.rung && slices.Equal(o.steps, s.steps)
		}
		if slices.ContainsFunc(list, same) {
			continue
		}
		if s.name = s.runbook + "/" + s.rung; slices.ContainsFunc(list, func(o *scenario) bool { return o.name == s.name }) {
			s.name += " " + strings.Join(s.steps, ",")
		}
		if why := c.rehearsed(t); why != "" {
			t.Logf("%s, case %q: left out: %s", c.file.File, c.name, why)
			continue
		}
		s.found(t, c)
		list = append(list, s)
	}
	for _, b := range m.Books().All() {
		if !armed(m, b.Name) && !slices.ContainsFunc(list, func(s *scenario) bool { return s.runbook == b.Name }) {
			t.Errorf("runbook %s: no case of its tests expects a plan from the world as it then is, so nothing can be killed in it", b.Name)
		}
	}
	return list
}

// armed reports whether every rung of a runbook is armed.
func armed(m *incident.Mind, name string) bool {
	for _, b := range m.Books().All() {
		if b.Name == name {
			return !slices.ContainsFunc(b.Rungs, func(r runbook.Rung) bool {
				return !slices.ContainsFunc(r.Steps, func(s runbook.Step) bool { return s.Action.Armed })
			})
		}
	}
	return false
}

// candidate is a case that expects a plan.
type candidate struct {
	file  *runbook.TestFile
	name  string
	check runbook.Check
	seen  map[sight]fettle.Observation // what every probe sees then
}

// candidates lists them by runbook: first those that name the host of every step,
// since only an agent that is known to act can be killed while it does, and of them
// the smallest worlds.
func candidates(t *testing.T, m *incident.Mind) []candidate {
	t.Helper()
	names, err := fs.Glob(runbooks.FS(), "*/*_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var list []candidate
	for _, name := range names {
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
				if check.Plan != nil && (check.Refused == nil || check.Refused.Invariant == "S7") {
					list = append(list, candidate{file, c.Name, check, present(c, check)})
				}
			}
		}
	}
	slices.SortStableFunc(list, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.file.Runbook, b.file.Runbook), cmp.Compare(a.hostless(), b.hostless()), cmp.Compare(len(a.seen), len(b.seen)))
	})
	return list
}

// hostless counts the expected steps whose host the case leaves open.
func (c candidate) hostless() int {
	n := 0
	for _, step := range c.check.Plan.Steps {
		if step.Host == "" {
			n++
		}
	}
	return n
}

// present is what every probe sees at the time of a check. Of several hosts that
// look at one thing by one probe only those count that looked last: the case says
// nothing of what the others would see by then.
func present(c runbook.Case, check runbook.Check) map[sight]fettle.Observation {
	type thing struct {
		probe   string
		subject fettle.Subject
	}
	seen := map[sight]fettle.Observation{}
	last := map[thing]time.Duration{}
	at := map[sight]time.Duration{}
	for _, a := range c.Arrivals { // by time
		o := a.Observation
		if a.After > check.After {
			break
		}
		seen[sightOf(o)], at[sightOf(o)], last[thing{o.Probe, o.Subject}] = o, a.After, a.After
	}
	for s, o := range maps.Clone(seen) {
		if o.Gone || at[s] < last[thing{s.probe, s.subject}] {
			delete(seen, s)
		}
	}
	completed(seen)
	return seen
}

// rehearsed asks the judge alone whether the plan follows from the world as it is;
// where not, it says why.
func (c candidate) rehearsed(t *testing.T) string {
	t.Helper()
	const settle = 40 * time.Second // more than any condition of a shipped runbook must hold
	only := runbook.Case{Name: c.name, Checks: []runbook.Check{{After: settle, Plan: &runbook.WantPlan{Rung: c.check.Plan.Rung, Steps: c.check.Plan.Steps}}}}
	for at := time.Duration(0); at < settle; at += 2 * time.Second {
		for _, o := range (history{present: c.seen}).sorted() {
			only.Arrivals = append(only.Arrivals, runbook.Arrival{After: at, Observation: o})
		}
	}
	// Nobody acts: the plan stays as it was made.
	policy := fettle.Policy{Rules: []fettle.PolicyRule{{Runbook: "*", Rung: "*", Subject: "*", Level: fettle.Suggest}}}
	file := &runbook.TestFile{Runbook: c.file.Runbook, Policy: policy, Cases: []runbook.Case{only}, File: c.file.File}
	results, err := rehearse.File(file, func(p fettle.Policy) (*incident.Mind, error) { return newMind(p) })
	if err != nil {
		t.Fatal(err)
	}
	if len(results[0].Wrong) > 0 {
		return results[0].Wrong[0].Text
	}
	return ""
}

// found founds the scenario's fleet: an authority, an identity for each host and
// the machines as the case has them. The hosts' names in the case become the
// identities that were minted for them, as in any fleet.
func (s *scenario) found(t *testing.T, c candidate) {
	t.Helper()
	s.dir = t.TempDir()
	ca, err := pki.Init(caDir(s.dir), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	names := renaming{}
	for _, host := range hostsOf(c.seen) {
		names[host.Name()] = enrol(t, ca, s.dir, host.Name())
	}
	var first effect
	for _, o := range (history{present: c.seen}).sorted() {
		first.Now = append(first.Now, names.observation(o))
	}
	if _, err := (&machines{path: machinesFile(s.dir)}).append(func(history) (effect, error) { return first, nil }); err != nil {
		t.Fatal(err)
	}
	if n := c.hostless(); n > 0 && len(names) > 1 {
		t.Fatalf("%s, case %q: it leaves the host of %d steps open, so it is not known whose agent can be killed; say `host:` in the expectation", c.file.File, c.name, n)
	}
	acting := map[string]bool{}
	for _, step := range c.check.Plan.Steps {
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
	policy := c.file.Policy
	policy.Rules = append(slices.Clone(policy.Rules), fettle.PolicyRule{Runbook: "*", Rung: "*", Subject: "*", Level: fettle.Automatic})
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
	h, cert, err := pki.NewRegister(ca, pki.Folder(caDir(dir))).Admit(t.Context(), req.CSR, label, time.Now())
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
