package nfq

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// packetMessage is a packet as the kernel announces it: an attribute that nobody asked for, then the packet's header.
func packetMessage(id uint32) []byte {
	header := append(network.AppendUint32(nil, id), 8, 0, 0) // hw protocol, hook
	return request(7, msgPacket, 0, attribute(3, []byte{1, 2, 3, 4}), attribute(attrPacketHeader, header))
}

func answerMessage(errno unix.Errno) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN+4+unix.NLMSG_HDRLEN)
	native.PutUint32(b, uint32(len(b)))
	native.PutUint16(b[4:], unix.NLMSG_ERROR)
	native.PutUint32(b[unix.NLMSG_HDRLEN:], uint32(-int32(errno)))
	return b
}

func TestParse(t *testing.T) {
	buf := bytes.Join([][]byte{packetMessage(41), answerMessage(0), answerMessage(unix.EPERM), packetMessage(42)}, nil)
	got, err := parse(buf)
	if err != nil || len(got) != 4 {
		t.Fatalf("%d events, %v", len(got), err)
	}
	if !got[0].isPacket || got[0].packet != 41 || !got[3].isPacket || got[3].packet != 42 {
		t.Errorf("packets: %+v, %+v", got[0], got[3])
	}
	if got[1].isPacket || got[1].err != nil || !errors.Is(got[2].err, unix.EPERM) {
		t.Errorf("answers: %+v, %+v", got[1], got[2])
	}
	for cut := 1; cut < len(packetMessage(41)); cut++ {
		if _, err := parse(packetMessage(41)[:cut]); err == nil {
			t.Errorf("a message cut off after %d bytes was taken", cut)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(packetMessage(1))
	f.Add(answerMessage(unix.EPERM))
	f.Add(append(packetMessage(1), answerMessage(0)...))
	f.Add([]byte{})
	f.Add(acceptance(3, 9))
	f.Fuzz(func(t *testing.T, buf []byte) {
		events, err := parse(buf)
		if len(events) > len(buf)/unix.NLMSG_HDRLEN {
			t.Errorf("%d events of %d bytes", len(events), len(buf))
		}
		if err != nil && !errors.Is(err, errCut) {
			t.Errorf("unexpected kind of error: %v", err)
		}
	})
}

func TestHeldPacketsGoByTimeThenArrival(t *testing.T) {
	var h hold
	at := time.Unix(100, 0)
	h.add(1, at.Add(2))
	h.add(2, at.Add(1))
	h.add(3, at.Add(2))
	h.add(4, at.Add(1))
	for _, want := range []uint32{2, 4, 1, 3} {
		if got := h.next(); got != want {
			t.Errorf("packet %d, want %d", got, want)
		}
	}
}
