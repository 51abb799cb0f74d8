package firewall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

const (
	// lookWithin bounds one look: nft lists ten thousand rules in half a second.
	lookWithin = 2 * time.Second
	// loadWithin bounds what may change something.
	loadWithin = 20 * time.Second
)

// nft runs nft(8) with a script on its standard input. Its exit status is 0 when all
// was done and 1 when nothing was: one script is one transaction of the kernel.
func (i *instance) nft(ctx context.Context, script string, args ...string) (string, error) {
	return i.run(ctx, machine.Command{Path: "nft", Args: args, Stdin: []byte(script), Limit: maxRules})
}

func (i *instance) run(ctx context.Context, c machine.Command) (string, error) {
	within := lookWithin
	if slices.Contains(c.Args, "-f") {
		within = loadWithin
	}
	ctx, stop := context.WithTimeout(ctx, within)
	defer stop()
	out, err := i.m.Commands.Run(ctx, c)
	said := strings.TrimSpace(string(out.Stderr))
	switch {
	case err != nil:
		return "", err
	case strings.Contains(said, "Operation not permitted") || strings.Contains(said, "must be root"):
		return "", fmt.Errorf("%s: %w: %.300s", c.Path, fs.ErrPermission, said)
	case out.Exit != 0 || out.Signal != 0:
		return "", fmt.Errorf("%s ended with status %d: %w: %.300s", c.Path, out.Exit, errNothingDone, said)
	case out.Truncated:
		return "", fmt.Errorf("%s printed more than %d bytes", c.Path, maxRules)
	}
	return string(out.Stdout), nil
}

// errNothingDone: nft refused a script as a whole.
var errNothingDone = errors.New("nft refused it, and nothing was changed")

// live reads the ruleset in force, without counters.
func (i *instance) live(ctx context.Context) (ruleset, error) {
	text, err := i.nft(ctx, "", "-s", "list", "ruleset")
	if err != nil {
		return ruleset{}, fmt.Errorf("list the ruleset: %w", err)
	}
	return parse(text)
}

// probeTable is made before the persisted file is loaded where it is tried out; one
// that is gone afterwards was flushed by the file.
const probeTable = "inet fettle_probe"

// persisted is what the persisted file would put in force, and whether it flushes
// what else there is. It is tried out in an empty network namespace of its own,
// which ends with the process: nft reads its commands one by one (-i) from standard
// input, and goes on after an error, which it prints.
func (i *instance) persisted(ctx context.Context) (r ruleset, flushes bool, err error) {
	if _, err := i.m.Files.Stat(ctx, i.config.File); err != nil {
		return ruleset{}, false, err
	}
	script := "table " + probeTable + "\ninclude \"" + i.config.File + "\"\nlist ruleset\n"
	c := machine.Command{Path: "unshare", Args: []string{"--net", "--", "nft", "-s", "-i"}, Stdin: []byte(script), Limit: maxRules}
	ctx, stop := context.WithTimeout(ctx, lookWithin)
	defer stop()
	out, err := i.m.Commands.Run(ctx, c)
	said := strings.TrimSpace(string(out.Stderr))
	switch {
	case err != nil:
		return ruleset{}, false, fmt.Errorf("try %s out: %w", i.config.File, err)
	case strings.Contains(said, "Operation not permitted") || strings.Contains(said, "must be root"):
		return ruleset{}, false, fmt.Errorf("try %s out: %w", i.config.File, fs.ErrPermission)
	case out.Exit != 0 || out.Signal != 0 || said != "":
		return ruleset{}, false, fmt.Errorf("%s cannot be loaded (name interfaces by iifname, which need not be there): %.300s", i.config.File, said)
	case out.Truncated:
		return ruleset{}, false, fmt.Errorf("%s has more than %d bytes of rules", i.config.File, maxRules)
	}
	all, err := parse(string(out.Stdout))
	if err != nil {
		return ruleset{}, false, fmt.Errorf("try %s out: %w", i.config.File, err)
	}
	flushes = all.find(probeTable) == nil
	return all.without(func(name string) bool { return name == probeTable }), flushes, nil
}

// state is both rulesets, without what is ignored.
type state struct {
	live, persisted ruleset
	flushes         bool
	difference
	foreign []string // tables that differ and that the file says nothing about
}

func (i *instance) state(ctx context.Context) (state, error) {
	persisted, flushes, err := i.persisted(ctx)
	if err != nil {
		return state{}, err
	}
	live, err := i.live(ctx)
	if err != nil {
		return state{}, err
	}
	s := state{live: live.without(i.config.ignores), persisted: persisted.without(i.config.ignores), flushes: flushes}
	s.difference = compare(s.persisted, s.live)
	for _, name := range s.tables {
		if !flushes && s.persisted.find(name) == nil {
			s.foreign = append(s.foreign, name)
		}
	}
	return s, nil
}

// touched are the tables that restoring touches: those that differ, but for foreign
// ones.
func (s state) touched() []string { return left(s.tables, s.foreign) }

// replace is the script that puts tables in force as from lists them, and takes away
// those that it does not have, all at once. Naming a table makes one that is not
// there, so that deleting it never fails.
func replace(tables []string, from ruleset) string {
	var s strings.Builder
	for _, name := range tables {
		fmt.Fprintf(&s, "table %s\ndelete table %s\n", name, name)
	}
	for _, t := range from.tables {
		for _, name := range tables {
			if t.name == name {
				s.WriteString(t.text)
			}
		}
	}
	return s.String()
}

// fail turns an error of nft into one with a class and a hint.
func fail(op string, s fettle.Subject, err error) error {
	e := &fettle.Error{Op: op, Subject: s, Class: fettle.Broken, Err: err, Hint: "nft list ruleset on its host"}
	switch {
	case errors.Is(err, fs.ErrPermission):
		e.Class, e.Hint = fettle.Denied, "the agent needs the right to change the packet filter (CAP_NET_ADMIN)"
	case errors.Is(err, fs.ErrNotExist):
		e.Class, e.Hint = fettle.Refused, "install nftables, or name the persisted ruleset in firewall.yaml"
	case errors.Is(err, errNothingDone):
		e.Class = fettle.Refused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		e.Class = fettle.NoAnswer
	}
	return e
}
