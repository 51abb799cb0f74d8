package cli

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"fettle/internal/face/control"
	"fettle/internal/face/show"
	"fettle/internal/fleet/charter"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
	"fettle/internal/loop"
)

// What is in a backup, a tar.
const (
	backupStore = "store.jsonl" // package store's
	backupCA    = "ca.pem"      // the fleet's authority, with its private key
)

// keptIn is what a backup holds, for people and programs.
type keptIn struct {
	File    string    `json:"file"`
	Fleet   string    `json:"fleet"`
	Epoch   uint64    `json:"epoch"`
	At      time.Time `json:"at"`
	Entries int64     `json:"log_entries"`
}

func (a *app) backupCommand() *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use: "backup FILE", Short: "Back up the fleet's store and authority into one file",
		Long: `Writes a tar of all that the store keeps (incidents, intents, freeze, hosts,
the whole log of decisions), as it is at one moment, and of the fleet's
authority. It runs on a server, while that works. The file is read back and
checked, the chain of the log included, before the command says that there is a
backup.

The file holds the authority's private key: whoever has it can be anybody in the
fleet. Keep it where you keep such keys.`,
		Example: "  sudo fettle backup /srv/backup/fettle-$(date +%F).tar", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ca, err := pki.Open(control.AuthorityDir(r.dir))
			if err != nil {
				return exit(ExitNoContact, "%w (run it on a server, as the user of `fettle up` or `fettle server`, or name its folder with --dir)", err)
			}
			return r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
				in, err := a.backup(ctx, api, ca, args[0])
				if err != nil {
					return err
				}
				return a.print(in, func(p *show.Printer) {
					p.Line("%s: fleet %s, %d entries of the log, read back and whole", in.File, in.Fleet, in.Entries)
				})
			})
		},
	}
	r.flags(c)
	return c
}

// backup writes the file beside its place, checks it, and puts it there.
func (a *app) backup(ctx context.Context, api wire.AdminServiceClient, ca *pki.CA, path string) (in keptIn, err error) {
	data, err := os.CreateTemp(filepath.Dir(path), ".fettle-store-*") // made with mode 0600
	if err != nil {
		return in, fmt.Errorf("back up: %w", err)
	}
	defer func() { err = errors.Join(err, data.Close(), os.Remove(data.Name())) }()
	stream, err := api.Backup(ctx, &wire.BackupRequest{})
	if err != nil {
		return in, err
	}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return in, err
		}
		if _, err := data.Write(part.GetData()); err != nil {
			return in, fmt.Errorf("back up: %w", err)
		}
	}
	key, err := ca.Export()
	if err != nil {
		return in, err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".fettle-backup-*")
	if err != nil {
		return in, fmt.Errorf("back up: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	more, err := ca.Files()
	if err != nil {
		return in, errors.Join(err, file.Close())
	}
	err = errors.Join(packed(file, data, key, more), file.Sync(), file.Close())
	if err != nil {
		return in, fmt.Errorf("back up: %w", err)
	}
	read, err := openBackup(file.Name())
	if err != nil {
		return in, fmt.Errorf("read the backup back: %w", err)
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return in, fmt.Errorf("back up: %w", err)
	}
	read.in.File = path
	return read.in, nil
}

// packed writes the tar.
func packed(to io.Writer, data *os.File, key []byte, more map[string][]byte) error {
	size, err := data.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = data.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	w := tar.NewWriter(to)
	more[backupCA] = key
	for _, name := range slices.Sorted(maps.Keys(more)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(more[name]))}); err != nil {
			return err
		}
		if _, err := w.Write(more[name]); err != nil {
			return err
		}
	}
	if err := w.WriteHeader(&tar.Header{Name: backupStore, Mode: 0o600, Size: size}); err != nil {
		return err
	}
	if _, err := io.Copy(w, data); err != nil {
		return err
	}
	return w.Close()
}

// backupFile is a backup that was read and found whole.
type backupFile struct {
	in   keptIn
	head loop.Head
	key  []byte
	more map[string][]byte // what pki.CA.Files returned
}

// openBackup reads a backup to its end.
func openBackup(path string) (b backupFile, err error) {
	b.more = map[string][]byte{}
	err = inBackup(path, func(name string, r io.Reader) error {
		switch name {
		case backupCA:
			b.key, err = io.ReadAll(io.LimitReader(r, 64<<10))
			return err
		case backupStore:
			m, err := store.ReadBackup(r, nil)
			b.in = keptIn{File: path, Fleet: m.Fleet, Epoch: m.Epoch, At: m.At, Entries: m.Head.Entries}
			b.head = m.Head
			return err
		}
		if pki.IsFile(name) {
			data, err := io.ReadAll(io.LimitReader(r, 1<<20))
			b.more[name] = data
			return err
		}
		return nil // of a newer version
	})
	if err == nil && (b.key == nil || b.in.Fleet == "") {
		err = errors.New("it does not hold store and authority: it is no backup of Fettle's, or not all of one")
	}
	return b, err
}

// inBackup calls f for everything in the tar.
func inBackup(path string, f func(name string, r io.Reader) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for r := tar.NewReader(file); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = f(h.Name, r)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
}

func (a *app) restoreCommand() *cobra.Command {
	var dir, why string
	var outside storeFlags
	c := &cobra.Command{
		Use: "restore FILE", Short: "Begin the fleet's store anew from a backup, as a new epoch",
		Long: `Makes a store out of a backup, in a folder that holds none, when all servers'
stores are lost. What was decided since the backup is forgotten, so a new epoch
begins: it is signed here, with the fleet's authority, as an administrator's
word, and the agents, which would not obey an old copy, obey it. Where one
server's store is left, do not restore: join further servers to that one.

Agents obey the new epoch only if they believe the authority under which it is
signed. Where that was changed since the backup ("fettle rotate authority"), the
folder must hold the new one: leave "ca" of a server's folder in place, or put
that of another server there, before you restore. With the backup's own, every
machine must join anew.

With --store the store is made in an existing etcd cluster instead, below a
prefix that must be empty: after a loss, or to move the fleet there.

Then start "fettle up" or "fettle server" on the folder, with the same --store;
further servers join anew.`,
		Example: "  sudo fettle restore /srv/backup/fettle-2026-11-22.tar\n  sudo fettle restore fettle.tar --store https://db1:2379 --store-ca ca.pem", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			where, err := outside.where()
			if err != nil {
				return err
			}
			in, err := restore(cmd.Context(), args[0], dir, where, why, time.Now())
			if errors.Is(err, control.ErrRunning) {
				return &Exit{Code: ExitIll, Err: err}
			}
			if err != nil {
				return err
			}
			return a.print(in, func(p *show.Printer) {
				p.Line("fleet %s is restored to %s, epoch %d, with %d entries of the log", in.Fleet, in.At.Format(time.DateTime), in.Epoch, in.Entries)
				if where != nil {
					p.Line("now start `fettle server` with --dir %s and the same --store", dir)
					return
				}
				p.Line("now start `fettle up` or `fettle server` with --dir %s", dir)
			})
		},
	}
	c.Flags().StringVar(&dir, "dir", stateDir(), "folder of the server, which must hold no store")
	outside.flags(c)
	c.Flags().StringVar(&why, "why", "", "the reason, for the agents' logs (default: which backup it was)")
	return c
}

// restore makes the folder. What fails leaves no store in it.
func restore(ctx context.Context, path, dir string, where *store.Where, why string, now time.Time) (in keptIn, err error) {
	b, err := openBackup(path)
	if err != nil {
		return in, fmt.Errorf("restore: %w", err)
	}
	unlock, err := control.Hold(dir)
	if err != nil {
		return in, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	to := control.StoreDir(dir)
	// What an existing store has let go may be there: copies, each with its hash in its name.
	if _, err := os.Stat(to); where == nil && !errors.Is(err, fs.ErrNotExist) || store.Holds(to) {
		return in, exit(ExitUsage, "restore: there is a store in %s already (move it aside, or name another folder with --dir)", to)
	}
	ca, err := authorityOf(b, control.AuthorityDir(dir))
	if err != nil {
		return in, err
	}
	admin, err := ca.Mint(pki.RoleAdmin, control.Owner(), now, time.Hour)
	if err != nil {
		return in, err
	}
	if why == "" {
		why = "restored from the backup of " + b.in.At.Format(time.RFC3339)
	}
	signed, err := charter.Sign(charter.Charter{Fleet: b.in.Fleet, Epoch: b.in.Epoch + 1, Entries: b.head.Entries, Hash: b.head.Hash, At: now.Truncate(time.Second), Why: why}, admin)
	if err != nil {
		return in, err
	}
	word, err := json.Marshal(signed)
	if err != nil {
		return in, err
	}
	if where != nil {
		return restoreOutside(ctx, path, dir, *where, b, word)
	}
	half := to + ".restoring"
	if err := os.RemoveAll(half); err != nil { // of a restore that was broken off
		return in, fmt.Errorf("restore: %w", err)
	}
	err = inBackup(path, func(name string, r io.Reader) error {
		if name != backupStore {
			return nil
		}
		_, err := store.Restore(ctx, half, r, b.in.Epoch+1, word)
		return err
	})
	if err != nil {
		return in, errors.Join(err, os.RemoveAll(half))
	}
	if err := control.Fresh(dir); err != nil {
		return in, err
	}
	if err := os.Rename(half, to); err != nil {
		return in, fmt.Errorf("restore: %w", err)
	}
	b.in.Epoch++
	return b.in, nil
}

// restoreOutside makes the store in an existing etcd.
func restoreOutside(ctx context.Context, path, dir string, where store.Where, b backupFile, word []byte) (keptIn, error) {
	host, err := os.Hostname()
	if err != nil {
		return b.in, fmt.Errorf("this machine's host name: %w", err)
	}
	by := fmt.Sprintf("by %s on %s", control.Owner(), host)
	err = inBackup(path, func(name string, r io.Reader) error {
		if name != backupStore {
			return nil
		}
		_, err := store.RestoreExisting(ctx, where, control.StoreDir(dir), by, r, b.in.Epoch+1, word)
		return err
	})
	if err != nil {
		return b.in, err
	}
	b.in.Epoch++
	return b.in, control.FreshExisting(dir, where.Prefix)
}

// authorityOf puts the backup's authority into a folder, or takes that of the same fleet
// which is there: where it was changed since the backup, that one is the one that agents
// believe.
func authorityOf(b backupFile, dir string) (*pki.CA, error) {
	ca, err := pki.Open(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return pki.ImportAll(dir, b.key, b.more)
	case err != nil:
		return nil, err
	case ca.Fleet() != b.in.Fleet:
		return nil, exit(ExitUsage, "restore: %s holds the authority of fleet %s, the backup is of %s (name another folder with --dir)", dir, ca.Fleet(), b.in.Fleet)
	}
	return ca, nil
}

func (a *app) auditCommand() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "Look after the log of decisions", Example: "  fettle audit verify"}
	c.AddCommand(a.auditVerifyCommand())
	return c
}

func (a *app) auditVerifyCommand() *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use: "verify", Short: "Verify the chain of the log, from its first entry to its end",
		Long: `Has the server that leads verify that every entry of the log of decisions
follows from the one before, those that went to files among them. Exit status 0:
it is whole. 1: it is broken, or a file of it cannot be read, and where. That it
is the log that the agents have seen, the agents verify ("fettle status").`,
		Example: "  fettle audit verify", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
				ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // millions of entries
				defer cancel()
				got, err := api.Check(ctx, &wire.CheckRequest{})
				if err != nil {
					return err
				}
				out := struct {
					Entries int64  `json:"entries"` // that are whole
					Broken  string `json:"broken,omitempty"`
				}{got.GetEntries(), got.GetBroken()}
				err = a.print(out, func(p *show.Printer) {
					if out.Broken != "" {
						p.Text(p.Red("broken")+" ", out.Broken)
						return
					}
					p.Line("%d entries, each follows from the one before", out.Entries)
				})
				if err == nil && out.Broken != "" {
					err = &Exit{Code: ExitIll}
				}
				return err
			})
		},
	}
	r.flags(c)
	return c
}
