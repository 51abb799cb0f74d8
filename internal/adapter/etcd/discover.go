package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"fettle/internal/machine"
)

// Discover implements machine.Adapter: services whose unit or process is etcd.
// What it proposes says everything explicitly, also where it is the default, so
// that a person sees what it would do.
func (a *Adapter) Discover(ctx context.Context, m machine.Machine) ([]machine.Found, error) {
	units, err := m.Services.Units(ctx)
	if err != nil {
		return nil, err
	}
	processes, err := m.Processes.List(ctx)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	var found []machine.Found
	for _, u := range units {
		if u.LoadState != "loaded" {
			continue
		}
		if f, ok := discover(ctx, m, u, processes); ok {
			found = append(found, f)
		}
	}
	return found, nil
}

// discover looks at one unit.
func discover(ctx context.Context, m machine.Machine, u machine.Unit, processes []machine.Process) (machine.Found, bool) {
	file := unitFile{}
	if u.FragmentPath != "" {
		if text, err := m.Files.ReadFile(ctx, u.FragmentPath, maxSettings); err == nil {
			file = parseUnitFile(string(text), u.Name, m.Identity.Hostname)
		}
	}
	args := file.exec
	for _, p := range processes {
		if p.UnitName == u.Name && path.Base(p.Command) == "etcd" {
			args = p.Args
		}
	}
	if len(args) == 0 || path.Base(args[0]) != "etcd" {
		return machine.Found{}, false
	}
	c := Config{Unit: u.Name}
	settings := file.settings()
	why := []string{"unit " + u.Name}
	for _, f := range file.envFiles {
		data, err := m.Files.ReadFile(ctx, f, maxSettings)
		if err != nil {
			continue // a file that may be missing, or that may not be read
		}
		if s, err := SettingsFromEnvironment(data); err == nil && len(s) > 0 {
			c.EnvFile = f
			why = append(why, "settings in "+f)
			for k, v := range s {
				settings[k] = v // any order: each under its own name
			}
		}
	}
	for name, v := range flagsOf(args) {
		settings[name] = v // any order: each under its own name
	}
	if f := settings["config-file"]; path.IsAbs(f) {
		// With a configuration file etcd takes no notice of anything else.
		if data, err := m.Files.ReadFile(ctx, f, maxSettings); err == nil {
			if s, err := SettingsFromYAML(data); err == nil {
				c.EnvFile, c.ConfigFile, settings = "", f, s
				why = append(why, "settings in "+f)
			}
		}
	}
	c.TLS = tlsOf(settings)
	full, err := c.complete(settings)
	if err != nil {
		why = append(why, "not complete: "+err.Error())
	}
	return machine.Found{Name: strings.TrimSuffix(u.Name, ".service"), Config: propose(full, why), Why: strings.Join(why, "; ")}, true
}

// tlsOf proposes the member's own certificates: they are there, and where a
// member asks its clients for one, its own is usually good for that too.
func tlsOf(s Settings) TLS {
	if !strings.HasPrefix(firstURL(s["listen-client-urls"], ""), "https://") && !strings.HasPrefix(firstURL(s["advertise-client-urls"], ""), "https://") {
		return TLS{}
	}
	t := TLS{CA: s["trusted-ca-file"]}
	if t.CA == "" {
		t.CA = s["peer-trusted-ca-file"]
	}
	if s["client-cert-auth"] == "true" && s["cert-file"] != "" && s["key-file"] != "" {
		t.Cert, t.Key = s["cert-file"], s["key-file"]
	}
	return t
}

// propose writes a configuration as a person would.
func propose(c Config, why []string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# Found: %s.\n", strings.ReplaceAll(strings.Join(why, "; "), "\n", " "))
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", key, strconv.Quote(value))
		}
	}
	line("system", c.System)
	line("name", c.Name)
	line("unit", c.Unit)
	line("data_dir", c.DataDir)
	line("wal_dir", c.WALDir)
	line("env_file", c.EnvFile)
	line("config_file", c.ConfigFile)
	line("client_endpoint", c.ClientEndpoint)
	line("peer_url", c.PeerURL)
	if c.TLS != (TLS{}) {
		b.WriteString("tls:\n")
		line("  ca", c.TLS.CA)
		line("  cert", c.TLS.Cert)
		line("  key", c.TLS.Key)
	}
	line("snapshot_dir", c.SnapshotDir)
	return []byte(b.String())
}

// unitFile is what is read of a service's unit file.
type unitFile struct {
	environment []string
	envFiles    []string
	exec        []string
}

func (u unitFile) settings() Settings {
	s := Settings{}
	for _, e := range u.environment {
		if k, v, ok := strings.Cut(e, "="); ok {
			s.env(k, v)
		}
	}
	return s
}

// parseUnitFile reads the few lines of a unit file that say how etcd is started.
// Specifiers that such files use (%H, %p, %n, %N, %%) are replaced; continued
// lines are joined; quotes around a whole word are taken off. Drop-ins are not
// read.
func parseUnitFile(text, unit, hostname string) unitFile {
	var u unitFile
	prefix := strings.TrimSuffix(unit, path.Ext(unit))
	prefix, _, _ = strings.Cut(prefix, "@")
	specifiers := strings.NewReplacer("%%", "%", "%H", hostname, "%p", prefix, "%n", unit, "%N", strings.TrimSuffix(unit, path.Ext(unit)))
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(key, "#") || strings.HasPrefix(key, ";") {
			continue
		}
		value = specifiers.Replace(strings.TrimSpace(value))
		switch strings.TrimSpace(key) {
		case "Environment":
			u.environment = append(u.environment, words(value)...)
		case "EnvironmentFile":
			if f := strings.TrimPrefix(value, "-"); path.IsAbs(f) {
				u.envFiles = append(u.envFiles, f)
			}
		case "ExecStart":
			u.exec = words(strings.TrimLeft(value, "-@:+!"))
		}
	}
	return u
}

// words splits at blanks and takes off quotes around a word, or around what comes
// after its '='.
func words(text string) []string {
	var out []string
	for _, w := range strings.Fields(text) {
		out = append(out, strings.Trim(w, `"'`))
	}
	return out
}

// flagsOf reads --name=value and --name value from a command line.
func flagsOf(args []string) Settings {
	s := Settings{}
	for i := 1; i < len(args); i++ {
		name, ok := strings.CutPrefix(args[i], "-")
		if !ok {
			continue
		}
		name = strings.TrimPrefix(name, "-")
		if name, value, ok := strings.Cut(name, "="); ok {
			s[name] = value
			continue
		}
		if i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") && !slices.Contains(switches, name) {
			i++
			s[name] = args[i]
		} else {
			s[name] = "true"
		}
	}
	return s
}

// switches are flags that stand alone.
var switches = []string{"auto-tls", "peer-auto-tls", "client-cert-auth", "peer-client-cert-auth", "force-new-cluster", "pre-vote", "strict-reconfig-check", "enable-pprof"}
