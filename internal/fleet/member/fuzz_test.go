package member

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func FuzzLabel(f *testing.F) {
	whole := Label{Host: "k3jx", Zone: "z1", Rack: "r1", Incarnation: "7f", BootID: "b-1"}.wire()
	whole.Beat, whole.Leaving = 77, true
	seed, err := whole.write()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"v":1,"h":"a","what a newer one has":[1,2]}`))
	f.Add([]byte(`{"v":1,"h":"a/b"}`))
	f.Add([]byte(`{"v":0,"h":"a"}`))
	f.Add([]byte("{\"v\":1,\"h\":\"a\\u0007\"}"))
	f.Add(bytes.Repeat([]byte("x"), LabelMax+1))
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := parseLabel(data)
		if err != nil {
			return
		}
		if w.Host == "" || strings.ContainsAny(w.Host+w.Zone+w.Rack+w.Incarnation+w.BootID, "\x00\n\x1b") || len(w.Host) > fieldMax {
			t.Fatalf("taken: %q", data)
		}
		written, err := w.write()
		if err != nil {
			return // escaping may make it longer than it was
		}
		w.Version = 1
		again, err := parseLabel(written)
		if again.Version = 1; err != nil || again != w {
			t.Fatalf("%+v, written and read: %+v, %v", w, again, err)
		}
	})
}

func FuzzMessage(f *testing.F) {
	for _, m := range []message{
		{kind: askMessage, stream: true, number: 1 << 63, from: "k3jx"},
		{kind: hereMessage, number: 7, delay: 3 * time.Millisecond, from: "a"},
		{kind: heardMessage, number: 7, from: strings.Repeat("h", fieldMax)},
	} {
		f.Add(m.write())
	}
	f.Add([]byte{})
	f.Add([]byte("\x02\x01\x00aaaaaaaaaaaaaaa"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMessage(data)
		if err == nil && !bytes.Equal(m.write(), data) {
			t.Fatalf("%+v, read from %x, is written %x", m, data, m.write())
		}
	})
}

func FuzzCoordinate(f *testing.F) {
	own, err := newCoordinates()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own.payload(5 * time.Millisecond))
	f.Add(bytes.Repeat([]byte{0xff}, coordinateSize))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, data []byte) {
		at, _, err := parseCoordinate(data)
		if err != nil {
			return
		}
		// Whatever is taken must not break what is estimated from it.
		c, err := newCoordinates()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b", "a"} {
			if err := c.met(name, at, time.Millisecond); err != nil {
				return
			}
		}
		for _, pair := range [][2]string{{"me", "a"}, {"a", "b"}, {"me", "me"}} {
			if rtt, ok := c.between("me", pair[0], pair[1]); !ok || rtt < 0 || rtt > 10*time.Minute {
				t.Fatalf("round trip between %s and %s: %s, %v", pair[0], pair[1], rtt, ok)
			}
		}
	})
}
