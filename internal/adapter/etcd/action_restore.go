package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// restore is etcd.restore: a new cluster of one from a snapshot of the survivor,
// taken now. It is for a lost majority, after a person has approved it.
type restore struct{ *cluster }

const opRestore = "etcd.restore"

// tool is a program that makes a data directory of a snapshot.
type tool struct {
	name    string
	env     []string
	version string
}

var toolVersion = regexp.MustCompile(`(?m)^etcd(?:utl|ctl) version: ([0-9]+\.[0-9]+)\.`)

// toolFor finds etcdutl (since 3.5), or etcdctl (before), of the server's own
// minor version: what another version writes, a server may not read.
func (in *instance) toolFor(ctx context.Context, server string) (tool, error) {
	want, _, _ := strings.Cut(server, ".")
	if parts := strings.SplitN(server, ".", 3); len(parts) == 3 {
		want = parts[0] + "." + parts[1]
	}
	var seen []string
	for _, t := range []tool{{name: "etcdutl"}, {name: "etcdctl", env: []string{"ETCDCTL_API=3"}}} {
		out, err := in.m.Commands.Run(ctx, machine.Command{Path: t.name, Args: []string{"version"}, Env: t.env})
		if err != nil {
			continue // it is not there
		}
		m := toolVersion.FindSubmatch(out.Stdout)
		if m == nil {
			continue
		}
		if t.version = string(m[1]); t.version == want {
			return t, nil
		}
		seen = append(seen, t.name+" "+t.version)
	}
	return tool{}, &fettle.Error{Op: opRestore, Subject: in.member, Class: fettle.Unsupported,
		Err:  fmt.Errorf("%w: no etcdutl or etcdctl of version %s here (found: %s)", fettle.ErrNotSupported, want, strings.Join(seen, ", ")),
		Hint: "install the etcdutl (or, for 3.4, the etcdctl) that belongs to the server"}
}

// survivor looks at the member that the cluster shall go on with, and refuses as
// long as the cluster can be had back otherwise.
func (a restore) survivor(ctx context.Context, step fettle.Step) (*instance, view, tool, error) {
	fail := func(err error) (*instance, view, tool, error) { return nil, view{}, tool{}, err }
	s, err := subjectOf(opRestore, step, "survivor")
	if err != nil {
		return fail(err)
	}
	in, err := a.here(opRestore, s)
	if err != nil {
		return fail(err)
	}
	refuse := func(hint, format string, args ...any) (*instance, view, tool, error) {
		return fail(fettle.Refuse(opRestore, step.Target, hint, format, args...))
	}
	state, err := in.look(ctx)
	if err != nil {
		return refuse("the service manager must answer", "%w", err)
	}
	v, _ := state.round.of(s)
	serving := 0
	for _, o := range state.round.views {
		if o.listed && !o.learner && o.status != nil {
			serving++
		}
	}
	voters := len(state.round.quorum(nil).Members)
	file, _ := in.settingsFile()
	switch {
	case step.Target != a.subject:
		return refuse("the step belongs to an agent with the adapter for that cluster", "this adapter looks after %s", a.subject)
	case state.round.leader != 0 || serving >= voters/2+1:
		return refuse("let it mend itself: replace the others one by one", "%d of %d voters answer, and the cluster has or can elect a leader", serving, voters)
	case v.status == nil:
		return refuse("start it first; a member that was started without a quorum answers nothing, and must be restored by hand from a copy of its database", "%s does not answer, so no snapshot can be taken of it", v.name)
	case in.config.WALDir != "" || file == "":
		return refuse("restore by hand", "its write-ahead log is elsewhere, or its settings are in no file that is known")
	}
	t, err := in.toolFor(ctx, v.status.Version)
	if err != nil {
		return fail(err)
	}
	return in, v, t, nil
}

// loses says what would be gone, and what cannot be known of it.
func (a restore) loses(v view) string {
	return fmt.Sprintf("%s has revision %d. Every write after it that the others had acknowledged is lost; how many there were nobody can say. The cluster gets a new identity: watchers and leases begin anew.",
		v.name, v.status.Header.GetRevision())
}

// Preview implements fettle.Action.
func (a restore) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	in, v, t, err := a.survivor(ctx, step)
	if err != nil {
		return fettle.Preview{}, err
	}
	return fettle.Preview{Loses: a.loses(v), Would: []string{
		fmt.Sprintf("save a snapshot of %s into %s", v.name, in.config.SnapshotDir),
		"stop " + in.config.Unit,
		fmt.Sprintf("set %s aside", in.memberDir()),
		fmt.Sprintf("make it anew from the snapshot with %s %s, as a cluster of one with a token of its own", t.name, t.version),
		fmt.Sprintf("write that into its settings, and start %s", in.config.Unit),
		"leave the others alone: each is replaced by a plan of its own",
	}}, nil
}

// Apply implements fettle.Action. After the server is stopped there is no way
// back but by hand; each part leaves what the next one needs, and the old data
// stays aside.
func (a restore) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	in, v, t, err := a.survivor(ctx, d.Step)
	if err != nil {
		return fettle.Result{}, err
	}
	snap, err := in.save(ctx, v, d)
	if err != nil {
		return fettle.Result{}, fettle.Refuse(opRestore, d.Step.Target, "nothing was changed", "no snapshot: %w", err)
	}
	if err := in.stopService(ctx); err != nil {
		return fettle.Result{}, classOr(opRestore, in.member, err)
	}
	dir, err := in.m.Files.Stat(ctx, in.config.DataDir)
	if err != nil {
		return fettle.Result{}, classOr(opRestore, in.member, err)
	}
	moved, err := in.moveAway(ctx, opRestore, d, in.data(ctx, false))
	if err != nil {
		return fettle.Result{}, broken(opRestore, in.member, err, "the server is stopped; start it again by hand, nothing else was changed")
	}
	aside, _ := moved.Outputs.Str("path")
	if err := in.rebuild(ctx, t, snap.Path, path.Join(path.Dir(aside), "restored"), d.Key, dir); err != nil {
		return fettle.Result{}, broken(opRestore, in.member, err, "put the data back: "+moved.Receipts[0].Back)
	}
	if _, err := in.bringUp(ctx, opRestore); err != nil {
		return fettle.Result{}, err
	}
	return fettle.Result{
		Outputs:  fettle.Facts{"path": aside, "snapshot": snap.Path, "revision": snap.Revision},
		Receipts: moved.Receipts,
		Notes:    []string{fmt.Sprintf("%s is a cluster of one now, from revision %d; its old data is in %s", in.config.Name, snap.Revision, aside)},
	}, nil
}

// tokenFor is the token of the new cluster: identities are made of URLs and token,
// so a cluster of the same URLs needs another one.
func (in *instance) tokenFor(key string) string {
	return fileName(in.cluster.system) + "-" + fileName(key)
}

// rebuild makes the data directory from the snapshot, and the settings fit it.
func (in *instance) rebuild(ctx context.Context, t tool, snapshot, into, key string, owner machine.Stat) error {
	one := in.config.Name + "=" + in.config.PeerURL
	out, err := in.m.Commands.Run(ctx, machine.Command{Path: t.name, Env: t.env, Args: []string{
		"snapshot", "restore", snapshot, "--name", in.config.Name, "--data-dir", into,
		"--initial-cluster", one, "--initial-cluster-token", in.tokenFor(key), "--initial-advertise-peer-urls", in.config.PeerURL,
	}})
	if err == nil && out.Exit != 0 {
		err = fmt.Errorf("%s snapshot restore: exit status %d: %s", t.name, out.Exit, strings.TrimSpace(string(out.Stderr)))
	}
	if err != nil {
		return err
	}
	if err := in.m.Files.Chown(ctx, into, owner.UID, owner.GID, true); err != nil {
		return err
	}
	if err := in.m.Files.Rename(ctx, path.Join(into, "member"), in.memberDir()); err != nil {
		return err
	}
	file, edit := in.settingsFile()
	before, err := in.m.Files.ReadFile(ctx, file, maxSettings)
	if err != nil {
		return err
	}
	// "existing", and nobody else: should the data go missing, it cannot begin a
	// cluster of its own from nothing.
	after, err := edit(before, Settings{setInitialCluster: one, setInitialState: "existing", "initial-cluster-token": in.tokenFor(key)})
	if err != nil {
		return err
	}
	if err := in.m.Files.WriteFile(ctx, in.backupFor(key), before, 0o600); err != nil {
		return err
	}
	return in.m.Files.WriteFile(ctx, file, after, 0o644)
}

// Recover implements fettle.Action. It is done when the settings have this key's
// token and the member leads a cluster of one; it never will be when not even the
// snapshot was finished. Anything between is for a person.
func (a restore) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	s, err := subjectOf(opRestore, d.Step, "survivor")
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, err
	}
	in, err := a.here(opRestore, s)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, err
	}
	if _, err := in.m.Files.Stat(ctx, in.pathFor(d.Key)); errors.Is(err, fs.ErrNotExist) {
		return fettle.NeverWillBe, fettle.Result{}, nil
	}
	settings, err := in.settings(ctx)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, classOr(opRestore, in.member, err)
	}
	r := a.look(ctx)
	v, _ := r.of(s)
	m, moved, err := in.movedAway(ctx, d.Key)
	if err == nil && moved && settings["initial-cluster-token"] == in.tokenFor(d.Key) && v.status != nil && v.id == r.leader {
		result := asideResult(m)
		result.Outputs = fettle.Facts{"path": m.Where, "snapshot": in.pathFor(d.Key), "revision": v.status.Header.GetRevision()}
		return fettle.Done, result, nil
	}
	note := noted("it was begun and is not finished: a person must look at %s, %s and the settings", in.config.DataDir, m.Where)
	return fettle.UnknownFate, note, nil
}

// Undo implements fettle.Action.
func (a restore) Undo(_ context.Context, d fettle.Dispatch) (fettle.Result, error) {
	return forwardOnly(opRestore, d.Step.Target)
}
