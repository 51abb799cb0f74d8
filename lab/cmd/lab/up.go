package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"fettle/lab"

	"github.com/spf13/cobra"
)

func (c *cli) up() *cobra.Command {
	var hosts int
	var packages []string
	var detach, holder bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a lab, and keep it until interrupted",
		Example: `  lab up -n 3
  lab up -n 5 --name big --detach -o json
  lab up -n 3 --package redis-server --package redis-sentinel`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := lab.Config{Name: cmp.Or(c.name, "lab"), Hosts: hosts, Image: lab.DefaultImage().With(packages...), Progress: c.err}
			switch {
			case detach:
				args := []string{"up", "--holder", "--name", cfg.Name, "--hosts", strconv.Itoa(hosts)}
				for _, p := range packages {
					args = append(args, "--package", p)
				}
				return c.detach(cmd.Context(), args)
			case holder:
				return hold(cmd.Context(), cfg)
			}
			began := time.Now()
			l, err := lab.Start(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if err := c.show(l.Info()); err != nil {
				return errors.Join(err, l.Close())
			}
			fmt.Fprintf(c.err, "up in %.1f s; Ctrl-C or \"lab down --name %s\" ends it\n", time.Since(began).Seconds(), l.Name())
			return wait(cmd.Context(), l)
		},
	}
	cmd.Flags().IntVarP(&hosts, "hosts", "n", 3, "number of hosts")
	cmd.Flags().StringArrayVar(&packages, "package", nil, "a further Debian package in the image (builds another image)")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "return when it is up, and keep it in the background")
	cmd.Flags().BoolVar(&holder, "holder", false, "")
	cmd.Flag("holder").Hidden = true
	return c.outputFlag(cmd)
}

// wait keeps the lab until ctx ends or somebody ends the lab.
func wait(ctx context.Context, l *lab.Lab) error {
	select {
	case <-ctx.Done():
	case <-l.Done():
	}
	return l.Close()
}

// The holder is a second process of this program that owns a detached lab. On descriptor 3 it answers once, with the
// lab's description or with the reason why there is none; until then its standard error is its starter's.
const answerFD = 3

type answer struct {
	Info  *lab.Info `json:"info,omitempty"`
	Error string    `json:"error,omitempty"`
}

// detach starts the holder with these arguments, and returns when it has answered.
func (c *cli) detach(ctx context.Context, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, args...) // it stays when this process ends
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.ExtraFiles = []*os.File{write}
	said, err := cmd.StderrPipe()
	if err != nil {
		return errors.Join(err, write.Close())
	}
	err = cmd.Start()
	write.Close()
	if err != nil {
		return err
	}
	// It cleans up and answers; if it has gone already there is nothing to tell it.
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	for lines := bufio.NewScanner(said); lines.Scan(); {
		fmt.Fprintln(c.err, lines.Text())
	}
	data, err := io.ReadAll(read)
	if err != nil {
		return err
	}
	var a answer
	if err := json.Unmarshal(data, &a); err != nil {
		return fmt.Errorf("the holder of the lab ended without an answer: %w", cmp.Or(cmd.Wait(), err))
	}
	if a.Info == nil {
		_ = cmd.Wait() // it says by its status what it has said in words
		return errors.New(strings.TrimPrefix(a.Error, "lab: "))
	}
	if err := c.show(*a.Info); err != nil {
		return err
	}
	return cmd.Process.Release()
}

// hold is the holder.
func hold(ctx context.Context, cfg lab.Config) error {
	syscall.CloseOnExec(answerFD) // the lab's own processes must not keep the starter waiting
	out := os.NewFile(answerFD, "answer")
	l, err := lab.Start(ctx, cfg)
	var a answer
	if err != nil {
		a.Error = err.Error()
	} else {
		info := l.Info()
		a.Info = &info
	}
	werr := errors.Join(json.NewEncoder(out).Encode(a), out.Close())
	null, nerr := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if nerr == nil {
		nerr = syscall.Dup3(int(null.Fd()), 2, 0) // the end of standard error is what the starter waits for
	}
	if err != nil {
		return err
	}
	if err := errors.Join(werr, nerr); err != nil {
		return errors.Join(err, l.Close())
	}
	return wait(ctx, l)
}

func (c *cli) down() *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		Short:   "End a lab and remove all of it",
		Example: "  lab down\n  lab down --name big",
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := c.lab(cmd.Context())
			if err != nil {
				return err
			}
			return r.Down(cmd.Context())
		},
	}
}

func (c *cli) list() *cobra.Command {
	return c.outputFlag(&cobra.Command{
		Use:     "list",
		Short:   "Show all labs of this machine, their hosts and faults",
		Example: "  lab list\n  lab list -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := lab.List(cmd.Context(), "")
			if err != nil {
				return err
			}
			if c.output == "json" {
				return c.json(all)
			}
			if len(all) == 0 {
				fmt.Fprintln(c.out, "no labs")
			}
			for _, i := range all {
				if err := c.show(i); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

func (c *cli) sweep() *cobra.Command {
	return &cobra.Command{
		Use:   "sweep",
		Short: "Remove what is left of labs whose owner is gone",
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, err := lab.Sweep(cmd.Context(), "")
			for _, n := range names {
				fmt.Fprintln(c.out, "swept", n)
			}
			return err
		},
	}
}

// show prints a lab.
func (c *cli) show(i lab.Info) error {
	if c.output == "json" {
		return c.json(i)
	}
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "%s\t%s\t%s\towner %d\n", i.Name, i.State, i.Prefix, i.Owner)
	for _, h := range i.Hosts {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", h.Name, h.Power, h.Address, strings.Join(h.Disks, " "))
	}
	for _, f := range i.Faults {
		fmt.Fprintf(w, "  fault\t%s\n", f)
	}
	return w.Flush()
}
