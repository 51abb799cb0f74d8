package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"fettle/internal/fettle"
)

// configure is etcd.configure.
type configure struct{ *cluster }

const opConfigure = "etcd.configure"

// settingsFile is the file that the member's settings are in.
func (in *instance) settingsFile() (file string, edit func([]byte, Settings) ([]byte, error)) {
	if in.config.ConfigFile != "" {
		return in.config.ConfigFile, EditYAML
	}
	return in.config.EnvFile, EditEnvironment
}

// change is what configure will write.
type change struct {
	file          string
	before, after []byte
	set           Settings
}

// plan works out what the file will be, and refuses what would be dangerous:
// "existing" for a member that the cluster does not know as one that was added
// anew and has never joined, or over data that is still there.
func (a configure) plan(ctx context.Context, op string, in *instance, step fettle.Step) (change, error) {
	refuse := func(hint, format string, args ...any) (change, error) {
		return change{}, fettle.Refuse(op, in.member, hint, format, args...)
	}
	file, edit := in.settingsFile()
	if file == "" {
		return change{}, &fettle.Error{Op: op, Subject: in.member, Class: fettle.Unsupported, Err: fettle.ErrNotSupported,
			Hint: "its settings are in no file that is known: name env_file or config_file in the adapter's configuration"}
	}
	state, _ := step.Params.Str("state")
	r, err := a.current(ctx)
	if err != nil {
		return change{}, unseen(op, in.member, err)
	}
	data := in.data(ctx, false)
	v, _ := r.of(in.member)
	switch state {
	case "existing":
		id, err := idOf(op, step)
		if err != nil {
			return change{}, err
		}
		switch {
		case data.State != logMissing:
			return refuse("set it aside first", "there is still data in %s (%s)", in.memberDir(), data.State)
		case v.id != id || !v.listed:
			return refuse("plan again from the facts as they are now", "the cluster does not know %s as the identity of %s", hex(id), in.config.Name)
		case !v.learner || !v.unstarted:
			return refuse("remove it, and add it anew", "%s is no learner that has never joined: with an empty log it could vote on what it has forgotten", hex(id))
		}
	case "new":
		if !v.listed || v.learner || data.State == logMissing {
			return refuse("promote it first", "%s is not a voter with its own data", in.config.Name)
		}
	default:
		return refuse("write existing, or new", "parameter state: %q", state)
	}
	members, err := initialClusterOf(r, in.config.Name, v.id)
	if err != nil {
		return refuse("wait until it has started, or remove it", "%w", err)
	}
	c := change{file: file, set: Settings{setInitialCluster: members, setInitialState: state}}
	if c.before, err = in.m.Files.ReadFile(ctx, file, maxSettings); err != nil {
		return refuse("is env_file or config_file in the adapter's configuration right?", "%w", err)
	}
	if c.after, err = edit(c.before, c.set); err != nil {
		return refuse("mend the file by hand", "%s: %w", file, err)
	}
	return c, nil
}

// initialClusterOf writes the members as INITIAL_CLUSTER must list them: exactly
// those of the cluster's own list, the one of this identity under its own name.
func initialClusterOf(r *round, name string, id uint64) (string, error) {
	var pairs []string
	for _, v := range r.views {
		if !v.listed {
			continue
		}
		as := v.name
		switch {
		case v.id == id:
			as = name
		case v.unstarted:
			return "", fmt.Errorf("member %s at %v has never started and has no name yet", hex(v.id), v.peerURLs)
		}
		for _, u := range v.peerURLs {
			pairs = append(pairs, as+"="+u)
		}
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ","), nil
}

// Preview implements fettle.Action.
func (a configure) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	in, err := a.here(opConfigure, step.Target)
	if err != nil {
		return fettle.Preview{}, err
	}
	c, err := a.plan(ctx, opConfigure, in, step)
	switch {
	case err != nil:
		return fettle.Preview{}, err
	case bytes.Equal(c.before, c.after):
		return would("nothing: %s says so already", c.file), nil
	}
	p := would("write into %s, and leave everything else in it:", c.file)
	for _, name := range sortedKeys(c.set) {
		p.Would = append(p.Would, name+" = "+c.set[name])
	}
	return p, nil
}

// backupFor is where a key's copy of the settings is kept: beside what is set
// aside, never where the service manager reads files.
func (in *instance) backupFor(key string) string {
	base := in.config.AsideDir
	if base == "" {
		base = path.Join(path.Dir(path.Clean(in.config.DataDir)), "fettle-aside")
	}
	file, _ := in.settingsFile()
	return path.Join(base, fileName(in.config.Name)+"-"+fileName(key)+"-"+path.Base(file))
}

// Apply implements fettle.Action.
func (a configure) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	in, err := a.here(opConfigure, d.Step.Target)
	if err != nil {
		return fettle.Result{}, err
	}
	c, err := a.plan(ctx, opConfigure, in, d.Step)
	if err != nil {
		return fettle.Result{}, err
	}
	backup := in.backupFor(d.Key)
	if err := in.m.Files.MkdirAll(ctx, path.Dir(backup), 0o700); err != nil {
		return fettle.Result{}, fettle.Refuse(opConfigure, in.member, "aside_dir in the adapter's configuration must be writable", "%w", err)
	}
	if err := in.m.Files.WriteFile(ctx, backup, c.before, 0o600); err != nil {
		return fettle.Result{}, fettle.Refuse(opConfigure, in.member, "aside_dir in the adapter's configuration must be writable", "%w", err)
	}
	if err := in.m.Files.WriteFile(ctx, c.file, c.after, 0o644); err != nil {
		return fettle.Result{}, classOr(opConfigure, in.member, err)
	}
	return configuredResult(backup, c.file), nil
}

func configuredResult(backup, file string) fettle.Result {
	return fettle.Result{Outputs: fettle.Facts{"backup": backup}, Notes: []string{file + " was written; as it was, it is in " + backup}}
}

// Recover implements fettle.Action. The copy is made before the file is replaced,
// which is done at once or not at all.
func (a configure) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	in, err := a.here(opConfigure, d.Step.Target)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, err
	}
	file, _ := in.settingsFile()
	now, err := in.m.Files.ReadFile(ctx, file, maxSettings)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, classOr(opConfigure, in.member, err)
	}
	backup := in.backupFor(d.Key)
	if d.Undo {
		backup, _ = d.Outputs.Str("backup")
	}
	was, err := in.m.Files.ReadFile(ctx, backup, maxSettings)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fettle.NeverWillBe, fettle.Result{}, nil
	case err != nil:
		return fettle.UnknownFate, fettle.Result{}, classOr(opConfigure, in.member, err)
	case bytes.Equal(was, now) == d.Undo:
		return fettle.Done, configuredResult(backup, file), nil
	}
	// Not replaced; or it says already what was to be written.
	settings, err := in.settings(ctx)
	state, _ := d.Step.Params.Str("state")
	if c, perr := a.plan(ctx, opConfigure, in, d.Step); err == nil && perr == nil && !d.Undo && settings.state() == state && bytes.Equal(c.before, c.after) {
		return fettle.Done, configuredResult(backup, file), nil
	}
	return fettle.NeverWillBe, fettle.Result{}, nil
}

// Undo implements fettle.Action.
func (a configure) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	op := "undo " + opConfigure
	in, err := a.here(op, d.Step.Target)
	if err != nil {
		return fettle.Result{}, err
	}
	backup, _ := d.Outputs.Str("backup")
	file, _ := in.settingsFile()
	if backup == "" || file == "" {
		return fettle.Result{}, fettle.Refuse(op, in.member, "the step's output says where the copy is", "there is no copy to restore")
	}
	was, err := in.m.Files.ReadFile(ctx, backup, maxSettings)
	if err != nil {
		return fettle.Result{}, fettle.Refuse(op, in.member, "look for the copy beside the data", "%w", err)
	}
	if err := in.m.Files.WriteFile(ctx, file, was, 0o644); err != nil {
		return fettle.Result{}, classOr(op, in.member, err)
	}
	return noted("%s is as it was", file), nil
}
