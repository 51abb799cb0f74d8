package runbook

import (
	"testing"
	"time"

	"fettle/internal/fettle"
)

// TestPermits: what holds where a policy says nothing, and that nothing is not that.
func TestPermits(t *testing.T) {
	grants, life := Permits(fettle.Policy{})
	if len(grants) == 0 || life != 24*time.Hour {
		t.Errorf("the default is %v for %v", grants, life)
	}
	for _, g := range grants {
		if g.PerSubject < 1 || g.PerHost < 1 || g.Window <= 0 || g.Window > fettle.MaxPermitWindow || !fettle.MatchText(g.Hosts, "any") {
			t.Errorf("a default that never allows anything: %+v", g)
		}
	}
	p := fettle.Permit{Grants: grants}
	if _, i, ok := p.Grant("systemd.start", "unit:h1/fettle-server.service"); !ok || i != 0 {
		t.Errorf("Fettle's own servers have grant %d, %v", i, ok)
	}
	if _, i, ok := p.Grant("systemd.start", "unit:h1/web.service"); !ok || i == 0 {
		t.Errorf("other services have grant %d, %v", i, ok)
	}
	for _, action := range []string{"systemd.stop", "systemd.restart", "etcd.member_remove"} {
		if _, _, ok := p.Grant(action, "unit:h1/web.service"); ok {
			t.Errorf("%s is granted by default", action)
		}
	}
	for src, want := range map[string]int{"permits: []\n": 0, "permits: [{action: a.b, subject: \"*\"}]\n": 1, "rate: {}\n": len(grants)} {
		policy, err := ParsePolicy("p.yaml", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := Permits(policy); len(got) != want {
			t.Errorf("%q grants %v", src, got)
		}
	}
}
