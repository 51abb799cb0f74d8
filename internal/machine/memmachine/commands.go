package memmachine

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"

	"fettle/internal/machine"
)

// Program installs a program under a name or path. It runs unlocked; what its
// Output says is limited as the caller asked.
func (m *Machine) Program(name string, run func(machine.Command) (machine.Output, error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.programs[name] = run
}

// Ran returns every command that was run, oldest first.
func (m *Machine) Ran() []machine.Command {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.commands)
}

// commands is the Commands port.
type commands struct{ m *Machine }

func (s commands) Run(ctx context.Context, c machine.Command) (machine.Output, error) {
	if err := ctx.Err(); err != nil {
		return machine.Output{}, fmt.Errorf("run %s: %w", c.Path, err)
	}
	m := s.m
	m.mu.Lock()
	run := m.programs[c.Path]
	if run == nil && path.IsAbs(c.Path) {
		run = m.programs[path.Base(c.Path)]
	}
	c.Args, c.Env, c.Stdin = slices.Clone(c.Args), slices.Clone(c.Env), slices.Clone(c.Stdin)
	m.commands = append(m.commands, c)
	m.mu.Unlock()
	if run == nil {
		return machine.Output{}, fmt.Errorf("run %s: no such program: %w", c.Path, fs.ErrNotExist)
	}
	out, err := run(c)
	for _, w := range []struct {
		to   io.Writer
		data *[]byte
	}{{c.Stdout, &out.Stdout}, {c.Stderr, &out.Stderr}} {
		if w.to != nil {
			_, _ = w.to.Write(*w.data) // as with a pipe that nobody reads
			*w.data = nil
		}
	}
	limit := c.Limit
	if limit <= 0 {
		limit = 1 << 20
	}
	for _, b := range []*[]byte{&out.Stdout, &out.Stderr} {
		if len(*b) > limit {
			*b, out.Truncated = (*b)[:limit], true
		}
	}
	if err != nil {
		return out, fmt.Errorf("run %s: %w", c.Path, err)
	}
	return out, nil
}
