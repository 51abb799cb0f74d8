package condition

import (
	"container/heap"
	"time"
)

// agenda holds the conditions that must be judged again at a known time, the
// earliest first. Each is in it at most once.
type agenda []*record

// set puts r on the agenda for a time, moves it there, or, for the zero time,
// takes it off.
func (a *agenda) set(r *record, at time.Time) {
	switch {
	case at.IsZero() && r.place < 0:
	case at.IsZero():
		heap.Remove(a, r.place)
	case r.place < 0:
		r.due = at
		heap.Push(a, r)
	default:
		r.due = at
		heap.Fix(a, r.place)
	}
}

// The methods of heap.Interface; nobody else calls them. Ties are left to the
// heap: what is due together is judged in the order of its keys.

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].due.Before(a[j].due) }
func (a agenda) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].place, a[j].place = i, j
}

func (a *agenda) Push(x any) {
	r := x.(*record)
	r.place = len(*a)
	*a = append(*a, r)
}

func (a *agenda) Pop() any {
	r := (*a)[len(*a)-1]
	(*a)[len(*a)-1] = nil
	*a = (*a)[:len(*a)-1]
	r.place = -1
	return r
}

// earliest returns the earlier of two times, of which zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
