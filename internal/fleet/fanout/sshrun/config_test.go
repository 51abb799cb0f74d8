package sshrun_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/fleet/fanout/sshrun"
)

const sample = `# a comment
Include more/*.conf
Host web1 web2
    HostName %h.example.org   # where it is
    Port=2222
    IdentityFile ~/.ssh/web_%r
Host web* !web3
    User "deploy"
    ProxyJump bastion,second:2200
    IdentityFile "~/.ssh/a key"
    IdentitiesOnly yes
Match host *.example.org originalhost web1
    ConnectTimeout 7
    HostKeyAlias front
Match user deploy,admin
    UserKnownHostsFile ~/.ssh/known_%n /dev/null
Host bastion
    ProxyJump none
    IdentityAgent none
    StrictHostKeyChecking accept-new
    AddressFamily inet
Match all
    User nobody
    ForwardAgent yes
    SendEnv LANG LC_*
    Port 22
    ConnectTimeout 3
`

// TestLikeSSH: for every host, what is read is what ssh itself reads from the same
// files (ssh -G).
func TestLikeSSH(t *testing.T) {
	home := t.TempDir()
	file := filepath.Join(home, ".ssh", "config")
	write(t, file, sample)
	write(t, filepath.Join(home, "more", "a.conf"), "Host inc*\n Port 2022\n User fromfile\n")
	// ssh -F looks for relative includes in ~/.ssh of the account, so the file says where.
	write(t, file, strings.Replace(sample, "more/", home+"/more/", 1))
	c, err := sshrun.ReadConfig(home, file)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"web1", "web2", "web3", "web10", "bastion", "inc1", "db.example.org", "10.0.0.1"} {
		out, err := exec.Command("ssh", "-G", "-F", file, host).Output()
		if err != nil {
			t.Fatalf("ssh -G (Debian's openssh-client): %v", err)
		}
		want := map[string][]string{}
		for line := range strings.Lines(string(out)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			want[key] = append(want[key], value)
		}
		got, err := c.Lookup(host, sshrun.Person{User: "me", Home: home})
		if err != nil {
			t.Fatal(err)
		}
		same := func(key, ours string, theirs ...string) {
			t.Helper()
			if !slices.Contains(theirs, ours) {
				t.Errorf("%s: %s is %q, ssh has %q", host, key, ours, theirs)
			}
		}
		first := func(key string) string {
			if len(want[key]) == 0 {
				return ""
			}
			return want[key][0]
		}
		same("hostname", got.HostName, first("hostname"))
		same("port", fmt.Sprint(got.Port), first("port"))
		same("user", got.User, first("user"))
		jump := first("proxyjump")
		if jump == "none" {
			jump = ""
		}
		same("proxyjump", strings.Join(got.ProxyJump, ","), jump)
		timeout := map[string]string{"none": "0"}[first("connecttimeout")]
		same("connecttimeout", fmt.Sprint(int(got.ConnectTimeout/time.Second)), first("connecttimeout"), timeout)
		same("hostkeyalias", got.HostKeyAlias, first("hostkeyalias"))
		same("identitiesonly", map[bool]string{true: "yes", false: "no"}[got.IdentitiesOnly], first("identitiesonly"))
		same("addressfamily", map[string]string{"tcp": "any", "tcp4": "inet", "tcp6": "inet6"}[got.Network], first("addressfamily"))
		var files []string // ssh -G shows them with their tokens
		for _, f := range want["identityfile"] {
			f = strings.Replace(f, "~", home, 1)
			files = append(files, strings.ReplaceAll(f, "%r", got.User))
		}
		if got.OwnIdentities && !slices.Equal(got.IdentityFiles, files) {
			t.Errorf("%s: identity files %q, ssh has %q", host, got.IdentityFiles, files)
		}
	}
	b, err := c.Lookup("bastion", sshrun.Person{User: "me", Home: home, Agent: "/agent"})
	if err != nil || b.IdentityAgent != "" || !strings.HasSuffix(b.UncheckedWished, "config:20") {
		t.Errorf("%+v, %v", b, err)
	}
	w, err := c.Lookup("web10", sshrun.Person{User: "me", Home: home, Agent: "/agent"})
	if err != nil || w.IdentityAgent != "/agent" || w.KnownHosts[0] != home+"/.ssh/known_web10" {
		t.Errorf("%+v, %v", w, err)
	}
}

// TestNotSupported: what would change where or how one connects is an error with
// file and line, for the hosts that it applies to and no others.
func TestNotSupported(t *testing.T) {
	for text, want := range map[string]string{
		"Host a\n ProxyCommand nc %h %p\n":       "c:2: proxycommand is not supported",
		"Ciphers aes128-ctr\n":                   "c:1: ciphers is not supported",
		"Match exec true\n Port 23\n":            "c:2: whether port applies depends on Match exec (c:1)",
		"Port 0\n":                               "c:1: port \"0\": want 1 to 65535",
		"Port x\n":                               "want 1 to 65535",
		"HostName %q\n":                          "c:1: hostname: the token %q",
		"IdentityFile ${NO_SUCH_VARIABLE_X}/k\n": "there is no NO_SUCH_VARIABLE_X",
		"IdentityFile %C\n":                      "token %C",
		"Fancy yes\n":                            "c:1: fancy is not supported",
		"IdentitiesOnly maybe\n":                 "want yes or no",
		"ConnectTimeout soon\n":                  "want seconds",
		"AddressFamily inet7\n":                  "want any",
		"CertificateFile ~/c\n":                  "certificatefile is not supported",
		"StrictHostKeyChecking perhaps\n":        "want yes, ask",
	} {
		c, err := sshrun.ParseConfig("c", []byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if _, err := c.Lookup("a", sshrun.Person{User: "me", Home: "/home/me"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	for _, fine := range []string{
		"Host b\n ProxyCommand nc %h %p\n Ciphers x\n Fancy yes\n", "Match exec true\n ForwardAgent yes\n", "IgnoreUnknown F*,x\nFancy yes\n",
		"ProxyCommand none\nCanonicalizeHostname no\n", "Port 22\nMatch exec true\n Port 23\n", "Match host b exec true\n Port 23\n",
	} {
		c, err := sshrun.ParseConfig("c", []byte(fine))
		if err == nil {
			_, err = c.Lookup("a", sshrun.Person{User: "me", Home: "/home/me"})
		}
		if err != nil {
			t.Errorf("%q: %v", fine, err)
		}
	}
	for text, want := range map[string]string{
		"Port\n":             "c:1: port has no value",
		"User \"a\n":         "c:1: a quote is not closed",
		"\n\nInclude x\n":    "c:3: a file is needed",
		"HostName 'a b' c'd": "a quote is not closed",
	} {
		if _, err := sshrun.ParseConfig("c", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestIncludeLoop(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	write(t, file, "Include "+file+"\n")
	if _, err := sshrun.ReadConfig("/nowhere", file); err == nil || !strings.Contains(err.Error(), "more than 16 deep") {
		t.Error(err)
	}
}

// FuzzConfig: no file and no name panics, and a host has a port and a name if it
// has settings at all.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(sample), "web1")
	f.Add([]byte("Match host a,!b user c\nPort 2\nMatch !all\nUser x\n"), "a")
	f.Add([]byte("IdentityFile %d/${HOME}/%%\n\"Host\" \"a b\" c\\ d\nPort=\t\"22\""), "a b")
	f.Fuzz(func(t *testing.T, text []byte, host string) {
		c, err := sshrun.ParseConfig("c", text)
		if err != nil {
			return
		}
		s, err := c.Lookup(host, sshrun.Person{User: "me", Home: "/home/me"})
		if err == nil && (s.Port < 1 || s.Port > 65535 || s.Network == "" || s.User == "") {
			t.Errorf("%+v", s)
		}
	})
}
