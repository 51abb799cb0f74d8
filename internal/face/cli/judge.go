package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"fettle/internal/fettle"
	"fettle/internal/fleet/topology"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
)

// configDir holds what an administrator writes.
const configDir = "/etc/fettle"

func (a *app) catalogues() []fettle.Catalogue {
	list := make([]fettle.Catalogue, 0, len(a.Adapters))
	for _, ad := range a.Adapters {
		list = append(list, ad.Catalogue())
	}
	return list
}

// books loads the runbooks that the binary has.
func (a *app) books(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
	return runbook.Load(a.Runbooks, env, cats)
}

// mind makes a judge with a policy.
func (a *app) mind(policy fettle.Policy, extra []fettle.Catalogue, scopes ...fettle.Scope) (*incident.Mind, error) {
	return incident.New(incident.Options{
		Catalogues: append(a.catalogues(), extra...), Books: a.books, Policy: policy, Evaluates: scopes,
	})
}

// readTopology reads a topology file; where none was named and the standard one is
// not there, nothing is known of where hosts stand.
func readTopology(file string) (topology.Topology, error) {
	named := file != ""
	if !named {
		file = configDir + "/topology.yaml"
	}
	src, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return topology.Topology{}, nil
	}
	if err != nil {
		return topology.Topology{}, exit(ExitUsage, "read the topology: %w", err)
	}
	t, err := topology.Parse(file, src)
	if err != nil {
		return topology.Topology{}, &Exit{Code: ExitUsage, Err: fmt.Errorf("topology: %w", err)}
	}
	return t, nil
}

// readPolicy reads a policy file; where none was named and the standard one is
// not there, the default holds.
func readPolicy(file string) (fettle.Policy, []byte, error) {
	named := file != ""
	if !named {
		file = configDir + "/policy.yaml"
	}
	src, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return fettle.Policy{Budgets: runbook.DefaultBudgets()}, nil, nil
	}
	if err != nil {
		return fettle.Policy{}, nil, exit(ExitUsage, "read the policy: %w", err)
	}
	p, err := runbook.ParsePolicy(file, src)
	if err != nil {
		return fettle.Policy{}, nil, &Exit{Code: ExitUsage, Err: fmt.Errorf("policy: %w", err)}
	}
	return p, src, nil
}
