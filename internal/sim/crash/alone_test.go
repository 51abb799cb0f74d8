package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"fettle/internal/act/journal"
	"fettle/internal/fettle"
	"fettle/internal/fleet/permit"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/store"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// aloneScenario is a service that failed on a host that reaches no server.
func aloneScenario(t *testing.T) *scenario {
	t.Helper()
	for _, s := range scenarios(t) {
		if s.runbook == "systemd.unit_failed" && s.rung == "start" && len(s.acting) == 1 && len(s.watch) == 0 {
			return s
		}
	}
	t.Fatal("no case of systemd.unit_failed expects that it is started on the one host that there is")
	return nil
}

// permitted gives a host a standing permit, as a server would have.
func permitted(dir string, host fettle.Subject) error {
	ca, err := pki.Open(caDir(dir))
	if err != nil {
		return err
	}
	by, err := ca.Mint(pki.RoleServer, "s", time.Now(), time.Hour)
	if err != nil {
		return err
	}
	signed, err := permit.Sign(permit.Make(fettle.Policy{}, ca.Fleet(), 1, host, host.Name(), time.Now()), by)
	if err != nil {
		return err
	}
	text, err := permit.Kept{Taken: time.Now(), Signed: signed}.Text()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(hostDir(dir, host), "permit"), text, 0o600)
}

// playAlone runs the agent without a server until its own log has the end of the
// incident, then with one until that has the story. All processes are dead when it
// returns.
func (s *scenario) playAlone(ctx context.Context, dir string, d death) (err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r := &run{s: s, dir: dir, alone: true, death: d, clock: newFastClock(), children: map[string]*child{}, events: make(chan event),
		incidents: map[string]standing{}, approved: map[string]bool{}}
	if err := s.copyTo(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "pids"), 0o700); err != nil {
		return err
	}
	if err := permitted(dir, s.acting[0]); err != nil {
		return err
	}
	if err := r.listen(); err != nil {
		return err
	}
	defer r.socket.Close()
	defer r.end()
	if err := r.start(agentName(0), d); err != nil {
		return err
	}
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for led := false; ; {
		select {
		case e := <-r.events:
			if e.ended {
				if err := r.died(e); err != nil {
					return err
				}
			}
		case <-look.C:
			entries, resolved, err := s.own(ctx, dir)
			switch {
			case err != nil:
				return err
			case !led && resolved:
				led = true
				if err := r.start(serverName, d); err != nil {
					return err
				}
			case led && entries == 0:
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("not at its end after %v", patience)
		}
	}
}

// own reads an agent's own log while it may write it.
func (s *scenario) own(ctx context.Context, dir string) (entries int, resolved bool, err error) {
	path := filepath.Join(hostDir(dir, s.acting[0]), "alone")
	j, err := journal.Open(ctx, path, journal.Options{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) || err != nil && resolvedLater(path) {
		return 1, false, nil // between two chains, or one that is being made
	}
	if err != nil {
		return 0, false, err
	}
	defer j.Close()
	err = j.Read(ctx, 0, func(r journal.Record) error {
		if r.Kind != "store.entry" {
			return nil
		}
		entries++
		var kept struct{ Entry loop.Entry }
		if err := r.Decode(&kept); err != nil {
			return err
		}
		resolved = resolved || kept.Entry.Kind == string(fettle.EvResolved)
		return nil
	})
	return entries, resolved, err
}

// resolvedLater says of a file that cannot be read that it is not finished yet.
func resolvedLater(path string) bool {
	info, err := os.Stat(path)
	return err != nil || info.Size() < journal.MinReserve
}

// checkAlone looks at what a run left: one effect, one story in one log, and nothing
// left to tell.
func (s *scenario) checkAlone(ctx context.Context, dir string) error {
	o, err := s.inspect(ctx, dir, state{})
	if err != nil {
		return err
	}
	if len(o.history.effects) != 1 {
		return fmt.Errorf("%d effects\n%s", len(o.history.effects), o)
	}
	mended := slices.DeleteFunc(slices.Clone(o.records), func(r incident.Record) bool { return r.Alone == nil || r.State != fettle.Resolved })
	if len(mended) != 1 {
		return fmt.Errorf("%d incidents were mended alone\n%s", len(mended), o)
	}
	ca, err := pki.Open(caDir(dir))
	if err != nil {
		return err
	}
	disk, err := openStore(ctx, s.store, dir, ca.Fleet())
	if err != nil {
		return err
	}
	defer disk.Close()
	var kept [][]byte
	err = disk.Log(ctx, 0, func(e loop.Entry) error {
		if e.Kind != "alone" {
			return nil
		}
		var data struct{ Entry json.RawMessage }
		if err := json.Unmarshal(e.Data, &data); err != nil {
			return err
		}
		kept = append(kept, data.Entry)
		return nil
	})
	if err != nil {
		return err
	}
	// From its first entry on, each once: else they would not follow from each other.
	if entries, err := store.Follow(loop.Head{}, kept); err != nil || len(entries) < 5 {
		return fmt.Errorf("the agent's chain in the log: %d entries, %w", len(entries), err)
	}
	return nil
}

// aloneDeaths are those of the agent at each of its moments, and of the server while it
// takes the story.
func aloneDeaths(t *testing.T, dir string) []death {
	t.Helper()
	moments, err := met(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []death
	for _, m := range moments {
		if d := (death{Who: m.who, At: m.names[len(m.names)-1]}); !slices.Contains(list, d) {
			list = append(list, d)
		}
	}
	return list
}

// TestKilledAlone: an agent that mends its host without a server is killed at every
// record that it makes durable, before and after the effect, and while it tells the
// story; a server while it takes it. Nothing is lost, nothing is done twice, and the
// story stands once in the log.
func TestKilledAlone(t *testing.T) {
	s := aloneScenario(t)
	dir := filepath.Join(t.TempDir(), "calm")
	check := func(dir string, d death) error {
		err := s.playAlone(t.Context(), dir, d)
		if err == nil {
			err = s.checkAlone(t.Context(), dir)
		}
		if err != nil {
			return fmt.Errorf("%w\n%s", err, logs(dir))
		}
		return nil
	}
	if err := check(dir, death{}); err != nil {
		t.Fatal(err)
	}
	list := aloneDeaths(t, dir)
	runs := 0
	for i, d := range list {
		dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if err := check(dir, d); err != nil {
			t.Errorf("%s: %v", d, err)
		}
		if at, err := died(dir); err != nil {
			t.Error(err)
		} else if at != "" {
			runs++
		}
	}
	t.Logf("%d moments, killed at %d of them", len(list), runs)
	if runs < 10 {
		t.Errorf("killed at %d moments only", runs)
	}
}
