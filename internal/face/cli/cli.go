// Package cli is the command line: it turns arguments into calls of the other
// rooms and their answers into text for people or JSON for programs.
//
// It decides nothing about machines. Its invariants, which scripts rely on:
// every command that prints takes -o json (one document, or one object a line
// when streaming); the exit status is 0 healthy or done, 1 ill or refused, 2
// could not tell, 3 usage error, 4 no contact; colour and progress appear on a
// terminal only; every error ends in what to do next.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"fettle/internal/face/show"
	"fettle/internal/machine"
)

// The exit statuses.
const (
	ExitWell      = 0
	ExitIll       = 1
	ExitUnknown   = 2
	ExitUsage     = 3
	ExitNoContact = 4
)

// Setup is what main hands in: what this binary was built with.
type Setup struct {
	Version  string
	Adapters []machine.Adapter
	Runbooks fs.FS
	Units    fs.FS // packaging.FS
	// EtcdMain runs a real etcd server, for the demo's members, and does not
	// return.
	EtcdMain func(args []string)
}

// Exit is an error with an exit status. Its text may be empty: what there was to
// say was said.
type Exit struct {
	Code int
	Err  error
}

// Error returns the cause's text.
func (e *Exit) Error() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *Exit) Unwrap() error { return e.Err }

func exit(code int, format string, args ...any) error {
	return &Exit{Code: code, Err: fmt.Errorf(format, args...)}
}

// app is one call of the command line.
type app struct {
	Setup
	out    *os.File
	errOut io.Writer
	in     *os.File
	json   bool
	format string
	begun  bool       // the arguments were understood: what goes wrong from here on is no usage error
	events sync.Mutex // what happens is told by several goroutines, one at a time
}

// Main runs the command line and returns the exit status. It ends its work when
// the process is interrupted or asked to terminate; asked again while that takes
// its time, the process ends at once, as it would without a handler.
func Main(setup Setup, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	a := &app{Setup: setup, out: os.Stdout, errOut: os.Stderr, in: os.Stdin}
	root := a.root()
	root.SetArgs(args)
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitWell
	}
	var e *Exit
	switch {
	case errors.As(err, &e):
	case a.begun:
		e = &Exit{Code: ExitUnknown, Err: err}
	default: // the library's own errors about flags and arguments
		e = &Exit{Code: ExitUsage, Err: fmt.Errorf("%w (see `%s --help`)", err, c.CommandPath())}
	}
	if text := strings.TrimRight(e.Error(), "\n"); text != "" {
		fmt.Fprintln(a.errOut, "fettle: "+text)
	}
	return e.Code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "fettle",
		Short: "Keep Linux servers, and the distributed systems on them, in good health",
		Long: `Fettle detects a fault, finds its cause, plans the smallest repair, proves it
safe, does it, verifies it, and undoes it if it did not help.

Exit status: 0 healthy or done, 1 ill or refused, 2 could not tell,
3 usage error, 4 no contact.`,
		Example: `  fettle demo              a real cluster, broken and mended before your eyes
  fettle doctor            look at this machine; changes nothing
  fettle repair            the same, then shows the plan, asks, repairs
  fettle up                look after this machine from now on`,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			switch a.format {
			case "text":
			case "json":
				a.json = true
			default:
				return exit(ExitUsage, "unknown output format %q; known: text, json", a.format)
			}
			a.begun = true
			return nil
		},
	}
	root.PersistentFlags().StringVarP(&a.format, "output", "o", "text", "output format: text or json")
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	root.AddCommand(a.commands()...)
	polish(root)
	return root
}

// must turns a mistake in this package's own wiring into a refusal to start.
func must(err error) {
	if err != nil {
		panic("cli: " + err.Error())
	}
}

func (a *app) printer() *show.Printer { return show.For(a.out) }

// print writes a value as JSON, or lets text write it.
func (a *app) print(v any, text func(*show.Printer)) error {
	if a.json {
		enc := json.NewEncoder(a.out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	p := a.printer()
	text(p)
	return p.Err()
}

// progress tells a person what takes time. It is silent where nobody looks.
func (a *app) progress(format string, args ...any) {
	if f, ok := a.errOut.(*os.File); ok && show.IsTerminal(f) && !a.json {
		fmt.Fprintf(f, format+"\n", args...)
	}
}
