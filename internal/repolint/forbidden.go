package repolint

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// ban is a text that may stand nowhere in the tree.
type ban struct {
	pattern *regexp.Regexp
	why     string
	in      func(name string) bool // nil for every text file
}

// bans lists them. The patterns are written so that none of them matches
// itself; this file needs no exception.
func bans() []ban {
	return []ban{
		{regexp.MustCompile(`(^|[\s"'` + "`" + `=:(,\[<])/(work)(/|\b)`), "a path of one machine that nobody else has", nil},
		{regexp.MustCompile(`/tmp/(brief|facts|bash_jobs)\b`), "a path of one machine that nobody else has", nil},
		{regexp.MustCompile(`/(root|home/\w+)/(\.cache|go)/`), "a path of one person's machine; use the environment", nil},
		{regexp.MustCompile(`\b(proxy|sum|index)\.golang\.[a-z]+`), "a registry's host: the clients know theirs", nil},
		{regexp.MustCompile(`\bregistry\.(npmjs|terraform|hub)\.[a-z]+`), "a registry's host: the clients know theirs", nil},
		{regexp.MustCompile(`\b(deb|ftp|security|snapshot|archive)\.(debian|ubuntu)\.[a-z]+`), "a registry's host: take the mirror that the machine is set up with", nil},
		{regexp.MustCompile(`\b(ghcr|gcr|quay|docker)\.i[o]\b`), "a registry's host", nil},
		{regexp.MustCompile(`\b403\b`), "what some registry once answered; in code, write http.StatusForbidden", notData},
		{regexp.MustCompile(`\b(TO[D]O|FI[X]ME)\b`), "work that is left out is a clear error and an issue, not a note in passing", isGo},
	}
}

// isGo and notData say where a ban holds.
func isGo(name string) bool    { return strings.HasSuffix(name, ".go") }
func notData(name string) bool { return !strings.Contains("/"+name, "/testdata/") }

// Forbidden finds banned text in every file but checksum lists, whose digests
// may hold anything.
func Forbidden(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Texts {
		if path.Base(f.Path) == "go.sum" {
			continue
		}
		for _, b := range bans() {
			if b.in != nil && !b.in(f.Path) {
				continue
			}
			for _, at := range b.pattern.FindAllStringIndex(f.Content, -1) {
				found = append(found, Finding{
					Path: f.Path,
					Line: 1 + strings.Count(f.Content[:at[1]], "\n"),
					Text: fmt.Sprintf("%q is %s", strings.TrimSpace(f.Content[at[0]:at[1]]), b.why),
				})
			}
		}
	}
	return found
}
