package etcd

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"

	"fettle/internal/machine"
)

// Settings are a member's own settings by the name of etcd's flag, whether they
// came from its environment ("ETCD_DATA_DIR"), its configuration file or its
// command line: "data-dir", "initial-cluster"…
type Settings map[string]string

// The settings that configure writes.
const (
	setInitialCluster = "initial-cluster"
	setInitialState   = "initial-cluster-state"
)

// SettingsFromEnvironment reads the text of a systemd environment file.
func SettingsFromEnvironment(data []byte) (Settings, error) {
	all, err := machine.ParseEnvironment(data)
	if err != nil {
		return nil, err
	}
	s := Settings{}
	for _, a := range all {
		s.env(a.Key, a.Value)
	}
	return s, nil
}

// env takes in one variable, if it is etcd's.
func (s Settings) env(key, value string) {
	if name, ok := strings.CutPrefix(key, "ETCD_"); ok {
		s[strings.ToLower(strings.ReplaceAll(name, "_", "-"))] = value
	}
}

// SettingsFromYAML reads the text of an etcd configuration file (etcd
// --config-file). The sections on certificates get the names of the flags.
func SettingsFromYAML(data []byte) (Settings, error) {
	var raw map[string]any
	if err := yaml.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("etcd configuration file: %w", err)
	}
	s := Settings{}
	for _, name := range sortedKeys(raw) {
		switch v := raw[name].(type) {
		case map[string]any:
			prefix, ok := map[string]string{"client-transport-security": "", "peer-transport-security": "peer-"}[name]
			if !ok {
				continue
			}
			for _, key := range sortedKeys(v) {
				s[prefix+key] = scalar(v[key])
			}
		case []any, nil:
		default:
			s[name] = scalar(v)
		}
	}
	return s, nil
}

func scalar(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case nil:
		return ""
	default:
		return fmt.Sprint(v)
	}
}

// initialCluster reads name=url,name=url: a name may come several times, with
// one URL each.
func (s Settings) initialCluster() map[string][]string {
	out := map[string][]string{}
	for _, pair := range strings.Split(s[setInitialCluster], ",") {
		name, u, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if ok && name != "" && checkURL(u) == nil {
			out[name] = append(out[name], u)
		}
	}
	return out
}

// EditEnvironment returns the environment file with these settings changed.
// Comments and all other lines stay as they are.
func EditEnvironment(data []byte, change Settings) ([]byte, error) {
	var err error
	for _, name := range sortedKeys(change) {
		key := "ETCD_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if data, err = machine.SetEnvironment(data, key, change[name]); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// topLevel is a key of the file's own mapping with its value on the same line.
var topLevel = regexp.MustCompile(`^(?:"([a-z-]+)"|'([a-z-]+)'|([a-z-]+))[ \t]*:(?:[ \t]+(.*?))?[ \t\r]*$`)

// EditYAML returns an etcd configuration file with these settings, all of its
// top level, changed. Every other line, comments too, stays as it is. A value
// that is written over several lines is refused: what belongs to it cannot be
// told line by line.
func EditYAML(data []byte, change Settings) ([]byte, error) {
	before, err := SettingsFromYAML(data)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if len(data) == 0 {
		lines = nil
	}
	left := maps.Clone(change)
	for i, line := range lines {
		m := topLevel.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		name := m[1] + m[2] + m[3]
		if v, ok := left[name]; ok {
			lines[i] = name + ": " + strconv.Quote(v)
			delete(left, name)
		}
	}
	for _, name := range sortedKeys(left) {
		lines = append(lines, name+": "+strconv.Quote(left[name]))
	}
	out := []byte(strings.Join(lines, "\n") + "\n")
	want := maps.Clone(before)
	maps.Copy(want, change)
	after, err := SettingsFromYAML(out)
	if err != nil || !maps.Equal(want, after) {
		return nil, fmt.Errorf("etcd configuration file: %s cannot be changed line by line (write each on one line of its own)", strings.Join(sortedKeys(change), ", "))
	}
	return out, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
