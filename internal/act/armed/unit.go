package armed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"fettle/internal/fettle"
)

// booted is there where systemd is the manager (sd_booted(3)).
const booted = "/run/systemd/system"

// unitTemplate is the unit of every armed change. It is outside of the agent's
// unit, so that nothing that ends the agent ends it. It orders itself behind what
// loads the machine's own rules at boot, so that what it puts back comes last.
// Type=notify: it is active only once it has read its record. It is restarted
// for ever, since a revert that is due is due.
const unitTemplate = `# Written by fettle. Takes a change back that is not confirmed in time.
[Unit]
Description=Fettle takes change %%i back unless it is confirmed
Documentation=man:fettle(1)
After=nftables.service firewalld.service ufw.service netfilter-persistent.service
RequiresMountsFor=%[2]s
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=%[1]s revert --armed %%i --dir %[2]s
Restart=on-failure
RestartSec=1
OOMScoreAdjust=-900
`

// template is the name of the unit, and instance that of one change's.
const template = "fettle-revert@.service"

func instance(id string) string { return "fettle-revert@" + id + ".service" }

// wanted is the file that has every boot start the unit of a change: a drop-in,
// since the port of a machine's files makes no links.
func (a *Arms) wanted(id string) string {
	return path.Join(a.o.UnitDir, "multi-user.target.d", "fettle-revert-"+id+".conf")
}

// quoted is a word of a unit's command line (systemd.service(5)).
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`).Replace(s) + `"`
}

// install writes the template unless it is there as it should be.
func (a *Arms) install(ctx context.Context) error {
	want := fmt.Appendf(nil, unitTemplate, quoted(a.o.Program), quoted(a.o.Dir))
	name := path.Join(a.o.UnitDir, template)
	have, err := a.m.Files.ReadFile(ctx, name, 1<<16)
	if err == nil && bytes.Equal(have, want) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return a.m.Files.WriteFile(ctx, name, want, 0o644)
}

// enable has every boot from now on start the unit.
func (a *Arms) enable(ctx context.Context, id string) error {
	name := a.wanted(id)
	if err := a.m.Files.MkdirAll(ctx, path.Dir(name), 0o755); err != nil {
		return err
	}
	return a.m.Files.WriteFile(ctx, name, []byte("# Written by fettle; gone when the change is confirmed or taken back.\n[Unit]\nWants="+instance(id)+"\n"), 0o644)
}

// disable takes enable back. It may be called again.
func (a *Arms) disable(ctx context.Context, id string) error {
	if err := a.m.Files.Remove(ctx, a.wanted(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// start starts the unit and sees it active.
func (a *Arms) start(ctx context.Context, id string) error {
	if err := a.m.Services.DaemonReload(ctx); err != nil {
		return err
	}
	job, err := a.m.Services.Start(ctx, instance(id))
	if err != nil {
		return err
	}
	u, err := a.m.Services.Unit(ctx, instance(id))
	switch {
	case err != nil:
		return err
	case u.ActiveState != "active" || u.MainPID == 0:
		return fmt.Errorf("%s is %s (%s) after its start, which ended with %q", instance(id), u.ActiveState, u.Result, job.Result)
	}
	return nil
}

// supported refuses a machine on which nothing outlives the agent.
func (a *Arms) supported(ctx context.Context) error {
	if _, err := a.m.Files.Stat(ctx, booted); err != nil {
		return &fettle.Error{Op: "arm a revert", Subject: a.m.Identity.Host, Class: fettle.Unsupported,
			Err: fmt.Errorf("no systemd here (%s): %w: %w", booted, fettle.ErrNotSupported, err), Hint: "make the change by hand, with a console at hand"}
	}
	return nil
}
