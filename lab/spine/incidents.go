package spine

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"fettle/internal/fettle"
)

// Incidents are all incidents, those that have ended too, oldest first.
func (f *Fleet) Incidents() []fettle.Incident {
	f.t.Helper()
	var list []fettle.Incident
	f.read(&list, "incidents", "--all")
	return list
}

// TryIncidents is Incidents where it may be that no server leads at present: then false.
func (f *Fleet) TryIncidents() ([]fettle.Incident, bool) {
	f.t.Helper()
	r := f.command("incidents", "--all", "-o", "json")
	if r.Code == noContact {
		return nil, false
	}
	var list []fettle.Incident
	if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil {
		f.t.Fatalf("fettle incidents: exit status %d, %v: %s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	return list, true
}

// Incident is one incident as it is now.
func (f *Fleet) Incident(id string) fettle.Incident {
	f.t.Helper()
	var in fettle.Incident
	f.read(&in, "incident", "show", id)
	return in
}

// WaitIncident waits for an incident of which ok says true, and returns it as it
// was then.
func (f *Fleet) WaitIncident(what string, ok func(fettle.Incident) bool) fettle.Incident {
	f.t.Helper()
	var found fettle.Incident
	Until(f.t, what, func() bool {
		list := f.Incidents()
		i := slices.IndexFunc(list, ok)
		if i >= 0 {
			found = list[i]
		}
		return i >= 0
	})
	return found
}

// About is true of incidents with this cause that are in one of these states; of
// those in any state, if none is named.
func About(code fettle.Code, s fettle.Subject, states ...fettle.IncidentState) func(fettle.Incident) bool {
	return func(in fettle.Incident) bool {
		return in.Cause.Code == code && in.Cause.Subject == s && (len(states) == 0 || slices.Contains(states, in.State))
	}
}

// WaitFor waits for the incident with this cause to be in one of these states.
func (f *Fleet) WaitFor(code fettle.Code, s fettle.Subject, states ...fettle.IncidentState) fettle.Incident {
	f.t.Helper()
	return f.WaitIncident(fmt.Sprintf("an incident of %s on %s to be %v", code, s, states), About(code, s, states...))
}

// Approve approves the present plan of an incident.
func (f *Fleet) Approve(id string) {
	f.t.Helper()
	if r := f.command("incident", "approve", id); r.Code != 0 {
		f.t.Fatalf("approve %s: exit status %d: %s", id, r.Code, r.Stderr)
	}
}

// TryApprove approves the present plan of an incident, if it still has one that
// can be approved, and reports whether it was.
func (f *Fleet) TryApprove(id string) bool {
	f.t.Helper()
	r := f.command("incident", "approve", id)
	f.t.Logf("approve %s: exit status %d: %s", id, r.Code, r.Stderr)
	return r.Code == 0
}

// Story is what must stand in the story of an incident that was mended.
type Story struct {
	Rung   string   // the last plan's
	Begun  []string // the steps whose intent was made durable, in order
	Done   []string // those of them that were done; each must have been verified too
	Failed int      // how many failures it tells of
}

// CheckMended fails the test unless the incident was mended by this rung and
// exactly these steps, and nothing else happened on the way.
func (f *Fleet) CheckMended(in fettle.Incident, rung string, steps ...string) {
	f.t.Helper()
	f.CheckStory(in, Story{Rung: rung, Begun: steps, Done: steps})
}

// asksAgain says whether a step was refused for the moment alone: an agent that has just
// connected, also to a server that has just begun to lead, had not told all that it sees,
// or what it told had grown old. On a busy machine a fault may be heard of before, and a
// look may take longer than it is good for; it is looked at again.
func asksAgain(e fettle.Event) bool {
	refused := slices.DeleteFunc(slices.Clone(e.Verdicts), func(v fettle.Verdict) bool { return v.Allow })
	return len(refused) > 0 && !slices.ContainsFunc(refused, func(v fettle.Verdict) bool { return v.Guard != "settled" && v.Guard != "freshness" })
}

// CheckStory fails the test unless the incident is resolved and its story is as
// wanted: every step begun under a key of its own, every step that was done also
// verified; nothing refused for more than a moment, taken back or handed to a person.
func (f *Fleet) CheckStory(in fettle.Incident, want Story) {
	f.t.Helper()
	if in.State != fettle.Resolved {
		f.t.Errorf("incident %s of %s is %s (%s), want it resolved", in.ID, in.Cause, in.State, in.Why)
	}
	if in.Plan == nil || in.Plan.Rung != want.Rung {
		f.t.Errorf("incident %s: its plan is %v, want rung %s", in.ID, in.Plan, want.Rung)
	}
	s := read(in.Story)
	for kind, steps := range map[fettle.EventKind][]string{fettle.EvIntent: want.Begun, fettle.EvDone: want.Done, fettle.EvVerified: want.Done} {
		if got := s.steps(kind); !slices.Equal(got, steps) {
			f.t.Errorf("incident %s: %s: steps %v, want %v", in.ID, kind, got, steps)
		}
	}
	begun := s.keys(fettle.EvIntent)
	if len(slices.Compact(slices.Sorted(slices.Values(begun)))) != len(begun) {
		f.t.Errorf("incident %s: a key was used twice: %v", in.ID, begun)
	}
	for _, k := range s.keys(fettle.EvDone) {
		if !slices.Contains(begun, k) {
			f.t.Errorf("incident %s: %s was done and never begun", in.ID, k)
		}
	}
	if got := len(s[fettle.EvFailed]); got != want.Failed {
		f.t.Errorf("incident %s: %d failures, want %d", in.ID, got, want.Failed)
	}
	for _, kind := range []fettle.EventKind{fettle.EvRefused, fettle.EvUndone, fettle.EvEscalated, fettle.EvHeld} {
		for _, e := range s[kind] {
			if kind != fettle.EvRefused || !asksAgain(e) {
				f.t.Errorf("incident %s: %s: %s", in.ID, kind, e.Text)
			}
		}
	}
}

// CheckUntouched fails the test if anything was begun for the incident.
func (f *Fleet) CheckUntouched(in fettle.Incident) {
	f.t.Helper()
	for _, e := range read(in.Story)[fettle.EvIntent] {
		f.t.Errorf("incident %s of %s: %s was done, and nothing should have been", in.ID, in.Cause, e.Text)
	}
}

const slowDisk fettle.Code = "etcd.slow_disk"

// CheckOnly fails the test unless these are the causes of all incidents that
// there ever were, each once, in any order. One that was closed untouched since
// another explains it does not count; nor does a slow disk that nothing was done
// about: the hosts' disks are all one in the end, and that one is sometimes slow; nor
// an echo: what is started again on a busy machine answers late.
func (f *Fleet) CheckOnly(causes ...fettle.ConditionKey) {
	f.t.Helper()
	var got []string
	all := f.Incidents()
	for _, in := range all {
		wanted := slices.Contains(causes, in.Cause)
		if in.State == fettle.Closed || !wanted && (in.Cause.Code == slowDisk || echo(in, all)) {
			f.CheckUntouched(in)
			continue
		}
		got = append(got, in.Cause.String())
	}
	var want []string
	for _, c := range causes {
		want = append(want, c.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		f.t.Errorf("the causes of all incidents are\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// echo reports whether an incident is about what another had mended already, and only
// waited for that one's end: it was opened after the other's first step, and is resolved.
func echo(in fettle.Incident, all []fettle.Incident) bool {
	return in.State == fettle.Resolved && slices.ContainsFunc(all, func(other fettle.Incident) bool {
		steps := read(other.Story)[fettle.EvDone]
		return len(steps) > 0 && steps[0].At.Before(in.Opened) && slices.ContainsFunc(read(in.Story)[fettle.EvHeld], func(e fettle.Event) bool {
			return strings.Contains(e.Text, "incident "+other.ID+" ") && strings.Contains(e.Text, " is at work on ")
		})
	})
}

// story is an incident's events by their kind.
type story map[fettle.EventKind][]fettle.Event

func read(events []fettle.Event) story {
	s := story{}
	for _, e := range events {
		s[e.Kind] = append(s[e.Kind], e)
	}
	return s
}

func (s story) steps(k fettle.EventKind) []string {
	var out []string
	for _, e := range s[k] {
		out = append(out, e.Step)
	}
	return out
}

func (s story) keys(k fettle.EventKind) []string {
	var out []string
	for _, e := range s[k] {
		out = append(out, e.Key)
	}
	return out
}
