package lab

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// aptSources returns, in the one-line form of sources.list(5), the entries of this machine's apt configuration under
// dir (normally /etc/apt) that serve suite: the suite itself, its updates and its security fixes, component main.
// Entries of other archives and of other releases are left out. It returns nil where there is no entry for suite.
func aptSources(dir, suite string) []string {
	var all []aptSource
	if data, err := os.ReadFile(filepath.Join(dir, "sources.list")); err == nil {
		all = append(all, parseSourcesList(string(data))...)
	}
	// Glob's only error is a bad pattern; it sorts its answer.
	lists, _ := filepath.Glob(filepath.Join(dir, "sources.list.d", "*.list"))
	for _, file := range lists {
		if data, err := os.ReadFile(file); err == nil {
			all = append(all, parseSourcesList(string(data))...)
		}
	}
	stanzas, _ := filepath.Glob(filepath.Join(dir, "sources.list.d", "*.sources"))
	for _, file := range stanzas {
		if data, err := os.ReadFile(file); err == nil {
			all = append(all, parseDeb822(string(data))...)
		}
	}
	return selectSources(all, suite)
}

// aptSource is one archive, suite and list of components.
type aptSource struct {
	uri, suite, signedBy string
	components           []string
}

func (s aptSource) line() string {
	var b strings.Builder
	b.WriteString("deb ")
	if s.signedBy != "" {
		b.WriteString("[signed-by=" + s.signedBy + "] ")
	}
	b.WriteString(s.uri + " " + s.suite + " " + strings.Join(s.components, " "))
	return b.String()
}

func selectSources(all []aptSource, suite string) []string {
	wanted := []string{suite, suite + "-updates", suite + "-security"}
	var lines []string
	base := false
	for _, s := range all {
		if !slices.Contains(wanted, s.suite) || !slices.Contains(s.components, "main") {
			continue
		}
		base = base || s.suite == suite
		s.components = []string{"main"}
		if line := s.line(); !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if !base {
		return nil // updates without the suite itself cannot be installed from
	}
	return lines
}

// parseSourcesList reads the one-line form: "deb [option=value …] uri suite component…".
func parseSourcesList(text string) []aptSource {
	var out []aptSource
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		var s aptSource
		rest = strings.TrimSpace(rest)
		if options, after, ok := strings.Cut(strings.TrimPrefix(rest, "["), "]"); ok && strings.HasPrefix(rest, "[") {
			rest = after
			for _, o := range strings.Fields(options) {
				if key, ok := strings.CutPrefix(o, "signed-by="); ok && strings.HasPrefix(key, "/") {
					s.signedBy = key
				}
			}
		}
		f := strings.Fields(rest)
		if len(f) < 3 || !strings.Contains(f[0], ":") {
			continue
		}
		s.uri, s.suite, s.components = f[0], f[1], f[2:]
		out = append(out, s)
	}
	return out
}

// parseDeb822 reads the stanzas of a .sources file (sources.list(5), "DEB822-STYLE FORMAT").
func parseDeb822(text string) []aptSource {
	var out []aptSource
	for stanza := range strings.SplitSeq(text, "\n\n") {
		field := map[string]string{}
		last := ""
		for line := range strings.Lines(stanza) {
			switch {
			case strings.HasPrefix(line, "#"):
			case line != "" && (line[0] == ' ' || line[0] == '\t'):
				if last != "" {
					field[last] += " " + strings.TrimSpace(line)
				}
			default:
				if key, value, ok := strings.Cut(line, ":"); ok {
					last = strings.ToLower(strings.TrimSpace(key))
					field[last] = strings.TrimSpace(value)
				}
			}
		}
		if !slices.Contains(strings.Fields(field["types"]), "deb") || strings.EqualFold(field["enabled"], "no") {
			continue
		}
		key := field["signed-by"]
		if !strings.HasPrefix(key, "/") || strings.ContainsAny(key, " ]") {
			key = "" // a key written out in the stanza; the installer finds the archive's own keyring
		}
		components := strings.Fields(field["components"])
		for _, uri := range strings.Fields(field["uris"]) {
			for _, suite := range strings.Fields(field["suites"]) {
				if strings.Contains(uri, ":") && len(components) > 0 {
					out = append(out, aptSource{uri: uri, suite: suite, signedBy: key, components: components})
				}
			}
		}
	}
	return out
}

// aptOptions picks, from the output of "apt-config dump", the settings that decide whether an archive can be read from
// this machine at all: proxies, certificates, and leniency about an archive's date. Each is "name "value"".
func aptOptions(dump string) []string {
	prefixes := []string{"Acquire::http::", "Acquire::https::", "Acquire::Check-Valid-Until ", "Acquire::Check-Date ", "Acquire::Retries "}
	var out []string
	for line := range strings.Lines(dump) {
		line = strings.TrimSuffix(strings.TrimSpace(line), ";")
		for _, p := range prefixes {
			if strings.HasPrefix(line, p) && !strings.HasSuffix(line, ` ""`) {
				out = append(out, line)
			}
		}
	}
	return out
}
