package guard

import (
	"fmt"
	"slices"
	"time"

	"fettle/internal/fettle"
)

// Window is a time in which people work on hosts: Fettle goes on looking and telling,
// and starts nothing there. Its times are the wall clock's.
type Window struct {
	ID    string           `json:"id"`
	By    string           `json:"by"`
	Why   string           `json:"why,omitempty"`
	All   bool             `json:"all,omitempty"`   // every host, also one that joins later
	Hosts []fettle.Subject `json:"hosts,omitempty"` // sorted
	From  time.Time        `json:"from"`
	// Until is when it closes. Zero: when somebody ends it.
	Until time.Time `json:"until,omitzero"`
	// Every is after what time it opens anew; 0: never. It is longer than the window.
	Every time.Duration `json:"every_ns,omitempty"`
}

// Check says what is wrong with a window.
func (w Window) Check() error {
	long := w.Until.Sub(w.From)
	switch {
	case w.ID == "" || w.From.IsZero():
		return fmt.Errorf("maintenance window: it has no name or no beginning")
	case w.All == (len(w.Hosts) > 0):
		return fmt.Errorf("maintenance window %s: it is either of all hosts or of some", w.ID)
	case !w.Until.IsZero() && long <= 0:
		return fmt.Errorf("maintenance window %s: it ends at %s, before it begins at %s", w.ID, w.Until.Format(time.RFC3339), w.From.Format(time.RFC3339))
	case w.Every < 0, w.Every > 0 && (w.Until.IsZero() || w.Every <= long):
		return fmt.Errorf("maintenance window %s: it would open anew before it closes", w.ID)
	}
	return nil
}

// Text says in a line what and when, in UTC.
func (w Window) Text() string {
	where := "every host"
	switch {
	case len(w.Hosts) == 1:
		where = string(w.Hosts[0])
	case !w.All:
		where = fmt.Sprintf("%d hosts", len(w.Hosts))
	}
	text := fmt.Sprintf("maintenance %s of %s from %s", w.ID, where, w.From.UTC().Format("2006-01-02 15:04 MST"))
	if w.Until.IsZero() {
		text += " until it is ended"
	} else {
		text += " for " + w.Until.Sub(w.From).String()
	}
	if w.Every > 0 {
		text += ", every " + w.Every.String()
	}
	if w.Why != "" {
		text += ": " + w.Why
	}
	return text
}

// times returns when the window opens that is open at now, or the next one, and when
// that one closes (zero: when somebody ends it); false when none is open any more.
func (w Window) times(now time.Time) (from, until time.Time, ok bool) {
	from, until = w.From, w.Until
	if until.IsZero() || now.Before(until) {
		return from, until, true
	}
	if w.Every <= 0 {
		return time.Time{}, time.Time{}, false
	}
	// The first that has not closed yet.
	later := w.Every * time.Duration(int64(now.Sub(until)/w.Every)+1)
	return from.Add(later), until.Add(later), true
}

// Open reports whether it is open, and until when: zero where somebody must end it.
func (w Window) Open(now time.Time) (until time.Time, open bool) {
	from, until, ok := w.times(now)
	if !ok || now.Before(from) {
		return time.Time{}, false
	}
	return until, true
}

// Turns returns when it next opens or closes by itself; false: never.
func (w Window) Turns(now time.Time) (time.Time, bool) {
	from, until, ok := w.times(now)
	switch {
	case !ok:
		return time.Time{}, false
	case now.Before(from):
		return from, true
	}
	return until, !until.IsZero()
}

// Over reports whether it is closed for good.
func (w Window) Over(now time.Time) bool {
	_, _, ok := w.times(now)
	return !ok
}

// Covers reports whether a host is in it, open or not.
func (w Window) Covers(host fettle.Subject) bool {
	_, found := slices.BinarySearch(w.Hosts, host)
	return w.All || found
}

// maintenance (S11): where people work, nothing new starts. What has begun goes on to
// its nearest safe point, as under a freeze.
func maintenance(q Question) fettle.Verdict {
	hosts := append(q.View.Related(q.Step.Target, ">runs-on"), q.Step.Host)
	if q.Step.Target.Kind() == fettle.KindHost {
		hosts = append(hosts, q.Step.Target)
	}
	for _, w := range q.Windows {
		until, open := w.Open(q.Now)
		i := slices.IndexFunc(hosts, w.Covers)
		switch {
		case !open || i < 0:
			continue
		case q.Undo:
			return allow("maintenance, but taking back is a release")
		case q.Begun && !afterSafePoint(q):
			return allow("maintenance, on the way to the nearest safe point")
		}
		ends := "`fettle maintenance end " + w.ID + "`"
		if !until.IsZero() {
			ends = "its end at " + until.UTC().Format("2006-01-02 15:04:05 MST") + ", or " + ends
		}
		return refuse(fmt.Sprintf("%s works on %s", w.By, hosts[i]), w.Why, ends)
	}
	return allow("nobody has said that people work there")
}

// Withdrawn are claims on the hosts on which people work: they may take away at any
// moment what runs there, so others do without it.
func Withdrawn(windows []Window, now time.Time) []fettle.Claim {
	var out []fettle.Claim
	for _, w := range windows {
		if _, open := w.Open(now); !open {
			continue
		}
		for _, h := range w.Hosts {
			out = append(out, fettle.Claim{What: fettle.TakesCapacity, Of: h, Member: h})
		}
	}
	return out
}
