package wire

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"fettle/internal/fettle"
)

// TestClocksNeverMakeFresher: over networks with any delays, jitter and queues,
// and clocks that drift, a time of the peer is never placed later than it was,
// nor a deadline given to it later than was meant.
func TestClocksNeverMakeFresher(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		base := time.Unix(1_800_000_000, 0)
		offset := time.Duration(r.Int64N(int64(48*time.Hour))) - 24*time.Hour // theirs = ours − offset
		quick := time.Duration(r.Int64N(int64(50 * time.Millisecond)))
		delay := func() time.Duration { // the way, either way
			d := quick + time.Duration(r.Int64N(int64(20*time.Millisecond)))
			if r.IntN(5) == 0 {
				d += time.Duration(r.Int64N(int64(5 * time.Second))) // a queue
			}
			return d
		}
		theirs := func(t time.Time) int64 { return t.Add(-offset).UnixNano() }
		var c Clocks
		at := base
		for range 300 {
			at = at.Add(time.Duration(r.Int64N(int64(2 * time.Second))))
			there, back := delay(), delay()
			arrived := at.Add(back)
			c.Answered(arrived, there+back)
			c.Heard(arrived, theirs(at))
			asked := at.Add(-time.Duration(r.Int64N(int64(time.Minute))))
			if got := c.Ours(theirs(asked)); got.After(asked) {
				t.Fatalf("seed %d: asked %v is placed at %v, %v too fresh", seed, asked, got, got.Sub(asked))
			} else if late := asked.Sub(got); late > 2*quick+6*time.Second {
				t.Fatalf("seed %d: asked %v is placed %v too old", seed, asked, late)
			}
			deadline := arrived.Add(3 * time.Second)
			if got := c.Theirs(deadline); got.UnixNano() > theirs(deadline) {
				t.Fatalf("seed %d: a deadline is %v too late", seed, time.Duration(got.UnixNano()-theirs(deadline)))
			}
		}
	}
}

// TestClocksFollowDrift: a best sample of long ago does not hold for ever.
func TestClocksFollowDrift(t *testing.T) {
	var c Clocks
	at := time.Unix(1_800_000_000, 0)
	const way = time.Millisecond
	for i := range 600 { // the peer loses half a millisecond a second
		at = at.Add(time.Second)
		theirs := at.Add(-time.Duration(i) * 500 * time.Microsecond).UnixNano()
		c.Answered(at, 2*way)
		c.Heard(at.Add(way), theirs)
		got := c.Ours(theirs)
		if off := at.Sub(got); off < 0 || off > 2*way+2*clockWindow/2000 {
			t.Fatalf("after %d s: placed %v before it was", i, off)
		}
	}
	if got := c.RoundTrip(); got != 2*way {
		t.Errorf("round trip %v, want %v", got, 2*way)
	}
}

func TestShiftKeepsNever(t *testing.T) {
	var c Clocks
	c.Heard(time.Unix(100, 0), 0)
	if !c.Shift(time.Time{}).IsZero() {
		t.Error("never became a time")
	}
	if got := c.Shift(time.Unix(5, 0)); !got.Equal(time.Unix(105, 0)) {
		t.Errorf("got %v", got)
	}
}

func TestCheckSchema(t *testing.T) {
	for _, good := range []int32{Oldest, Schema, Schema + 7} {
		if err := CheckSchema(good); err != nil {
			t.Error(err)
		}
	}
	if err := CheckSchema(Oldest - 1); err == nil || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("got %v, want an error with a hint", err)
	}
}

func TestPack(t *testing.T) {
	o := fettle.Observation{Subject: "host:h1", Probe: "p", Facts: fettle.Facts{"n": int64(1), "l": []string{"a"}}}
	data, err := Pack(o)
	if err != nil {
		t.Fatal(err)
	}
	newer := []byte(strings.Replace(string(data), "{", `{"from_the_future":{"a":1.5},`, 1))
	got, err := Unpack[fettle.Observation](newer)
	if err != nil || !got.Facts.Equal(o.Facts) || got.Subject != o.Subject {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := Pack(strings.Repeat("x", MaxItem)); err == nil {
		t.Error("too large, and packed")
	}
	if _, err := Unpack[string](make([]byte, MaxItem+1)); err == nil {
		t.Error("too large, and unpacked")
	}
}

// FuzzSession: whatever a peer sends is refused or read, never a panic.
func FuzzSession(f *testing.F) {
	seed := func(m *SessionRequest) {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	seed(&SessionRequest{NowNs: 1, What: &SessionRequest_Hello{Hello: &Hello{Schema: 1, Host: "host:h"}}})
	seed(&SessionRequest{What: &SessionRequest_Report{Report: &Report{Observations: []*Observation{{Json: []byte(`{"subject":"host:h","facts":{"a":1}}`), AgeNs: 5}}}}})
	seed(&SessionRequest{What: &SessionRequest_Outcome{Outcome: &Outcome{Json: []byte(`{"fate":"done"}`)}}})
	f.Fuzz(func(t *testing.T, data []byte) {
		var m SessionRequest
		if proto.Unmarshal(data, &m) != nil {
			return
		}
		for _, o := range m.GetReport().GetObservations() {
			if got, err := Unpack[fettle.Observation](o.GetJson()); err == nil && got.Facts.Validate() != nil {
				t.Errorf("took facts that are none: %v", got.Facts)
			}
		}
		if _, err := Unpack[fettle.Outcome](m.GetOutcome().GetJson()); err == nil && m.GetOutcome() == nil {
			t.Error("no outcome was read as one")
		}
	})
}
