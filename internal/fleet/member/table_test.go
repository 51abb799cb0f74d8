package member

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// TestLooksAreBounded: a member that hears of twenty deaths looks at a few at a time,
// and at all in the end.
func TestLooksAreBounded(t *testing.T) {
	tab := newTable("me", 100)
	now := noon
	for i := range 20 {
		name := fmt.Sprintf("h%02d", i)
		tab.joined(&memberlist.Node{Name: name}, Label{Host: name}.wire(), now)
	}
	for i := range 20 {
		now = now.Add(time.Second)
		tab.departed(fmt.Sprintf("h%02d", 19-i), now)
	}
	first, _, _ := tab.toLook(now, time.Hour)
	if len(first) != looksMost || first[0] != "h19" {
		t.Fatalf("looks at %v at first, want the %d that wait longest", first, looksMost)
	}
	if more, _, _ := tab.toLook(now, time.Hour); len(more) != 0 {
		t.Fatalf("looks at %v besides", more)
	}
	again := func(int) time.Duration { return time.Minute }
	seen := map[string]bool{}
	for names := first; len(names) > 0; names, _, _ = tab.toLook(now, time.Hour) {
		for _, name := range names {
			seen[name] = true
			tab.looked(name, SawSilence, now, now, again)
		}
	}
	if len(seen) != 20 {
		t.Errorf("looked at %d of 20", len(seen))
	}
	_, _, next := tab.toLook(now, time.Hour)
	if !next.Equal(now.Add(time.Minute)) {
		t.Errorf("next look at %s, want a minute later", next)
	}
	if _, forgotten, _ := tab.toLook(now.Add(2*time.Hour), time.Hour); len(forgotten) != 20 || len(tab.all()) != 0 {
		t.Errorf("forgot %d of 20", len(forgotten))
	}
}
