package store

import (
	"fmt"
	"sync"

	"fettle/internal/loop"
)

// urgencyOf a change says how far it may use the reserve.
type urgencyOf int

const (
	ordinary urgencyOf = iota // text: entries, incidents, stories. Not at all
	intends                   // a step is to begin. As long as what it will lead to has room too
	urgent                    // an outcome, a freeze, a window of maintenance. All of it
)

// urgency sorts a change. What ends something is urgent; what begins something must leave
// room for its end.
func urgency(t loop.Txn) urgencyOf {
	switch {
	case t.Freeze != nil, t.Thaw, t.Windows != nil, len(t.Settled) > 0 && len(t.Intents) == 0:
		return urgent
	case len(t.Intents) > 0:
		return intends
	}
	return ordinary
}

// What part of the reserve an intent leaves to what is urgent; and what part of the file
// above its room may be there, as free pages, before it is defragmented.
const (
	intentLeaves  = 2
	filePart      = 2
	tightPart     = 2  // tight: half of the room is in use, and more goes to files
	fillingTenths = 8  // filling: eight tenths of it, although more goes to files
	roomTenths    = 10 // of the whole room
)

// sized is what says how large etcd's file is here (backend.Backend). Both may be asked at
// any time and do not block.
type sized interface {
	Size() int64
	SizeInUse() int64
}

// room says what there is room for. The fullest member of the store counts: its quota ends
// writes for all.
type room struct {
	limits  Limits
	own     sized
	outside bool // the file is not Fettle's: only what is in use counts

	mu     sync.Mutex
	others size   // the largest of the other members', as they told
	alarm  string // etcd takes no writes: why
}

// size is of a member's file, in bytes.
type size struct {
	InUse int64 `json:"in_use"`
	File  int64 `json:"file"`
}

func (r *room) told(others size, alarm string) {
	r.mu.Lock()
	r.others, r.alarm = others, alarm
	r.mu.Unlock()
}

// now is the size of the fullest member, and the alarm.
func (r *room) now() (size, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return size{max(r.own.SizeInUse(), r.others.InUse), max(r.own.Size(), r.others.File)}, r.alarm
}

// ordinary is how many bytes everything may take before the reserve begins.
func (r *room) ordinary() int64 { return r.limits.Quota - r.limits.Reserve }

// admit refuses a change for which there is no room. It wraps loop.ErrFull.
func (r *room) admit(u urgencyOf, bytes int) error {
	if u == urgent {
		return nil // etcd itself says when its file is full
	}
	now, _ := r.now()
	inUse, file := r.ordinary(), r.limits.Quota-r.limits.Reserve/filePart
	if u == intends {
		inUse, file = r.limits.Quota-r.limits.Reserve/intentLeaves, r.limits.Quota-r.limits.Reserve/(2*filePart)
	}
	if now.InUse+int64(bytes) <= inUse && now.File+int64(bytes) <= file {
		return nil
	}
	return fmt.Errorf("%w: %s, and this may use %s of them: %s (see `fettle status`; start `fettle server` with a larger --store-quota)",
		loop.ErrFull, r.text(now), Bytes(inUse), map[urgencyOf]string{ordinary: "the rest is kept for steps under way, outcomes and a freeze", intends: "the rest is kept for what steps under way lead to, and for a freeze"}[u])
}

func (r *room) text(now size) string {
	if r.outside {
		return fmt.Sprintf("the fleet's keys take %s of the %s that they may", Bytes(now.InUse), Bytes(r.limits.Quota))
	}
	return fmt.Sprintf("%s of %s are in use, in a file of %s", Bytes(now.InUse), Bytes(r.limits.Quota), Bytes(now.File))
}

// tight reports whether more should go to files than usual.
func (r *room) tight() bool {
	now, alarm := r.now()
	return alarm != "" || now.InUse > r.ordinary()/tightPart
}

// state is what is told of the room: "", "filling" or "full", and why.
func (r *room) state() (state, why string) {
	now, alarm := r.now()
	switch {
	case alarm != "":
		return Full, alarm
	case r.admit(ordinary, 0) != nil:
		return Full, r.text(now) + "; incidents and the text of the log are not kept, and new repairs begin only while there is room for their ends"
	case now.InUse > r.ordinary()/roomTenths*fillingTenths:
		return Filling, fmt.Sprintf("%s; ordinary writes end at %s", r.text(now), Bytes(r.ordinary()))
	}
	return "", ""
}

// The states of the room.
const (
	Filling = "filling"
	Full    = "full"
)

// Bytes is a number of bytes for people.
func Bytes(n int64) string {
	const unit = 1 << 10
	for _, u := range []string{"B", "KiB", "MiB"} {
		if n < 10*unit {
			return fmt.Sprintf("%d %s", n, u)
		}
		n /= unit
	}
	return fmt.Sprintf("%d GiB", n)
}
