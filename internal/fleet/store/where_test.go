package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEndpoints(t *testing.T) {
	for text, want := range map[string]string{ // "": taken
		"https://10.0.0.5:2379,https://db.example:2379": "", "https://[2001:db8::1]:2379": "", "http://127.0.0.1:2379, http://[::1]:1": "",
		"http://localhost:2379": "", "unix:///run/etcd.sock": "",
		"http://10.0.0.5:2379": "TLS", "http://db.example:2379": "TLS", "10.0.0.5:2379": "URL", "": "URL", "https://a:1,,https://b:1": "URL", "https://10.0.0.5": "port",
		"https://:2379": "host", "unix://run/etcd.sock": "three slashes", "https://ann:pw@10.0.0.5:2379": "--store-user", "https://a:1/x": "--store-prefix", "ftp://a:1": "URL",
		"https://a:1?x": "nothing behind",
	} {
		list, err := ParseEndpoints(text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) || err == nil && len(list) != strings.Count(text, ",")+1 {
			t.Errorf("%q: %v, %v; want %q", text, list, err, want)
		}
	}
}

func TestPrefixes(t *testing.T) {
	for prefix, good := range map[string]bool{
		"/fettle/main": true, "/a": true, "/a.b/c-d_E/1": true,
		"": false, "/": false, "a": false, "/a/": false, "//a": false, "/a/../b": false, "/a b": false, "/fettle": false, "/ä": false, "/" + strings.Repeat("a", maxPrefix): false,
	} {
		if err := CheckPrefix(prefix); (err == nil) != good {
			t.Errorf("%q: %v", prefix, err)
		}
	}
}

// TestWhere: half of what is needed is refused before anybody is asked, and so are
// secrets that others may read.
func TestWhere(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	own, open := file("own", 0o600), file("open", 0o640)
	const secure = "https://10.0.0.5:2379"
	for name, c := range map[string]struct {
		w    Where
		want string
	}{
		"all":                {Where{Endpoints: []string{secure}, CertFile: open, KeyFile: own, User: "u", PasswordFile: own}, ""},
		"nothing":            {Where{}, "address"},
		"no key":             {Where{Endpoints: []string{secure}, CertFile: open}, "--store-key"},
		"no TLS":             {Where{Endpoints: []string{"http://127.0.0.1:1"}, CAFile: open}, "https://"},
		"no password":        {Where{Endpoints: []string{secure}, User: "u"}, "--store-password-file"},
		"no user":            {Where{Endpoints: []string{secure}, PasswordFile: own}, "--store-user"},
		"a password of many": {Where{Endpoints: []string{secure}, User: "u", PasswordFile: open}, "chmod 600"},
		"a key of many":      {Where{Endpoints: []string{secure}, CertFile: open, KeyFile: open}, "chmod 600"},
		"no file":            {Where{Endpoints: []string{secure}, User: "u", PasswordFile: filepath.Join(dir, "none")}, "no such file"},
		"a folder":           {Where{Endpoints: []string{secure}, User: "u", PasswordFile: dir}, "is no file"},
		"no prefix":          {Where{Endpoints: []string{secure}, Prefix: "main"}, "want /NAME"},
	} {
		if err := c.w.Check(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	empty := file("empty", 0o600)
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (Where{PasswordFile: empty}).password(); err == nil {
		t.Error("an empty password is one")
	}
}

func TestRecent(t *testing.T) {
	for version, want := range map[string]bool{"3.5.0": true, "3.5": true, "3.7.3": true, "4.0.0": true, "3.6.0-rc.1": true, "3.4.37": false, "2.9.9": false, "": false, "3": false, "x.y": false} {
		if recent(version) != want {
			t.Errorf("%q: %v", version, !want)
		}
	}
}

func FuzzParseEndpoints(f *testing.F) {
	for _, seed := range []string{"https://10.0.0.5:2379,unix:///run/x", "http://[::1]:1", "http://127.0.0.1.example:1", "https://a@b:1", "https://a:1/%zz"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseEndpoints(text)
		if err != nil {
			return
		}
		for _, e := range list {
			if strings.Contains(e, "@") && !strings.HasPrefix(e, "unix:") || (Where{Endpoints: []string{e}}).Check() != nil {
				t.Errorf("%q was taken", e)
			}
		}
	})
}

func FuzzCheckPrefix(f *testing.F) {
	for _, seed := range []string{"/fettle/main", "/", "/a//b", "/a/.", "/fettle"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, prefix string) {
		if CheckPrefix(prefix) == nil && (prefix[0] != '/' || strings.HasSuffix(prefix, "/") || strings.Contains(prefix, "//") || prefix+"/" == keyRoot) {
			t.Errorf("%q was taken", prefix)
		}
	})
}
