// Command lab boots, breaks and ends labs: real Debian hosts on this machine. See package fettle/lab for what a lab is.
//
// Exit status: 0 done, 1 refused or failed, 3 usage error, 4 no contact with the lab; "lab exec" has that of the command.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"fettle/lab"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// exitStatus is the status of a command that ran in a host.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usageError is a command line that makes no sense.
type usageError struct{ error }

func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &cli{in: stdin, out: stdout, err: stderr}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var status exitStatus
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	fmt.Fprintln(stderr, "lab:", strings.TrimPrefix(err.Error(), "lab: "))
	switch {
	case errors.As(err, &usage):
		return 3
	case errors.Is(err, lab.ErrNoContact):
		return 4
	}
	return 1
}

// cli is one command line being executed.
type cli struct {
	in       io.Reader
	out, err io.Writer
	name     string // of the lab; empty: the only one
	output   string // "text" or "json"
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "lab",
		Short: "Real Debian hosts on this machine, to break and to mend",
		Long: `lab boots real Debian hosts, each with its own systemd, journal, address and power switch, on this one machine.
They are on a network of their own that leads nowhere else. A lab ends with the process that owns it, and leaves nothing.
It needs root. The first "lab up" builds the image, which takes one to two minutes.`,
		Example: `  lab up -n 3 --detach             three hosts, h1 to h3, kept in the background
  lab exec h1 -- systemctl start etcd
  lab partition h1 h2,h3           cut h1 off from the other two
  lab heal
  lab poweroff h2 && lab boot h2
  lab down`,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("no command %q: see \"lab --help\"", args[0])}
			}
			return cmd.Help()
		},
		Args: cobra.ArbitraryArgs,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w: see \"%s --help\"", err, cmd.CommandPath())}
	})
	root.PersistentFlags().StringVar(&c.name, "name", "", "the lab's name (default: the only one that is up)")
	root.AddCommand(c.up(), c.down(), c.list(), c.sweep(), c.exec(), c.console(), bmc())
	root.AddCommand(c.power()...)
	root.AddCommand(c.network()...)
	for _, sub := range root.Commands() {
		check := sub.Args
		if check == nil {
			check = cobra.NoArgs
		}
		sub.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{fmt.Errorf("%w: usage: %s", err, cmd.UseLine())}
			}
			return nil
		}
	}
	return root
}

// outputFlag adds -o to a command that prints.
func (c *cli) outputFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVarP(&c.output, "output", "o", "text", "text or json")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if c.output != "text" && c.output != "json" {
			return usageError{fmt.Errorf("output %q: give text or json", c.output)}
		}
		return nil
	}
	return cmd
}

func (c *cli) json(v any) error {
	enc := json.NewEncoder(c.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// lab is the lab that is meant: the one that is named, or the only one that is up.
func (c *cli) lab(ctx context.Context) (*lab.Remote, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("needs root: run it with sudo")
	}
	if c.name != "" {
		r, err := lab.Open(c.name, "")
		if err != nil {
			return nil, usageError{err}
		}
		return r, nil
	}
	all, err := lab.List(ctx, "")
	if err != nil {
		return nil, err
	}
	var up []string
	for _, i := range all {
		if i.State == "up" {
			up = append(up, i.Name)
		}
	}
	switch len(up) {
	case 1:
		return lab.Open(up[0], "")
	case 0:
		return nil, fmt.Errorf("%w: no lab is up: start one with \"lab up\"", lab.ErrNoContact)
	}
	return nil, usageError{fmt.Errorf("%d labs are up: choose one with --name: %s", len(up), strings.Join(up, ", "))}
}
