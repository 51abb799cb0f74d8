package permit

import (
	"bytes"
	"errors"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
)

var now = time.Now().UTC().Truncate(time.Second)

func authority(t testing.TB) *pki.CA {
	t.Helper()
	ca, err := pki.Init(filepath.Join(t.TempDir(), "pki"), now.Add(-72*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func mint(t testing.TB, ca *pki.CA, role pki.Role, id string, from time.Time) *pki.Identity {
	t.Helper()
	i, err := ca.Mint(role, id, from, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func policy() fettle.Policy {
	return fettle.Policy{
		Rules: []fettle.PolicyRule{{Runbook: "web.*", Rung: "*", Subject: "*", Level: fettle.Observe}},
		Permits: []fettle.Grant{
			{Action: "*.start", Subject: "unit:*", Hosts: "web*", PerSubject: 1, PerHost: 2, Window: time.Hour},
			{Action: "a.b", Subject: "*", Hosts: "host:h1", PerSubject: 1, PerHost: 2, Window: time.Hour},
			{Action: "c.d", Subject: "*", Hosts: "db*", PerSubject: 1, PerHost: 2, Window: time.Hour},
		}, PermitLife: time.Hour, Hash: "x",
	}
}

func made() fettle.Permit {
	return Make(policy(), "", 3, fettle.HostSubject("h1"), "web7", now)
}

func TestMake(t *testing.T) {
	p := made()
	if len(p.Grants) != 2 || p.Grants[0].Action != "*.start" || p.Grants[1].Action != "a.b" {
		t.Errorf("grants %+v", p.Grants)
	}
	if !p.Until.Equal(now.Add(time.Hour)) || p.Serial == made().Serial || len(p.Policy.Rules) != 1 {
		t.Errorf("permit %+v", p)
	}
	if p := Make(policy(), "f", 1, fettle.HostSubject("h2"), "x", now); len(p.Grants) != 0 {
		t.Errorf("a host without a grant has %+v", p.Grants)
	}
}

func TestSignedAndOpened(t *testing.T) {
	ca := authority(t)
	server, agent := mint(t, ca, pki.RoleServer, "s1", now.Add(-time.Minute)), mint(t, ca, pki.RoleAgent, "h1", now.Add(-time.Minute))
	p := made()
	p.Fleet = ca.Fleet()
	s, err := Sign(p, server)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Open(s, agent.Trust(), agent.Name.Host())
	if err != nil || !reflect.DeepEqual(got, p) {
		t.Fatalf("it came back as\n%+v, %v; want\n%+v", got, err, p)
	}
	text, err := Kept{Taken: now, Signed: s}.Text()
	if err != nil {
		t.Fatal(err)
	}
	k, err := Parse(append(text, "    "...))
	if err != nil || !k.Taken.Equal(now) || !reflect.DeepEqual(k.Signed, s) {
		t.Errorf("kept as %+v, %v", k, err)
	}
	for i := range len(s.Note) - len("abc=\n") {
		bad := Signed{bytes.Clone(s.Note), s.Certificate}
		bad.Note[i] ^= 1
		if p, err := Open(bad, agent.Trust(), agent.Name.Host()); err == nil {
			t.Fatalf("byte %d changed, and it was taken as %+v", i, p)
		}
	}
}

// TestOnlyServersOfTheFleetPermit: and only this host.
func TestOnlyServersOfTheFleetPermit(t *testing.T) {
	ca, other := authority(t), authority(t)
	agent := mint(t, ca, pki.RoleAgent, "h1", now.Add(-time.Minute))
	server := mint(t, ca, pki.RoleServer, "s1", now.Add(-time.Minute))
	for name, c := range map[string]struct {
		by     *pki.Identity
		change func(*fettle.Permit)
		want   error
	}{
		"another fleet's server":       {mint(t, other, pki.RoleServer, "s1", now.Add(-time.Minute)), func(*fettle.Permit) {}, pki.ErrStranger},
		"the agent itself":             {agent, func(*fettle.Permit) {}, pki.ErrStranger},
		"an administrator":             {mint(t, ca, pki.RoleAdmin, "ann", now.Add(-time.Minute)), func(*fettle.Permit) {}, pki.ErrStranger},
		"a server before its time":     {mint(t, ca, pki.RoleServer, "s2", now.Add(24*time.Hour)), func(*fettle.Permit) {}, pki.ErrExpired},
		"a server after its time":      {mint(t, ca, pki.RoleServer, "s3", now.Add(-2*time.Hour)), func(*fettle.Permit) {}, pki.ErrExpired},
		"a server, for another host":   {server, func(p *fettle.Permit) { p.Host = fettle.HostSubject("h2") }, nil},
		"a server, for another fleet":  {server, func(p *fettle.Permit) { p.Fleet = "f2" }, nil},
		"another's certificate beside": {server, func(*fettle.Permit) {}, nil},
	} {
		p := made()
		p.Fleet = ca.Fleet()
		c.change(&p)
		s, err := Sign(p, c.by)
		if err != nil {
			t.Fatal(err)
		}
		if name == "another's certificate beside" {
			s.Certificate = mint(t, ca, pki.RoleServer, "s4", now.Add(-time.Minute)).Certificate()
		}
		if got, err := Open(s, agent.Trust(), agent.Name.Host()); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v; want %v", name, got, err, c.want)
		}
	}
}

// TestNonsenseIsNotSigned: what no host would take.
func TestNonsenseIsNotSigned(t *testing.T) {
	ca := authority(t)
	server := mint(t, ca, pki.RoleServer, "s1", now.Add(-time.Minute))
	for name, change := range map[string]func(*fettle.Permit){
		"no serial":      func(p *fettle.Permit) { p.Serial = "" },
		"no epoch":       func(p *fettle.Permit) { p.Epoch = 0 },
		"no host":        func(p *fettle.Permit) { p.Host = "unit:h1/a" },
		"no time":        func(p *fettle.Permit) { p.From = time.Time{} },
		"for ever":       func(p *fettle.Permit) { p.Until = p.From.Add(fettle.MaxPermitLife + 1) },
		"no rate":        func(p *fettle.Permit) { p.Grants[0].PerSubject = 0 },
		"a newer schema": func(p *fettle.Permit) { p.Schema = schema + 1 },
	} {
		p := made()
		p.Fleet = ca.Fleet()
		change(&p)
		if s, err := Sign(p, server); err == nil {
			t.Errorf("%s was signed: %s", name, s.Note)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(first + "\n{\"schema\":1,\"serial\":\"a\",\"fleet\":\"f\",\"epoch\":1,\"host\":\"host:h1\",\"from\":\"2026-01-01T00:00:00Z\",\"until\":\"2026-01-02T00:00:00Z\",\"grants\":[{\"action\":\"*\",\"subject\":\"*\",\"per_subject\":1,\"per_host\":1,\"window_ns\":1}]}\nmore of a newer version\n")
	f.Add(first + "\n{}\n")
	f.Add("fettle permit 2\n{}\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parse(text)
		if err == nil && (p.Host.Kind() != fettle.KindHost || !p.From.Before(p.Until) || p.Until.Sub(p.From) > fettle.MaxPermitLife) {
			t.Errorf("%q was read as %+v", text, p)
		}
	})
}

func FuzzParseKept(f *testing.F) {
	f.Add([]byte(`{"schema":1,"taken":"2026-01-01T00:00:00Z","note":"YQ==","certificate":"YQ=="}   `))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if k, err := Parse(data); err == nil && (k.Taken.IsZero() || len(k.Note) == 0) {
			t.Errorf("%q was read as %+v", data, k)
		}
	})
}
