package lab

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const deb822Sample = `Types: deb
# a comment
URIs: http://one.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://one.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF

Types: deb
URIs: https://other.example/node
Suites: nodistro
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main
`

const listSample = `# deb http://off.example/debian bookworm main
deb http://two.example/debian bookworm main non-free # why
deb [arch=amd64 signed-by=/k.gpg] https://two.example/debian bookworm-updates main
deb-src http://two.example/debian bookworm main
deb https://vendor.example/apt bookworm stable
deb broken
`

func TestSources(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sources.list.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"sources.list": listSample, "sources.list.d/debian.sources": deb822Sample, "sources.list.d/no": "deb http://no.example/ bookworm main"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"deb http://two.example/debian bookworm main",
		"deb [signed-by=/k.gpg] https://two.example/debian bookworm-updates main",
		"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://one.example/debian bookworm main",
		"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://one.example/debian bookworm-updates main",
		"deb http://one.example/debian-security bookworm-security main",
	}
	if got := aptSources(dir, "bookworm"); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := aptSources(dir, "trixie"); got != nil {
		t.Errorf("found %q for a suite that nobody serves", got)
	}
	if got := aptSources(filepath.Join(dir, "none"), "bookworm"); got != nil {
		t.Errorf("found %q where there is nothing", got)
	}
}

func TestAptOptions(t *testing.T) {
	dump := "Acquire \"\";\nAcquire::Check-Valid-Until \"false\";\nAcquire::http::Proxy \"http://proxy.example:3142\";\nAcquire::http \"\";\nDPkg::Post-Invoke:: \"rm -rf /\";\n"
	if got := aptOptions(dump); !slices.Equal(got, []string{`Acquire::Check-Valid-Until "false"`, `Acquire::http::Proxy "http://proxy.example:3142"`}) {
		t.Errorf("got %q", got)
	}
}

func FuzzSources(f *testing.F) {
	f.Add(deb822Sample)
	f.Add(listSample)
	f.Add("deb [")
	f.Add(" : \n\n:")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range append(parseDeb822(text), parseSourcesList(text)...) {
			if s.uri == "" || s.suite == "" || len(s.components) == 0 || strings.ContainsAny(s.line(), "\n") {
				t.Errorf("half a source: %+v of %q", s, text)
			}
		}
	})
}
