package executor

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

func FuzzFrame(f *testing.F) {
	var good bytes.Buffer
	if err := writeFrame(&good, request{Schema: 1, ID: 7, Method: do, Arg: json.RawMessage(`{"body":"e30="}`)}); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		var r request
		if readFrame(bytes.NewReader(data), &r) != nil {
			return
		}
		var again bytes.Buffer
		if err := writeFrame(&again, r); err != nil {
			t.Fatal(err)
		}
		var back request
		if err := readFrame(&again, &back); err != nil || back.ID != r.ID || back.Method != r.Method {
			t.Errorf("%+v became %+v, %v", r, back, err)
		}
	})
}

func FuzzPin(f *testing.F) {
	f.Add([]byte(`{"schema":1,"fleet":"k5w","host":"host:h1","authorities":["AAAA"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, trust, err := parsePin(data); err == nil && (trust == nil || p.Fleet == "" || p.Host == "") {
			t.Errorf("%+v", p)
		}
	})
}

func FuzzNonce(f *testing.F) {
	n := newNonces()
	now := time.Unix(1_800_000_000, 0)
	f.Add(n.make(now))
	f.Add("a.b")
	good := n.make(now)
	f.Fuzz(func(t *testing.T, text string) {
		if made, err := n.made(text, now); err == nil && (text != good && text != n.make(made)) {
			t.Errorf("%q was never made", text)
		}
	})
}
