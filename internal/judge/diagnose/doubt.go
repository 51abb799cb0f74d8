package diagnose

import (
	"slices"

	"fettle/internal/fettle"
)

// watch judges the observers: who looks at what away from its own machine, and
// whether it is ill itself rather than all that it sees.
//
// An observer is a host. To it, a thing seems dead if it did not answer, if the
// probe was cut off or failed, or if a critical condition of it rests on this
// observer's word. Others confirm that if more of the hosts that looked from
// elsewhere say so than deny it. Things on the observer's own machine are left
// out: no one else can look at them, and to see them needs no network.
type watch struct {
	weights Weights
	ids     map[fettle.Subject]int32
	hosts   []observer
	flipped []int32        // hosts whose figures changed
	doubts  map[int32]bool // nodes that are raised on the word of ill observers alone
}

// observer is one host's figures.
type observer struct {
	host   fettle.Subject
	root   string
	looked int // things elsewhere that it has something to say about
	alone  int // of these, how many seem dead to it and nobody else confirms it
	ill    bool
	queued bool
}

// look is what one host sees of one subject.
type look struct {
	host  int32
	sees  sight
	alone bool
}

// sight is what a look shows. Only gone and well are words about the subject.
type sight int8

const (
	nothing sight = iota
	mute          // the observer got no answer out of its own probe
	well
	gone // it did not answer, or a critical condition was seen
)

// host returns the number of an observer. guess is who it probably is, and is
// kept right.
func (w *watch) host(s fettle.Subject, guess *int32) int32 {
	if int(*guess) < len(w.hosts) && w.hosts[*guess].host == s {
		return *guess
	}
	id, ok := w.ids[s]
	if !ok {
		id = int32(len(w.hosts))
		w.ids[s] = id
		w.hosts = append(w.hosts, observer{host: s, root: rootText(s)})
	}
	*guess = id
	return id
}

// noteAllLooks takes over who sees what of the subjects that were read.
func (d *Diagnoser) noteAllLooks() {
	sights := d.in.sights
	slices.SortFunc(sights, func(a, b sighting) int { return int(a.subj - b.subj) })
	for len(sights) > 0 {
		end := 1
		for end < len(sights) && sights[end].subj == sights[0].subj {
			end++
		}
		d.noteLooks(sights[0].subj, sights[:end])
		sights = sights[end:]
	}
	slices.Sort(d.in.read)
	sights = d.in.sights
	for _, id := range d.in.read { // those that nobody sees any more
		for len(sights) > 0 && sights[0].subj < id {
			sights = sights[1:]
		}
		if len(sights) == 0 || sights[0].subj != id {
			d.noteLooks(id, nil)
		}
	}
}

// noteLooks notes who sees what of a subject from elsewhere.
func (d *Diagnoser) noteLooks(id int32, sights []sighting) {
	looks := d.looks[:0]
	for _, l := range sights {
		if d.standsOn(id, d.watch.hosts[l.host].root) {
			continue
		}
		if i := slices.IndexFunc(looks, func(m look) bool { return m.host == l.host }); i >= 0 {
			looks[i].sees = max(looks[i].sees, l.sees)
		} else {
			looks = append(looks, look{host: l.host, sees: l.sees})
		}
	}
	d.looks = looks
	weigh(looks)
	slices.SortFunc(looks, func(a, b look) int { return int(a.host - b.host) })
	if slices.Equal(looks, d.subjects[id].looks) {
		return
	}
	d.watch.tally(d.subjects[id].looks, -1)
	d.watch.tally(looks, 1)
	d.subjects[id].looks = append(carve(&d.lookRoom, len(looks)), looks...)
}

func sightOf(r fettle.Reason) sight {
	switch r {
	case "":
		return well
	case fettle.Unreachable:
		return gone
	case fettle.TimedOut, fettle.Failed:
		return mute
	default:
		return nothing // it may not look, or cannot: that is no sign of anything
	}
}

// weigh finds who is alone with seeing one subject dead.
func weigh(looks []look) {
	balance := 0
	for _, l := range looks {
		switch l.sees {
		case gone:
			balance++
		case well:
			balance--
		case mute, nothing: // no word about the subject
		}
	}
	for i := range looks {
		switch looks[i].sees {
		case gone:
			looks[i].alone = balance-1 <= 0
		case mute:
			looks[i].alone = balance <= 0
		case well, nothing:
		}
	}
}

func (w *watch) tally(looks []look, sign int) {
	for _, l := range looks {
		h := &w.hosts[l.host]
		if l.sees != nothing {
			h.looked += sign
		}
		if l.alone {
			h.alone += sign
		}
		if !h.queued {
			h.queued = true
			w.flipped = append(w.flipped, l.host)
		}
	}
}

// settle judges the observers whose figures changed, and reports whether any of
// them turned ill or well, and whether the figures of an ill one changed.
func (w *watch) settle() (turned, shown bool) {
	for _, id := range w.flipped {
		h := &w.hosts[id]
		h.queued = false
		ill := h.alone >= w.weights.DoubtLeast && h.alone*1000 > w.weights.DoubtPermille*h.looked
		turned = turned || ill != h.ill
		shown = shown || ill || h.ill
		h.ill = ill
	}
	w.flipped = w.flipped[:0]
	return turned, shown
}

// doubted reports whether a raised condition of a subject rests on nothing but
// the word of ill observers on other machines.
func (d *Diagnoser) doubted(subj int32, yes []int32) bool {
	for _, h := range yes {
		if o := &d.watch.hosts[h]; !o.ill || d.standsOn(subj, o.root) {
			return false
		}
	}
	return len(yes) > 0
}

// note keeps the list of doubted conditions and reports whether what it shows
// changed.
func (w *watch) note(n int32, doubted bool, old, now []int32) bool {
	was := w.doubts[n]
	switch {
	case doubted:
		w.doubts[n] = true
	case was:
		delete(w.doubts, n)
	}
	return was != doubted || doubted && !slices.Equal(old, now)
}
