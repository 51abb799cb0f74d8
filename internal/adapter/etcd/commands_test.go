package etcd

import (
	"bytes"
	"context"
	"errors"
	"os/exec"

	"fettle/internal/machine"
)

// osCommands is a machine.Commands.
type osCommands struct{}

func (osCommands) Run(ctx context.Context, c machine.Command) (machine.Output, error) {
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Env = append([]string{"PATH=" + machine.StandardPath}, c.Env...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.Stdin), &out, &errs
	err := cmd.Run()
	o := machine.Output{Stdout: out.Bytes(), Stderr: errs.Bytes()}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		o.Exit, err = exit.ExitCode(), nil
	}
	return o, err
}
