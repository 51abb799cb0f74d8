package condition

import (
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
)

// word is what one observer has to say.
type word struct {
	fettle.Evidence
	before  fettle.Tri   // what it said when it last knew; Unknown: it never did
	between bool         // it says no for want of a yes: no clear rule was seen to hold
	silent  time.Time    // since when what it saw is too old; zero: it is not
	seen    fettle.Facts // all that it saw
}

// listen asks every observer of a subject for its word on one condition. until
// is when one of the observations that this rests on becomes too old; zero:
// never.
func (s *surroundings) listen(sp *spec, r *record, seen []fettle.Observation) (words []word, until time.Time) {
	in, until := s.input(sp, r.cond.Subject, seen)
	host := fettle.Subject("")
	if sp.readsHost() {
		host = s.hostOf(r.cond.Subject)
	}
	for i := range seen {
		o := &seen[i]
		if o.Probe != sp.Probe {
			continue
		}
		w := word{before: r.lastWord(o.Host), Evidence: fettle.Evidence{Observer: o.Observer(), Asked: o.Asked}}
		switch {
		case !fresh(o, sp.Expiry, s.now):
			w.Reason, w.silent = TooOld, o.Asked.Add(sp.Expiry)
		default:
			in.Self, in.Host = nil, nil
			if o.Known() {
				in.Self, w.seen = o.Facts, o.Facts
				w.Facts = s.picks.pick(sp, o.Facts)
			}
			if host != "" && o.Known() {
				a := s.ask(question{of: host, by: o.Host, expiry: sp.Expiry})
				in.Host, until = a.facts, earliest(until, a.until)
			}
			w.Says, w.between, w.Reason = sp.answer(o, in, w.before)
		}
		words = append(words, w)
	}
	return words, until
}

// input gathers what is the same for all observers.
func (s *surroundings) input(sp *spec, subject fettle.Subject, seen []fettle.Observation) (in expr.RuleInput, until time.Time) {
	for i := range seen {
		o := &seen[i]
		if o.Probe != sp.Probe || !fresh(o, sp.Expiry, s.now) {
			continue
		}
		if sp.Expiry > 0 {
			until = earliest(until, o.Asked.Add(sp.Expiry))
		}
		if asked(o) {
			in.Observers++
		}
		if o.Reason == fettle.Unreachable {
			in.Unreachable++
		}
	}
	var at time.Time
	if sp.readsPeers() {
		in.Peers, at = s.each(s.peersOf(subject), sp.Probe, sp.Expiry)
		until = earliest(until, at)
	}
	if sp.readsParts() {
		in.Parts, at = s.each(s.w.Related(subject, toParts), "", sp.Expiry)
		until = earliest(until, at)
	}
	if sp.readsWhole() {
		if wholes := s.w.Related(subject, toWhole); len(wholes) == 1 {
			a := s.ask(question{of: wholes[0], expiry: sp.Expiry})
			in.Whole, until = a.facts, earliest(until, a.until)
		}
	}
	return in, until
}

// asked reports whether the observer did ask the subject: it got an answer, or
// none. One that was refused, cut off or broken asked nothing.
func asked(o *fettle.Observation) bool { return o.Known() || o.Reason == fettle.Unreachable }

// answer is an observer's word, whether it is a no between the two rules, and why it
// has none.
func (sp *spec) answer(o *fettle.Observation, in expr.RuleInput, before fettle.Tri) (says fettle.Tri, between bool, why fettle.Reason) {
	raise, why := ask(sp.raise, o, in)
	if sp.clear == nil || raise == fettle.Yes {
		return raise, false, why
	}
	clear, clearWhy := ask(sp.clear, o, in)
	switch {
	case clear == fettle.Yes:
		return fettle.No, false, ""
	case raise == fettle.Unknown:
		return fettle.Unknown, false, why
	case before != fettle.Yes: // it was not raised, and it is not now
		return fettle.No, true, ""
	case clear == fettle.No:
		return fettle.Yes, false, ""
	default:
		return fettle.Unknown, false, clearWhy
	}
}

// ask asks one rule. A rule over facts cannot be asked where they are not known.
func ask(r *expr.Rule, o *fettle.Observation, in expr.RuleInput) (fettle.Tri, fettle.Reason) {
	if !o.Known() && (!r.OnlyCounts() || !asked(o)) {
		return fettle.Unknown, o.Reason
	}
	answer, err := r.Why(in)
	if err != nil {
		return answer, fettle.Reason(err.Error())
	}
	return answer, ""
}

// agreed is what the observers say together.
type agreed struct {
	says  fettle.Tri
	from  time.Time // when the observation that decided it was asked for
	clear time.Time // where they say no: the last time that it was seen clear; zero: they say it for want of a yes
}

// agree combines the words.
func agree(how fettle.Agreement, words []word) agreed {
	var yes, no, seen []time.Time      // seen: those of no who saw it clear
	lost, silent := false, time.Time{} // somebody saw it and no longer knows: looks in vain, or has gone silent
	for _, w := range words {
		switch {
		case w.Says == fettle.Yes:
			yes = append(yes, w.Asked)
		case w.Says == fettle.No:
			no = append(no, w.Asked)
			if !w.between {
				seen = append(seen, w.Asked)
			}
		case w.before == fettle.Yes && w.silent.IsZero():
			lost = true
		case w.before == fettle.Yes && w.silent.After(silent):
			silent = w.silent
		}
	}
	slices.SortFunc(yes, time.Time.Compare)
	slices.SortFunc(no, time.Time.Compare)
	slices.SortFunc(seen, time.Time.Compare)
	half := len(words) / 2
	switch how {
	case fettle.AllObservers:
		switch {
		case len(no) > 0:
			return agreed{fettle.No, no[0], fromEnd(seen, 0)}
		case len(yes) > 0:
			return agreed{says: fettle.Yes, from: yes[len(yes)-1]}
		}
	case fettle.MostHosts:
		switch {
		case len(yes) > half:
			return agreed{says: fettle.Yes, from: yes[half]}
		case len(no) > half:
			return agreed{fettle.No, no[half], fromEnd(seen, half)}
		}
	default:
		switch {
		case len(yes) > 0:
			return agreed{says: fettle.Yes, from: yes[0]}
		case len(no) > 0 && !lost && !no[0].Before(silent):
			return agreed{fettle.No, no[len(no)-1], fromEnd(seen, len(no)-1)}
		}
	}
	return agreed{}
}

// fromEnd is the n-th from the end of a sorted list; zero where it has no so many.
func fromEnd(list []time.Time, n int) time.Time {
	if n >= len(list) {
		return time.Time{}
	}
	return list[len(list)-1-n]
}
