package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"fettle/internal/fettle"
)

// setAside is etcd.set_aside.
type setAside struct{ *cluster }

const opAside = "etcd.set_aside"

// manifest is written beside what was set aside, before it is moved.
type manifest struct {
	What     string    `json:"what"` // where it was
	Where    string    `json:"where"`
	Bytes    int64     `json:"bytes"`
	At       time.Time `json:"at"`
	Member   string    `json:"member"` // subject
	Identity string    `json:"identity,omitempty"`
	Cluster  string    `json:"cluster,omitempty"`
	Incident string    `json:"incident,omitempty"`
	Key      string    `json:"key"`
	Back     string    `json:"back"`
}

// memberDir is what is moved: everything that etcd keeps is in it, and the data
// directory around it stays, with its owner, mode and mount.
func (in *instance) memberDir() string { return path.Join(in.config.DataDir, "member") }

// asideFor is the folder that this key's data goes to.
func (in *instance) asideFor(ctx context.Context, key string) (string, error) {
	base := in.config.AsideDir
	if base == "" {
		data, err := in.m.Files.Stat(ctx, in.config.DataDir)
		if err != nil {
			return "", err
		}
		parent := path.Dir(path.Clean(in.config.DataDir))
		above, err := in.m.Files.Stat(ctx, parent)
		if err != nil {
			return "", err
		}
		if base = parent; above.Device != data.Device {
			base = in.config.DataDir // a mount point: a rename goes no further
		}
		base = path.Join(base, "fettle-aside")
	}
	return path.Join(base, fileName(in.config.Name)+"-"+fileName(key)), nil
}

// mayMove looks whether nobody uses the data, and the cluster knows no member of
// its identity.
func (in *instance) mayMove(ctx context.Context, op string) (localState, error) {
	s, err := in.look(ctx)
	if err != nil {
		return s, fettle.Refuse(op, in.member, "the service manager must answer", "%w", err)
	}
	refuse := func(hint, format string, args ...any) (localState, error) {
		return s, fettle.Refuse(op, in.member, hint, format, args...)
	}
	switch {
	case in.config.WALDir != "":
		return refuse("move both by hand", "its write-ahead log is in %s, outside of the data directory; that is not supported", in.config.WALDir)
	case s.unit.MainPID != 0 || serves(s.unit) || s.unit.ActiveState == "activating":
		return refuse("stop it first", "%s is %s: its data is in use", in.config.Unit, s.unit.ActiveState)
	case !s.data.Present:
		return refuse("skip the step", "there is no %s", in.memberDir())
	case s.standing == "":
		return refuse("it is tried again when a member answers", "no member can say whether the data belongs to one of theirs")
	case s.standing == standsVoter || s.standing == standsLearner:
		return refuse("remove the member first", "the cluster lists it as a %s under the identity that the data may belong to", s.standing)
	}
	return s, nil
}

// Preview implements fettle.Action.
func (a setAside) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	in, err := a.here(opAside, step.Target)
	if err != nil {
		return fettle.Preview{}, err
	}
	s, err := in.mayMove(ctx, opAside)
	if err != nil {
		return fettle.Preview{}, err
	}
	dir, err := in.asideFor(ctx, "KEY")
	if err != nil {
		return fettle.Preview{}, broken(opAside, in.member, err, "")
	}
	return would("rename %s (%d bytes) to %s, with a manifest; it frees no space", in.memberDir(), s.data.Bytes, path.Join(dir, "member")), nil
}

// Apply implements fettle.Action.
func (a setAside) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	in, err := a.here(opAside, d.Step.Target)
	if err != nil {
		return fettle.Result{}, err
	}
	s, err := in.mayMove(ctx, opAside)
	if err != nil {
		return fettle.Result{}, err
	}
	return in.moveAway(ctx, opAside, d, s.data)
}

// moveAway renames the data, manifest first.
func (in *instance) moveAway(ctx context.Context, op string, d fettle.Dispatch, data DataState) (fettle.Result, error) {
	refuse := func(err error) (fettle.Result, error) {
		return fettle.Result{}, fettle.Refuse(op, in.member, "aside_dir in the adapter's configuration must be writable and on the data's own filesystem", "%w", err)
	}
	dir, err := in.asideFor(ctx, d.Key)
	if err != nil {
		return refuse(err)
	}
	m := manifest{
		What: in.memberDir(), Where: path.Join(dir, "member"), Bytes: data.Bytes, At: in.m.Clock.Wall(), Member: string(in.member),
		Incident: d.Incident, Key: d.Key, Back: fmt.Sprintf("mv -T '%s' '%s'", path.Join(dir, "member"), in.memberDir()),
	}
	if data.Member != 0 {
		m.Identity, m.Cluster = hex(data.Member), hex(data.Cluster)
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return refuse(err)
	}
	if err := in.m.Files.MkdirAll(ctx, dir, 0o700); err != nil {
		return refuse(err)
	}
	if err := in.m.Files.WriteFile(ctx, path.Join(dir, "manifest.json"), append(text, '\n'), 0o600); err != nil {
		return refuse(err)
	}
	if err := in.m.Files.Rename(ctx, m.What, m.Where); err != nil {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return fettle.Result{}, classOr(op, in.member, err)
		}
		return refuse(err)
	}
	return asideResult(m), nil
}

func asideResult(m manifest) fettle.Result {
	return fettle.Result{
		Outputs:  fettle.Facts{"path": m.Where, "bytes": m.Bytes},
		Receipts: []fettle.Receipt{{What: m.What, Where: m.Where, Bytes: m.Bytes, Back: m.Back}},
		Notes:    []string{"its data is in " + m.Where},
	}
}

// Recover implements fettle.Action. A rename is done or not, and the folder is
// this key's own.
func (a setAside) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	in, err := a.here(opAside, d.Step.Target)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, err
	}
	m, moved, err := in.movedAway(ctx, d.Key)
	if d.Undo {
		where, _ := d.Outputs.Str("path")
		_, err = in.m.Files.Stat(ctx, where)
		moved = errors.Is(err, fs.ErrNotExist)
		if moved {
			return fettle.Done, noted("%s is back", in.memberDir()), nil
		}
	}
	switch {
	case err != nil:
		return fettle.UnknownFate, fettle.Result{}, classOr(opAside, in.member, err)
	case moved:
		return fettle.Done, asideResult(m), nil
	}
	return fettle.NeverWillBe, fettle.Result{}, nil
}

// movedAway reports whether the data of a key is aside.
func (in *instance) movedAway(ctx context.Context, key string) (manifest, bool, error) {
	dir, err := in.asideFor(ctx, key)
	if err != nil {
		return manifest{}, false, err
	}
	switch _, err := in.m.Files.Stat(ctx, path.Join(dir, "member")); {
	case errors.Is(err, fs.ErrNotExist):
		return manifest{}, false, nil
	case err != nil:
		return manifest{}, false, err
	}
	text, err := in.m.Files.ReadFile(ctx, path.Join(dir, "manifest.json"), 1<<20)
	if err != nil {
		return manifest{}, false, err
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return manifest{}, false, fmt.Errorf("%s: %w", path.Join(dir, "manifest.json"), err)
	}
	return m, true, nil
}

// Undo implements fettle.Action.
func (a setAside) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	op := "undo " + opAside
	in, err := a.here(op, d.Step.Target)
	if err != nil {
		return fettle.Result{}, err
	}
	where, _ := d.Outputs.Str("path")
	if where == "" || path.Base(where) != "member" {
		return fettle.Result{}, fettle.Refuse(op, in.member, "the receipt says where it is", "the step's output path is %q", where)
	}
	s, err := in.look(ctx)
	if err != nil || s.unit.MainPID != 0 {
		return fettle.Result{}, fettle.Refuse(op, in.member, "stop it first", "%s runs, or its manager does not answer", in.config.Unit)
	}
	if s.data.Present {
		return fettle.Result{}, fettle.Refuse(op, in.member, "look which of the two is wanted", "there is data in %s again", in.memberDir())
	}
	if err := in.m.Files.Rename(ctx, where, in.memberDir()); err != nil {
		return fettle.Result{}, classOr(op, in.member, err)
	}
	return noted("%s is back", in.memberDir()), nil
}
