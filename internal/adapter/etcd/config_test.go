package etcd

import (
	"maps"
	"strings"
	"testing"
)

// TestConfigErrors: what is wrong is named, with what to do.
func TestConfigErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "which member is it",
		"nmae: m1\n":                           "unknown field",
		"name: [\n":                            "[1:",
		"name: m1\n":                           "data_dir",
		"name: m1\ndata_dir: data\n":           "absolute path",
		"name: a b\ndata_dir: /d\n":            "no blank",
		"name: m1\ndata_dir: /d\nunit: etcd\n": "name of a service",
		"name: m1\ndata_dir: /d\nenv_file: /a\nconfig_file: /b\n":             "name that one",
		"name: m1\ndata_dir: /d\ntls: {cert: /c}\n":                           "go together",
		"name: m1\ndata_dir: /d\nclient_endpoint: 10.0.0.1:2379\n":            "http://",
		"name: m1\ndata_dir: /d\npeers: {m2: {peer_url: \"http://h\"}}\n":     "peers.m2.peer_url",
		"name: m1\ndata_dir: /d\npeers: {m2: {client_url: \"http://h:1\"}}\n": "peers.m2.peer_url",
		"name: m1\ndata_dir: /d\npeers: {m2: {peer_url: \"ftp://h:1\"}}\n":    "want http",
		"name: m1\nname: m2\ndata_dir: /d\n":                                  "already defined",
	} {
		c, err := ParseConfig([]byte(text))
		if err == nil {
			_, err = c.complete(Settings{})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", text, err, want)
		}
	}
}

// TestConfigComplete: what is left out comes from the member's settings.
func TestConfigComplete(t *testing.T) {
	s, err := SettingsFromEnvironment(captured(t, "env-3.7-tls.env"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Config{}.complete(s)
	if err != nil {
		t.Fatal(err)
	}
	if c.System != "facts" || c.Name != "m1" || c.Unit != "etcd.service" || c.DataDir != "/var/lib/etcd/3.7-tls/m1" || len(c.Peers) != 2 ||
		c.Peers["m2"].PeerURL != "https://127.0.0.1:24521" || c.PeerURL != "https://127.0.0.1:24511" || c.SnapshotDir != "/var/lib/etcd/3.7-tls/fettle-snapshots" {
		t.Errorf("%+v", c)
	}
}

// TestEditSettings: both kinds of file keep everything else.
func TestEditSettings(t *testing.T) {
	change := Settings{setInitialCluster: "a=http://h:1,b=http://i:1", setInitialState: "existing"}
	env := "# mine\nETCD_NAME='a' \nOTHER=1\nETCD_INITIAL_CLUSTER_STATE=new\n\n; end\n"
	out, err := EditEnvironment([]byte(env), change)
	if err != nil {
		t.Fatal(err)
	}
	for _, keep := range []string{"# mine\nETCD_NAME='a' \nOTHER=1\n", "\n; end\n"} {
		if !strings.Contains(string(out), keep) {
			t.Errorf("lost %q:\n%s", keep, out)
		}
	}
	got, err := SettingsFromEnvironment(out)
	want := Settings{"name": "a", setInitialCluster: change[setInitialCluster], setInitialState: "existing"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	yaml := "# mine\nname: 'a' # who\n\"initial-cluster-state\": new # soon old\nclient-transport-security:\n  cert-file: /c # kept\n# end\n"
	if out, err = EditYAML([]byte(yaml), change); err != nil {
		t.Fatal(err)
	}
	for _, keep := range []string{"# mine\nname: 'a' # who\n", "  cert-file: /c # kept\n# end\n"} {
		if !strings.Contains(string(out), keep) {
			t.Errorf("lost %q:\n%s", keep, out)
		}
	}
	if got, err = SettingsFromYAML(out); err != nil || got[setInitialState] != "existing" || got[setInitialCluster] != change[setInitialCluster] || got["cert-file"] != "/c" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := EditYAML([]byte("initial-cluster: |\n  a\n  b\n"), change); err == nil {
		t.Error("a value over several lines was edited line by line")
	}
	if s := (Settings{}).state(); s != "new" {
		t.Errorf("etcd's default is new, not %s", s)
	}
}
