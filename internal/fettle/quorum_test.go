package fettle_test

import (
	"encoding/json"
	"reflect"
	"strconv"
	"testing"

	"fettle/internal/fettle"
)

// group makes a quorum group of letters: S serves, d is down, ? is unknown, and
// l, L are learners, down and serving.
func group(members string) fettle.QuorumGroup {
	var g fettle.QuorumGroup
	for i, r := range members {
		m := fettle.QuorumMember{Subject: fettle.NewSubject("m", "g", strconv.Itoa(i)), ID: strconv.Itoa(i), Voter: r != 'l' && r != 'L'}
		switch r {
		case 'S', 'L':
			m.Serving = fettle.Yes
		case 'd', 'l':
			m.Serving = fettle.No
		}
		g.Members = append(g.Members, m)
	}
	return g
}

func TestQuorumArithmetic(t *testing.T) {
	for members, want := range map[string]struct{ voters, majority, serving int }{
		"":        {0, 0, 0}, // nobody can decide, and nothing is a majority of nobody
		"l":       {0, 0, 0},
		"S":       {1, 1, 1},
		"SS":      {2, 2, 2},
		"SSS":     {3, 2, 3},
		"SSd":     {3, 2, 2},
		"S??":     {3, 2, 1}, // for votes, not knowing is as bad as down
		"SSdL":    {3, 2, 2}, // a learner that serves has no vote
		"SSSS":    {4, 3, 4},
		"SSSSd":   {5, 3, 4},
		"SSSSSS":  {6, 4, 6},
		"dddddd?": {7, 4, 0},
	} {
		g := group(members)
		if g.Voters() != want.voters || g.Majority() != want.majority || g.ServingVotes() != want.serving {
			t.Errorf("%q: %d voters, majority %d, %d serving; want %+v", members, g.Voters(), g.Majority(), g.ServingVotes(), want)
		}
	}
	for n := 1; n <= 9; n++ { // two majorities always share a member, and a majority is no larger than need be
		all := ""
		for range n {
			all += "S"
		}
		if m := group(all).Majority(); 2*m <= n || 2*(m-1) > n {
			t.Errorf("the majority of %d is %d", n, m)
		}
	}
}

func TestQuorumMembers(t *testing.T) {
	g := group("Sd")
	if m, ok := g.Member("m:g/1"); !ok || m.ID != "1" || m.Serving != fettle.No {
		t.Errorf("member 1 is %+v, %v", m, ok)
	}
	if m, ok := g.Member("m:g/7"); ok || m != (fettle.QuorumMember{}) {
		t.Errorf("a member that is not there is %+v", m)
	}
	c := g.Clone()
	c.Members[0].Voter = false
	if g.Voters() != 2 || c.Voters() != 1 {
		t.Error("the original changed with its copy")
	}
	g.Members[1].LogLost = fettle.Yes
	data, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	var back fettle.QuorumGroup
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(g, back) {
		t.Errorf("read back as %+v: %v", back, err)
	}
}
