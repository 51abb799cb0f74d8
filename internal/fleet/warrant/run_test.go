package warrant_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
)

func aRun(ca *pki.CA) warrant.Run {
	return warrant.Run{Fleet: ca.Fleet(), Run: "4qz7", Host: "host:2fme", Name: "web1", Nonce: "abc.1", Within: time.Minute, Body: warrant.HashOf([]byte("{}"))}
}

func TestRun(t *testing.T) {
	ca, other := authority(t), authority(t)
	ann := mint(t, ca, pki.RoleOperator)
	want := aRun(ca)
	s, err := warrant.SignRun(want, ann)
	if err != nil {
		t.Fatal(err)
	}
	if got, who, err := warrant.OpenRun(s, ann.Trust(), noon); err != nil || got != want || who != ann.Name {
		t.Errorf("%+v by %s, %v; want %+v", got, who, err, want)
	}
	if _, _, err := warrant.OpenRun(s, mint(t, other, pki.RoleAgent).Trust(), noon); !errors.Is(err, pki.ErrStranger) {
		t.Errorf("another fleet took it: %v", err)
	}
	if _, _, err := warrant.OpenRun(s, ann.Trust(), noon.Add(2*time.Hour)); !errors.Is(err, pki.ErrExpired) {
		t.Errorf("after the certificate's end: %v", err)
	}
	for _, change := range [][2]string{{"4qz7", "4qz8"}, {"host:2fme", "host:2fmf"}, {"web1", "web2"}, {"nonce abc", "nonce abd"}, {"within 6", "within 7"}, {"body ", "body 0"}, {"fettle run 1", "fettle run 2"}} {
		bad := s
		bad.Note = bytes.Replace(s.Note, []byte(change[0]), []byte(change[1]), 1)
		if _, _, err := warrant.OpenRun(bad, ann.Trust(), noon); err == nil {
			t.Errorf("%q for %q was taken", change[1], change[0])
		}
	}
	for _, role := range []pki.Role{pki.RoleViewer, pki.RoleServer, pki.RoleAgent} {
		if _, err := warrant.SignRun(want, mint(t, ca, role)); err == nil {
			t.Errorf("%s signed", role)
		}
		forged := s
		forged.Certificate = mint(t, ca, role).Certificate()
		if _, _, err := warrant.OpenRun(forged, ann.Trust(), noon); err == nil {
			t.Errorf("%s was taken for an operator", role)
		}
	}
	for name, change := range map[string]func(*warrant.Run){
		"no run": func(r *warrant.Run) { r.Run = "" }, "a long run": func(r *warrant.Run) { r.Run = strings.Repeat("x", 100) }, "no host": func(r *warrant.Run) { r.Host = "unit:x/y" },
		"a line more": func(r *warrant.Run) { r.Name = "a\nnonce 99" }, "no time": func(r *warrant.Run) { r.Within = 0 }, "no hash": func(r *warrant.Run) { r.Body = "x" },
		"of another fleet": func(r *warrant.Run) { r.Fleet = "x" },
	} {
		r := want
		change(&r)
		if _, err := warrant.SignRun(r, ann); err == nil {
			t.Errorf("%s: it was signed", name)
		}
	}
}

func TestProgram(t *testing.T) {
	for _, want := range []warrant.Program{
		{Argv: []string{"uptime"}}, {Argv: []string{"sh", "-c", "echo '<&>' \"\n\" ü", ""}, Timeout: time.Minute},
	} {
		body, err := want.Body()
		if err != nil {
			t.Fatal(err)
		}
		got, err := warrant.ParseProgram(body)
		if err != nil || strings.Join(got.Argv, "\x00") != strings.Join(want.Argv, "\x00") || got.Timeout != want.Timeout {
			t.Errorf("%q: %+v, %v", body, got, err)
		}
	}
	for name, p := range map[string]warrant.Program{
		"nothing": {}, "no program": {Argv: []string{""}}, "a zero byte": {Argv: []string{"a\x00b"}}, "no text": {Argv: []string{"a\xffb"}},
		"too much": {Argv: []string{strings.Repeat("x", 300<<10)}}, "a time that is over": {Argv: []string{"x"}, Timeout: -1},
	} {
		if body, err := p.Body(); err == nil {
			t.Errorf("%s: %q", name, body)
		}
	}
	for _, text := range []string{"", "{}", `{"schema":2,"argv":["x"]}`, `{"schema":1,"argv":["x"],"dir":"/"}`, `{"schema":1,"argv":["x"]} {}`, `{"schema":1,"argv":"x"}`} {
		if p, err := warrant.ParseProgram([]byte(text)); err == nil {
			t.Errorf("%s: %+v", text, p)
		}
	}
}

func FuzzRun(f *testing.F) {
	ca := authority(f)
	ann := mint(f, ca, pki.RoleOperator)
	s, err := warrant.SignRun(aRun(ca), ann)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Note, s.Certificate)
	f.Add([]byte("fettle run 1\n"), []byte{})
	f.Fuzz(func(t *testing.T, msg, cert []byte) {
		r, _, err := warrant.OpenRun(warrant.Signed{Note: msg, Certificate: cert}, ann.Trust(), noon)
		if err == nil && r != aRun(ca) {
			t.Errorf("%+v was never signed", r)
		}
	})
}

// FuzzProgram: what is taken can be run, and written down is taken again.
func FuzzProgram(f *testing.F) {
	f.Add([]byte(`{"schema":1,"argv":["sh","-c","uptime"],"timeout_ns":1000}`))
	f.Add([]byte(`{"schema":1,"argv":[null]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := warrant.ParseProgram(body)
		if err != nil {
			return
		}
		if len(p.Argv) == 0 || p.Argv[0] == "" || p.Timeout < 0 {
			t.Errorf("%+v", p)
		}
		if _, err := p.Body(); err != nil {
			t.Errorf("%q is taken, and is not when written anew: %v", body, err)
		}
	})
}
