package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
	"fettle/internal/loop"
)

// storyWait is how long a server may take to take a part of a story.
const storyWait = time.Minute

// errNever says that a server will not take this host's own log.
var errNever = errors.New("the server does not take this host's own log")

// tellStory tells the server that there is what this host's own log has, and reports
// whether all of it is in the fleet's log: then it may go. A log that contradicts what
// was told before is put aside, as evidence.
func (a *Agent) tellStory(ctx context.Context, st *store.File) (bool, error) {
	x, _, _ := a.contact.now()
	if x == nil || !x.stories || st.Entries() == 0 {
		return false, nil
	}
	parts, err := a.storyParts(ctx, st)
	if err != nil {
		return false, err
	}
	for i, part := range parts {
		part.Id = uint64(i) + 1
		switch err := x.tellPart(ctx, part); {
		case errors.Is(err, errNever):
			aside := fmt.Sprintf("%s.refused-%s", aloneName, part.GetChain())
			return false, errors.Join(err, os.Rename(filepath.Join(a.o.StateDir, aloneName), filepath.Join(a.o.StateDir, aside)))
		case err != nil && x.ctx.Err() != nil:
			return false, nil // the next session begins anew
		case err != nil:
			return false, err
		}
	}
	a.o.Log.Info("what this host did without a server is in the fleet's log", "entries", st.Entries())
	return true, nil
}

// storyParts cuts this host's own log into messages: the entries in order, then the
// incidents.
func (a *Agent) storyParts(ctx context.Context, st *store.File) ([]*wire.Story, error) {
	var parts []*wire.Story
	serial := ""
	if p, _ := a.permit(ctx); p.Serial != "" { // also one that has ended
		serial = p.Serial
	}
	part := func(after loop.Head) *wire.Story {
		p := &wire.Story{Chain: st.ID(), After: after.Entries, AfterHash: after.Hash, Permit: serial}
		parts = append(parts, p)
		return p
	}
	var last loop.Head
	var p *wire.Story
	size := 0
	err := st.Sealed(ctx, 1, func(e loop.Entry, kept []byte) error {
		if p == nil || size >= wire.Chunk {
			p, size = part(last), 0
		}
		p.Entries = append(p.Entries, append([]byte(nil), kept...))
		size += len(kept)
		last = loop.Head{Entries: e.Seq, Hash: e.Hash}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read this host's own log: %w", err)
	}
	state, err := st.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("read this host's own log: %w", err)
	}
	for _, r := range state.Records {
		if data, err := wire.Pack(r); err != nil {
			a.o.Log.Error("an incident cannot be told; its events are", "incident", r.ID, "error", err)
		} else {
			part(last).Records = [][]byte{data}
		}
	}
	return parts, nil
}

// tellPart sends a part and waits until it was taken.
func (x *session) tellPart(ctx context.Context, part *wire.Story) error {
	x.push(func(time.Time) *wire.SessionRequest {
		return &wire.SessionRequest{What: &wire.SessionRequest_Story{Story: part}}
	})
	late, stop := x.a.o.Machine.Clock.After(storyWait)
	defer stop()
	for {
		select {
		case got := <-x.taken:
			switch {
			case got.GetId() != part.GetId():
			case got.GetNever():
				return fmt.Errorf("%w: %s", errNever, got.GetRefused())
			case got.GetRefused() != "":
				return fmt.Errorf("the server does not take what this host did alone; it is told again: %s", got.GetRefused())
			default:
				return nil
			}
		case <-late:
			return errors.New("the server does not say whether it took what this host did alone; it is told again")
		case <-x.ctx.Done():
			return context.Cause(x.ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// takenStory notes the answer to a part.
func (x *session) takenStory(w *wire.StoryTaken) {
	select {
	case x.taken <- w:
	default: // nobody asked
	}
}

// removeFile removes a file durably.
func removeFile(path string) error {
	err := os.Remove(path)
	if err == nil {
		err = executor.SyncDir(filepath.Dir(path))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
