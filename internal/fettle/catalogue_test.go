package fettle_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"fettle/internal/fettle"
)

func sample() []fettle.Catalogue {
	return []fettle.Catalogue{
		{
			Adapter: "disk",
			Conditions: []fettle.ConditionSpec{
				{Code: "disk.full", Effects: []fettle.EffectOn{
					{Condition: "app.down", Path: "<uses", Surely: fettle.Often, Within: time.Second},
					{Condition: "nobody.has", Path: "self", Surely: fettle.Always},
				}},
				{Code: "disk.dead"},
			},
			Actions: []fettle.ActionSpec{{Name: "disk.clean"}},
		},
		{
			Adapter: "app",
			Conditions: []fettle.ConditionSpec{
				{Code: "app.down", CausedBy: []fettle.EffectOn{
					{Condition: "disk.dead", Path: ">uses >runs-on", Surely: fettle.Sometimes, Within: time.Minute},
					{Condition: "app.down", Path: ">part-of <part-of", Surely: fettle.Often}, // of another like me
					{Condition: "not.here", Path: "self", Surely: fettle.Always},
				}},
			},
		},
	}
}

func TestJoin(t *testing.T) {
	in := sample()
	out := fettle.Join(in)
	if !reflect.DeepEqual(in, sample()) {
		t.Error("joining changed what was handed in")
	}
	want := map[fettle.Code][]fettle.EffectOn{
		"disk.full": {{Condition: "app.down", Path: "<uses", Surely: fettle.Often, Within: time.Second}},
		"disk.dead": {{Condition: "app.down", Path: "<runs-on <uses", Surely: fettle.Sometimes, Within: time.Minute}},
		"app.down":  {{Condition: "app.down", Path: ">part-of <part-of", Surely: fettle.Often}},
	}
	for _, c := range out {
		for _, s := range c.Conditions {
			if !slices.Equal(s.Effects, want[s.Code]) {
				t.Errorf("%s brings about %+v, want %+v", s.Code, s.Effects, want[s.Code])
			}
			if len(s.CausedBy) > 0 {
				t.Errorf("%s still has edges from the other end: %+v", s.Code, s.CausedBy)
			}
			delete(want, s.Code)
		}
	}
	if len(want) > 0 {
		t.Errorf("lost: %v", want)
	}
	if again := fettle.Join(out); !reflect.DeepEqual(out, again) {
		t.Error("joining twice is not joining once")
	}
	// What is joined may be changed without harm to its source.
	out[0].Conditions[0].Effects[0].Surely = fettle.Always
	out[0].Conditions[1].Effects[0].Path = "self"
	if !reflect.DeepEqual(in, sample()) {
		t.Error("the joined catalogues share their edges with what was handed in")
	}
	if got := fettle.Join(nil); len(got) != 0 {
		t.Errorf("nothing joined is %v", got)
	}
	// An adapter that is not there takes its edges with it.
	alone := fettle.Join(sample()[1:])
	if e := alone[0].Conditions[0].Effects; len(e) != 1 || e[0].Condition != "app.down" {
		t.Errorf("without the other adapter: %+v", e)
	}
}

func TestFind(t *testing.T) {
	c := sample()[0]
	if s, ok := c.FindCondition("disk.dead"); !ok || s != &c.Conditions[1] {
		t.Errorf("disk.dead: %v %v", s, ok)
	}
	if s, ok := c.FindCondition("app.down"); ok || s != nil {
		t.Errorf("a condition of another catalogue was found: %v", s)
	}
	if s, ok := c.FindAction("disk.clean"); !ok || s.Name != "disk.clean" {
		t.Errorf("disk.clean: %v %v", s, ok)
	}
	if s, ok := c.FindAction("disk.wipe"); ok || s != nil {
		t.Errorf("an action that is not there was found: %v", s)
	}
}
