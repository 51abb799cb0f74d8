package member

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// What nodes say to each other besides memberlist's own messages. They go to one
// member, never to all: broadcasts of users starve in large rings
// (hashicorp/memberlist#299), and gossip says what others said.
//
// A message is: version (1), kind (1), flags (1), number (8, big endian), delay in
// microseconds (4, big endian), the sender's name. What a newer version appends it
// must mark by another version.
type message struct {
	kind   messageKind
	stream bool   // an ask that wants its answer by connection too
	number uint64 // ask, here: the question; heard: the beat
	delay  time.Duration
	from   string
}

type messageKind uint8

const (
	askMessage   messageKind = 1 // are you there?
	hereMessage  messageKind = 2 // I am; delay is the sender's scheduling delay
	heardMessage messageKind = 3 // the news of your beat has reached me
)

const (
	messageVersion = 1
	messageHead    = 15
	flagStream     = 1
)

func (m message) write() []byte {
	data := make([]byte, messageHead, messageHead+len(m.from))
	data[0], data[1] = messageVersion, byte(m.kind)
	if m.stream {
		data[2] = flagStream
	}
	binary.BigEndian.PutUint64(data[3:], m.number)
	binary.BigEndian.PutUint32(data[11:], microseconds(m.delay))
	return append(data, m.from...)
}

// parseMessage reads one. It takes any bytes.
func parseMessage(data []byte) (message, error) {
	switch {
	case len(data) <= messageHead || len(data) > messageHead+fieldMax:
		return message{}, fmt.Errorf("message of %d bytes", len(data))
	case data[0] != messageVersion:
		return message{}, fmt.Errorf("message of version %d, this one speaks %d", data[0], messageVersion)
	case data[1] < byte(askMessage) || data[1] > byte(heardMessage):
		return message{}, fmt.Errorf("message of unknown kind %d", data[1])
	case data[2] > flagStream:
		return message{}, errors.New("message with unknown flags")
	}
	return message{
		kind:   messageKind(data[1]),
		stream: data[2] == flagStream,
		number: binary.BigEndian.Uint64(data[3:]),
		delay:  time.Duration(binary.BigEndian.Uint32(data[11:])) * time.Microsecond,
		from:   string(data[messageHead:]),
	}, nil
}

// microseconds is d as it travels: cut at what fits, over an hour.
func microseconds(d time.Duration) uint32 {
	return uint32(min(max(d.Microseconds(), 0), 1<<32-1))
}
