package journal

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

type stepClock struct{ now time.Time }

func (c *stepClock) Now() time.Time { return c.now }

// TestFullDisk fills the disk under a journal, uses the reserve up, and frees
// the disk again.
func TestFullDisk(t *testing.T) {
	d := newDisk(nil)
	clock := &stepClock{now: time.Unix(1700000000, 0)}
	j, err := open(t.Context(), d, "full", Options{Reserve: MinReserve, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	d.limit = int64(len(d.data)) // not a byte more from now on
	room := j.Room()
	if room.Left < MinReserve || !room.Firm || room.Short() {
		t.Fatalf("room %+v", room)
	}
	n := 0
	for ; ; n++ {
		_, err := j.Append("a", testNote{N: n, Text: strings.Repeat("x", 500)})
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !j.Room().Short() {
			t.Fatal("using the reserve is not reported")
		}
	}
	if n < 20 {
		t.Fatalf("only %d records found room in a reserve of %d bytes", n, MinReserve)
	}
	if _, err := j.Append("a", testNote{N: n}); err != nil && !errors.Is(err, ErrFull) {
		t.Fatal(err)
	} else if err == nil {
		n++
	}
	again := mustOpen(t, newDisk(d.data)) // a full journal opens, too
	checkCount(t, notes(t, again), n)

	d.limit = 0
	if r := j.Refill(); r.Short() {
		t.Fatalf("after space was freed: %+v", r)
	}
	mustAppend(t, j, n)
	checkCount(t, notes(t, j), n+1)
}

// TestRefillIsTriedAgain lets appends, not Refill, find the freed space.
func TestRefillIsTriedAgain(t *testing.T) {
	d := newDisk(nil)
	clock := &stepClock{now: time.Unix(1700000000, 0)}
	j, err := open(context.Background(), d, "full", Options{Reserve: MinReserve, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	d.limit = int64(len(d.data))
	mustAppend(t, j, 0)
	d.limit = 0
	mustAppend(t, j, 1)
	if !j.Room().Short() {
		t.Fatal("asked the file system again at once")
	}
	clock.now = clock.now.Add(refillPause)
	mustAppend(t, j, 2)
	if j.Room().Short() {
		t.Fatal("not refilled although there is room again")
	}
}
