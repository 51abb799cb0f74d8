package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"fettle/internal/act/armed"
	"fettle/internal/face/show"
	"fettle/internal/machine"
	"fettle/internal/machine/linuxmachine"
)

// armedDir is where changes that are taken back unless they are confirmed are kept.
func armedDir() string { return filepath.Join(stateDir(), "armed") }

// arms is what takes this machine's changes back; nil, where this program cannot
// say where it is, so that no unit could run it.
func arms(m machine.Machine) *armed.Arms { return armsIn(m, armedDir()) }

func armsIn(m machine.Machine, dir string) *armed.Arms {
	program, err := os.Executable()
	if err != nil {
		return nil
	}
	return armed.New(m, armed.Options{Dir: dir, Program: program, PID: os.Getpid()})
}

func (a *app) revertCommand() *cobra.Command {
	var id, dir string
	var now, keep bool
	c := &cobra.Command{
		Use: "revert", Short: "Show or take back changes that can cut this machine off",
		Long: `A change that can cut this machine off is taken back unless a server is reached
over a new connection within 45 seconds. Without a flag: which changes of this
machine wait for that, and what became of the last ones.

With --armed: wait until the change is confirmed or its time is over, and then
put back what was there; systemd runs this as fettle-revert@ID.service, also
after a reboot and without the agent. With --now as well: take it back at once.
With --keep: let it stand. Where a server runs on this machine itself, only that
does, since reaching it tells nothing of the network: log in anew, and keep it.
A freeze stops none of this.`,
		Example: "  sudo fettle revert\n  sudo fettle revert --armed 0123456789abcdef --now\n  sudo fettle revert --armed 0123456789abcdef --keep", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			// It needs no fleet: whoever this machine is, the record says what to do.
			h, err := linuxmachine.Open(ctx, linuxmachine.Config{Host: "revert"})
			if err != nil {
				return err
			}
			defer h.Close()
			arms := armsIn(h.Ports(), dir)
			switch {
			case arms == nil:
				return exit(ExitUnknown, "this program cannot tell where its file is")
			case (now || keep) && id == "":
				return exit(ExitUsage, "--now and --keep need --armed (`fettle revert` lists what there is)")
			case keep:
				return a.keepArmed(ctx, arms, id)
			case now:
				if err := arms.Now(ctx, id); err != nil {
					return &Exit{Code: ExitIll, Err: err}
				}
				return a.takeBack(ctx, arms, id, func() error { return nil })
			case id != "":
				return a.takeBack(ctx, arms, id, notifyReady)
			}
			return a.listArmed(ctx, arms)
		},
	}
	c.Flags().StringVar(&id, "armed", "", "the change to take back unless it is confirmed in time")
	c.Flags().StringVar(&dir, "dir", armedDir(), "folder of the changes")
	c.Flags().BoolVar(&now, "now", false, "take it back at once")
	c.Flags().BoolVar(&keep, "keep", false, "let it stand")
	c.MarkFlagsMutuallyExclusive("now", "keep")
	return c
}

// keepArmed is a person's word that the machine can be reached.
func (a *app) keepArmed(ctx context.Context, arms *armed.Arms, id string) error {
	since, err := arms.Uptime(ctx)
	if err == nil {
		err = arms.Confirm(ctx, id, since)
	}
	if err != nil {
		return &Exit{Code: ExitIll, Err: err}
	}
	return a.print(map[string]string{"kept": id}, func(p *show.Printer) { p.Line("%s stands", id) })
}

func (a *app) takeBack(ctx context.Context, arms *armed.Arms, id string, ready func() error) error {
	if err := arms.Revert(ctx, id, ready); err != nil {
		return &Exit{Code: ExitIll, Err: err}
	}
	return nil
}

func (a *app) listArmed(ctx context.Context, arms *armed.Arms) error {
	list, err := arms.List(ctx)
	if err != nil {
		return fmt.Errorf("the changes of this machine: %w", err)
	}
	if list == nil {
		list = []armed.State{}
	}
	return a.print(list, func(p *show.Printer) {
		if len(list) == 0 {
			p.Line("no change of this machine waits for a confirmation")
		}
		for _, s := range list {
			state := string(s.Decision)
			switch {
			case s.Decision == armed.Open:
				state = fmt.Sprintf("taken back in %v unless it is confirmed", s.Left.Round(time.Second))
			case s.Decision == armed.Reverting && s.Done:
				state = "taken back: " + s.Why
			}
			p.Line("%s  %s on %s  %s", s.ID, s.Action, s.Target, state)
			p.Line("  puts back: %s", s.Says)
			if s.Trouble != "" {
				p.Line("  trouble: %s", s.Trouble)
			}
		}
	})
}

// notifyReady tells the service manager that this service is ready (sd_notify(3)).
// Without a manager it does nothing.
func notifyReady() error {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}
