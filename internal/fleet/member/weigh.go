package member

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// weighed is the evidence about one host, sorted into what Judge decides by.
type weighed struct {
	now   time.Time
	rules Rules
	host  string
	notes []string // what was seen and did not decide

	powerOff string // "" unless seen off, freshly
	powerAt  time.Time

	// The latest sign of life of the kernel, of the agent, and of a service.
	lifeAt, agentAt, servedAt    time.Time
	lifeWhy, agentWhy, servedWhy string
	// The stream has been silent since for a whole window: whatever an ill judge's
	// silence is worth, what was heard before is no life now.
	lapsed bool

	// The agent's end, as its kernel told it.
	agentGone string
	goneAt    time.Time
	// What the agent's own port does while nobody behind it answers.
	agentPort string

	hungWhy string
	silence []string // each kind of witness that heard nothing for a whole window
}

// weigh sorts the evidence. It goes over it twice: a silence counts only as far as it
// lasted after the latest sign of life, whoever had that.
func weigh(now time.Time, e Evidence, rules Rules, ill map[string]string) *weighed {
	w := &weighed{now: now, rules: rules, host: e.Host}
	if e.Power.On == No && w.fresh(e.Power.At) {
		w.powerOff, w.powerAt = fmt.Sprintf("its BMC says that the power is off (%s)", w.ago(e.Power.At)), e.Power.At
	}
	w.signsOfLife(e)
	window := e.Window
	if window <= 0 {
		window = rules.Window
	}
	// lasted says whether a silence since then, last found at then, is long enough after
	// the latest sign of life. One that says that it was found later than now, by a clock
	// that is ahead, has lasted until now and no longer.
	lasts := func(since, at time.Time, long time.Duration) bool {
		if at.After(now) {
			at = now
		}
		return w.fresh(at) && at.Sub(later(since, w.lifeAt)) >= long
	}
	lasted := func(since, at time.Time) bool { return lasts(since, at, window) }
	w.lapsed = e.Stream.State == StreamSilent && e.Stream.At.Sub(later(e.Stream.Since, w.agentAt)) >= window
	_, judgeIll := ill[""]
	peers := w.peersSilent(e, ill, func(s Sighting) bool { return lasts(s.Since, s.At, cmp.Or(max(s.Window, 0), window)) })
	servers := ""
	if !judgeIll {
		servers = w.serversSilent(e, lasts, window)
	}
	services := w.servicesSilent(e, lasted)
	for _, kind := range []string{peers, servers, services} {
		if kind != "" {
			w.silence = append(w.silence, kind)
		}
	}
	w.lookForHang(e, ill, window)
	return w
}

func (w *weighed) fresh(at time.Time) bool { return !at.IsZero() && w.now.Sub(at) <= w.rules.Fresh }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (w *weighed) silentKinds() []string { return w.silence }

func (w *weighed) hung() bool { return w.hungWhy != "" }

// servedAfterAgent says whether a service was reached after the agent was last heard.
func (w *weighed) servedAfterAgent() bool {
	return w.servedWhy != "" && w.servedAt.After(w.agentAt)
}

// signsOfLife finds the latest of each sort. An ill observer's count too: it heard them.
func (w *weighed) signsOfLife(e Evidence) {
	alive := func(at time.Time, why string) {
		// Of two at the same time the text decides, so that no order shows.
		if w.fresh(at) && (at.After(w.lifeAt) || at.Equal(w.lifeAt) && why < w.lifeWhy) {
			w.lifeAt, w.lifeWhy = at, why
		}
	}
	agent := func(at time.Time, why string) {
		alive(at, why)
		if w.fresh(at) && (at.After(w.agentAt) || at.Equal(w.agentAt) && why < w.agentWhy) {
			w.agentAt, w.agentWhy = at, why
		}
	}
	gone := func(at time.Time, why string) {
		alive(at, why)
		if w.fresh(at) && (at.After(w.goneAt) || at.Equal(w.goneAt) && why < w.agentGone) {
			w.goneAt, w.agentGone = at, why
		}
	}
	switch s := e.Stream; s.State {
	case StreamHeard:
		agent(s.At, fmt.Sprintf("its agent's stream was heard %s", w.ago(s.At)))
	case StreamEnded:
		gone(s.Since, fmt.Sprintf("its kernel ended the agent's stream %s: the agent is gone, the host was there", w.ago(s.Since)))
	case StreamLeft:
		gone(s.Since, fmt.Sprintf("its agent took its leave %s", w.ago(s.Since)))
	case StreamSilent:
		// It was heard until then, which orders it against what others heard.
		agent(s.Since, fmt.Sprintf("its agent's stream was last heard %s", w.ago(s.Since)))
	case StreamNever:
	}
	for _, s := range e.Peers {
		switch s.Saw {
		case SawAnswer:
			agent(s.At, fmt.Sprintf("its agent answered %s %s", s.By, w.ago(s.At)))
		case SawRefusal:
			gone(s.At, fmt.Sprintf("its kernel refused %s a connection to the agent %s", s.By, w.ago(s.At)))
		case SawAccept:
			alive(s.At, fmt.Sprintf("its kernel took a connection of %s %s", s.By, w.ago(s.At)))
		case SawSilence, SawNothing:
		}
	}
	for _, s := range e.Services {
		if s.Reaches != Yes {
			continue
		}
		why := fmt.Sprintf("%s answered %s %s", s.Service, s.By, w.ago(s.At))
		alive(s.At, why)
		if w.fresh(s.At) && (s.At.After(w.servedAt) || s.At.Equal(w.servedAt) && why < w.servedWhy) {
			w.servedAt, w.servedWhy = s.At, why
		}
	}
	switch {
	case e.Kernel.Answers == Yes && e.Kernel.Refuses:
		gone(e.Kernel.At, fmt.Sprintf("its kernel refused a server a connection to the agent %s", w.ago(e.Kernel.At)))
	case e.Kernel.Answers == Yes:
		alive(e.Kernel.At, fmt.Sprintf("its kernel answered a server %s", w.ago(e.Kernel.At)))
	}
}

// vote is what the observers of one kind say, by failure domain.
type vote struct {
	domains map[string]bool // known ones, and whether any observer there heard nothing
	heads   int
	silent  int
}

func (v *vote) add(domain string, silent bool) {
	if v.domains == nil {
		v.domains = map[string]bool{}
	}
	v.heads++
	v.domains[domain] = v.domains[domain] || silent
	if silent {
		v.silent++
	}
}

// carried says whether the silence is a witness: a majority of the failure domains,
// and at least min of them. Where all observers stand in one domain, or nobody said
// where they stand, a majority of heads, two at least where there are two; it is a
// weak witness, and never the only one.
func (v *vote) carried(least int) (text string, ok bool) {
	domains := len(v.domains)
	if domains < least {
		ok = 2*v.silent > v.heads && v.silent >= min(2, v.heads) && v.silent > 0
		return fmt.Sprintf("%d of %d observers, whose failure domains are too few or unknown", v.silent, v.heads), ok
	}
	silent := 0
	for _, heard := range v.domains { // any order: they are counted
		if heard {
			silent++
		}
	}
	return fmt.Sprintf("%d of %d failure domains (%d of %d observers)", silent, domains, v.silent, v.heads), 2*silent > domains && silent >= least
}

// peersSilent is what the peers' silence says, "" if it is no witness.
func (w *weighed) peersSilent(e Evidence, ill map[string]string, lasted func(Sighting) bool) string {
	var v vote
	doubted, unheard := 0, 0
	for _, s := range e.Peers {
		_, isIll := ill[s.By]
		if s.Saw == SawSilence && w.fresh(s.At) {
			unheard++
			if isIll {
				doubted++
			}
		}
		v.add(s.Domain, s.Saw == SawSilence && !isIll && lasted(s))
	}
	if doubted > 0 {
		w.notes = append(w.notes, fmt.Sprintf("%d observers that doubt themselves are not counted", doubted))
	}
	if text, ok := v.carried(w.rules.MinDomains); ok {
		return "its peers hear nothing from it: " + text
	}
	if unheard > 0 {
		w.notes = append(w.notes, fmt.Sprintf("%d of its %d peers hear nothing from it", unheard, len(e.Peers)))
	}
	return ""
}

// serversSilent is what the servers themselves do not hear: the stream, and answers of
// the kernel. Both go over the servers' own network, so they are one kind.
func (w *weighed) serversSilent(e Evidence, lasts func(since, at time.Time, long time.Duration) bool, window time.Duration) string {
	stream := e.Stream.State == StreamSilent && lasts(e.Stream.Since, e.Stream.At, window)
	kernel := e.Kernel.Answers == No && lasts(e.Kernel.Since, e.Kernel.At, cmp.Or(max(e.Kernel.Window, 0), window))
	switch {
	case stream && kernel:
		return fmt.Sprintf("the servers hear nothing from its agent since %s, nor from its kernel", w.ago(e.Stream.Since))
	case stream:
		return fmt.Sprintf("the servers hear nothing from its agent since %s", w.ago(e.Stream.Since))
	case kernel:
		return fmt.Sprintf("its kernel answers no server since %s", w.ago(e.Kernel.Since))
	}
	return ""
}

// servicesSilent is what the peers of its services say.
func (w *weighed) servicesSilent(e Evidence, lasted func(since, at time.Time) bool) string {
	var v vote
	for _, s := range e.Services {
		v.add(s.Domain, s.Reaches == No && lasted(s.Since, s.At))
	}
	if text, ok := v.carried(w.rules.MinDomains); ok {
		return "its services' peers do not reach it: " + text
	}
	return ""
}

// lookForHang finds a kernel that answers after the agent fell silent. It takes two
// observations: the agent's silence at the servers with an answer of the kernel to
// anybody, or enough peers, two at least, whose connections were taken for a while and
// not answered. A stream that stalls while none of the peers that look at the host misses
// it is the network's: TCP waits for seconds where packets are lost (RFC 6298), and the
// peers ask by packet.
func (w *weighed) lookForHang(e Evidence, ill map[string]string, window time.Duration) {
	var taken vote
	var last time.Time
	window = max(window, w.rules.Hang)
	missed := len(e.Peers) == 0
	for _, s := range e.Peers {
		accepted := s.Saw == SawAccept && w.fresh(s.At) && s.At.After(w.agentAt)
		if accepted && s.At.After(last) {
			last = s.At
		}
		taken.add(s.Domain, accepted && s.At.Sub(later(s.Since, w.agentAt)) >= window)
		missed = missed || (s.Saw == SawAccept || s.Saw == SawSilence) && w.fresh(s.At) && s.At.After(w.agentAt)
	}
	if !last.IsZero() {
		w.agentPort = fmt.Sprintf("its kernel takes connections to the agent, last %s, and nobody answers", w.ago(last))
	}
	if w.servedAfterAgent() || w.goneAt.After(w.agentAt) {
		return // something on it works, or the agent has ended
	}
	_, judgeIll := ill[""]
	silent := missed && e.Stream.State == StreamSilent && w.fresh(e.Stream.At) && !judgeIll &&
		w.now.Sub(w.agentAt) >= window && e.Stream.At.Sub(e.Stream.Since) >= window
	text, peers := taken.carried(w.rules.MinDomains)
	switch {
	case peers && taken.silent > 1:
		w.hungWhy = "its kernel takes connections and nothing answers: " + text
	case silent && !last.IsZero():
		w.hungWhy = fmt.Sprintf("its agent is silent since %s, while its kernel takes connections, last %s", w.ago(e.Stream.Since), w.ago(last))
	case silent && e.Kernel.Answers == Yes && w.fresh(e.Kernel.At) && e.Kernel.At.After(w.agentAt):
		w.hungWhy = fmt.Sprintf("its agent is silent since %s, while its kernel answered %s", w.ago(e.Stream.Since), w.ago(e.Kernel.At))
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
