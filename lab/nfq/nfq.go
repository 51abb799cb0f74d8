// Package nfq holds back the packets that netfilter hands over through an NFQUEUE target, each for a time of its own, and
// then lets them go on. It speaks raw netlink (nfnetlink_queue; linux/netfilter/nfnetlink_queue.h), because the kernels that
// the lab meets have no netem.
//
// It fails open: with the target's --queue-bypass, packets pass at once when nobody listens, and a full queue accepts
// what it cannot hold. It never drops or changes a packet, and sees only their numbers, not their content.
package nfq

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Message types within NFNL_SUBSYS_QUEUE, and attributes.
const (
	subsystem  = 3 // NFNL_SUBSYS_QUEUE
	msgPacket  = 0 // NFQNL_MSG_PACKET
	msgVerdict = 1 // NFQNL_MSG_VERDICT
	msgConfig  = 2 // NFQNL_MSG_CONFIG

	attrPacketHeader  = 1 // NFQA_PACKET_HDR
	attrVerdictHeader = 2 // NFQA_VERDICT_HDR

	configCommand = 1 // NFQA_CFG_CMD
	configParams  = 2 // NFQA_CFG_PARAMS
	configLength  = 3 // NFQA_CFG_QUEUE_MAXLEN
	configMask    = 4 // NFQA_CFG_MASK
	configFlags   = 5 // NFQA_CFG_FLAGS

	commandBind  = 1 // NFQNL_CFG_CMD_BIND
	copyMeta     = 1 // NFQNL_COPY_META
	flagFailOpen = 1 // NFQA_CFG_F_FAIL_OPEN
	accept       = 1 // NF_ACCEPT
)

// Headers are in the machine's byte order, what is inside the attributes in the network's.
var native, network = binary.NativeEndian, binary.BigEndian

func attribute(kind uint16, data []byte) []byte {
	b := make([]byte, (4+len(data)+3)&^3)
	native.PutUint16(b, uint16(4+len(data)))
	native.PutUint16(b[2:], kind)
	copy(b[4:], data)
	return b
}

// request is one netlink message to the queue of that number.
func request(queue uint16, kind uint16, flags uint16, attributes ...[]byte) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN+4) // header, then nfgenmsg: family, version, resource id
	for _, a := range attributes {
		b = append(b, a...)
	}
	native.PutUint32(b, uint32(len(b)))
	native.PutUint16(b[4:], subsystem<<8|kind)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	network.PutUint16(b[unix.NLMSG_HDRLEN+2:], queue)
	return b
}

// bind is what sets a queue up: the packets' numbers only, a bounded length, and open on failure.
func bind(queue uint16) [][]byte {
	length := network.AppendUint32(nil, 1<<15)
	open := network.AppendUint32(nil, flagFailOpen)
	return [][]byte{
		request(queue, msgConfig, unix.NLM_F_ACK, attribute(configCommand, []byte{commandBind, 0, 0, 0})),
		request(queue, msgConfig, unix.NLM_F_ACK, attribute(configParams, []byte{0, 0, 0, 0, copyMeta})),
		request(queue, msgConfig, unix.NLM_F_ACK, attribute(configLength, length)),
		request(queue, msgConfig, unix.NLM_F_ACK, attribute(configFlags, open), attribute(configMask, open)),
	}
}

func acceptance(queue uint16, packet uint32) []byte {
	header := network.AppendUint32(network.AppendUint32(nil, accept), packet)
	return request(queue, msgVerdict, 0, attribute(attrVerdictHeader, header))
}

// event is one thing that the kernel said: a packet that waits for a verdict, or the answer to a request.
type event struct {
	packet   uint32
	isPacket bool
	err      error // of an answer; nil: done
}

var errCut = errors.New("nfq: a message is cut off or malformed")

// parse reads what one receive has returned. Messages of other kinds are left out.
func parse(buf []byte) ([]event, error) {
	var out []event
	for len(buf) > 0 {
		if len(buf) < unix.NLMSG_HDRLEN {
			return out, errCut
		}
		size := int(native.Uint32(buf))
		if size < unix.NLMSG_HDRLEN || size > len(buf) {
			return out, errCut
		}
		body := buf[unix.NLMSG_HDRLEN:size]
		switch native.Uint16(buf[4:]) {
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return out, errCut
			}
			var err error
			if code := int32(native.Uint32(body)); code != 0 {
				err = unix.Errno(-code)
			}
			out = append(out, event{err: err})
		case subsystem<<8 | msgPacket:
			id, err := packetID(body)
			if err != nil {
				return out, err
			}
			out = append(out, event{packet: id, isPacket: true})
		}
		buf = buf[min((size+3)&^3, len(buf)):]
	}
	return out, nil
}

// packetID finds the number of the packet in a packet message, after its nfgenmsg.
func packetID(body []byte) (uint32, error) {
	if len(body) < 4 {
		return 0, errCut
	}
	for rest := body[4:]; len(rest) > 0; {
		if len(rest) < 4 {
			return 0, errCut
		}
		size := int(native.Uint16(rest))
		if size < 4 || size > len(rest) {
			return 0, errCut
		}
		const kind = 0x3fff // without the flags for nesting and byte order
		if native.Uint16(rest[2:])&kind == attrPacketHeader {
			if size < 8 {
				return 0, errCut
			}
			return network.Uint32(rest[4:]), nil
		}
		rest = rest[min((size+3)&^3, len(rest)):]
	}
	return 0, fmt.Errorf("nfq: a packet without a number: %w", errCut)
}
