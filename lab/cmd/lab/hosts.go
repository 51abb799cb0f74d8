package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"fettle/lab"

	"github.com/spf13/cobra"
)

func (c *cli) power() []*cobra.Command {
	var out []*cobra.Command
	for _, p := range []struct{ do, short string }{
		{"boot", "Switch hosts on, and wait until they have started up"},
		{"poweroff", "Cut the power of hosts: every process is killed at once"},
		{"shutdown", "Shut hosts down cleanly, and wait until they are off"},
		{"freeze", "Hang hosts: no process runs, the kernel still answers ping"},
		{"thaw", "Let frozen hosts go on"},
		{"isolate", "Cut hosts off from everybody, until \"lab heal\""},
	} {
		out = append(out, &cobra.Command{
			Use:     p.do + " HOST…",
			Short:   p.short,
			Example: "  lab " + p.do + " h2",
			Args:    cobra.MinimumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return c.order(cmd, lab.Order{Do: p.do, Hosts: names(args...)})
			},
		})
	}
	return out
}

func (c *cli) order(cmd *cobra.Command, o lab.Order) error {
	r, err := c.lab(cmd.Context())
	if err != nil {
		return err
	}
	return r.Order(cmd.Context(), o)
}

// names are the host names in args, each of which may be a list with commas.
func names(args ...string) []string {
	var out []string
	for _, a := range args {
		for n := range strings.SplitSeq(a, ",") {
			if n != "" {
				out = append(out, n)
			}
		}
	}
	return out
}

func (c *cli) exec() *cobra.Command {
	return &cobra.Command{
		Use:     "exec HOST -- COMMAND…",
		Short:   "Run a command in a host; its exit status becomes that of lab",
		Example: "  lab exec h1 -- journalctl -n 20\n  lab exec h1 -- bash -i",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.lab(cmd.Context())
			if err != nil {
				return err
			}
			code, err := r.Stream(cmd.Context(), args[0], c.in, c.out, c.err, args[1:]...)
			if err != nil {
				return err
			}
			if code != 0 {
				return exitStatus(code)
			}
			return nil
		},
	}
}

func (c *cli) console() *cobra.Command {
	var lines int
	cmd := &cobra.Command{
		Use:     "console HOST",
		Short:   "Show the end of what a host wrote to its console",
		Example: "  lab console h1\n  lab console h1 --lines 200",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.lab(cmd.Context())
			if err != nil {
				return err
			}
			info, err := r.Info(cmd.Context())
			if err != nil {
				return err
			}
			for _, h := range info.Hosts {
				if h.Name != args[0] {
					continue
				}
				data, err := os.ReadFile(h.Console)
				if err != nil {
					return err
				}
				all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
				fmt.Fprintln(c.out, strings.Join(all[max(0, len(all)-lines):], "\n"))
				return nil
			}
			return fmt.Errorf("lab %s has no host %q", info.Name, args[0])
		},
	}
	cmd.Flags().IntVar(&lines, "lines", 40, "how many lines")
	return cmd
}

func bmc() *cobra.Command {
	return &cobra.Command{
		Use:   "bmc HOST",
		Short: "A host's management controller (not supported yet)",
		Args:  cobra.ArbitraryArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("not supported yet: the BMC comes with the out-of-band issue: use poweroff and boot")
		},
	}
}

func (c *cli) network() []*cobra.Command {
	var oneWay bool
	partition := &cobra.Command{
		Use:   "partition A B",
		Short: "Cut all traffic between two hosts, or two lists of hosts with commas",
		Example: `  lab partition h1 h2,h3
  lab partition h1 h2 --one-way    only what goes from h1 to h2 is lost`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := lab.Order{Do: "partition", Hosts: names(args[0]), To: names(args[1])}
			if oneWay {
				o.Do = "cut"
			}
			return c.order(cmd, o)
		},
	}
	partition.Flags().BoolVar(&oneWay, "one-way", false, "cut only the direction from A to B")

	heal := &cobra.Command{
		Use:   "heal",
		Short: "Take all faults away from the network",
		RunE:  func(cmd *cobra.Command, _ []string) error { return c.order(cmd, lab.Order{Do: "heal"}) },
	}

	var lossTo, delayTo []string
	loss := &cobra.Command{
		Use:     "loss HOST… PERCENT",
		Short:   "Drop that share of the packets that hosts send; 0 ends it",
		Example: "  lab loss h1 30\n  lab loss h1 30 --to h2",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			hosts, last := args[:len(args)-1], strings.TrimSuffix(args[len(args)-1], "%")
			percent, err := strconv.ParseFloat(last, 64)
			if err != nil {
				return usageError{fmt.Errorf("loss %q: give a number from 0 to 100", last)}
			}
			return c.order(cmd, lab.Order{Do: "loss", Hosts: names(hosts...), To: names(lossTo...), Percent: percent})
		},
	}
	loss.Flags().StringSliceVar(&lossTo, "to", nil, "only packets to these hosts")

	var jitter time.Duration
	delay := &cobra.Command{
		Use:     "delay HOST… DURATION",
		Short:   "Hold back the packets that hosts send to other hosts; 0 ends it",
		Example: "  lab delay h1 100ms --jitter 20ms\n  lab delay h1 100ms --to h2",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			hosts, last := args[:len(args)-1], args[len(args)-1]
			base, err := time.ParseDuration(last)
			if err != nil {
				return usageError{fmt.Errorf("delay %q: give a duration, for example 100ms", last)}
			}
			return c.order(cmd, lab.Order{Do: "delay", Hosts: names(hosts...), To: names(delayTo...), Base: base, Jitter: jitter})
		},
	}
	delay.Flags().StringSliceVar(&delayTo, "to", nil, "only packets to these hosts")
	delay.Flags().DurationVar(&jitter, "jitter", 0, "vary the delay by up to this, both ways")
	return []*cobra.Command{partition, heal, loss, delay}
}
