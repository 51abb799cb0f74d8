// Package wire is what servers, agents and the command line say to each other:
// the messages (wire.proto, and the code generated from it), and the few rules
// that both ends must keep in the same way. It decides nothing and knows no
// adapter.
//
// # Level, not edge
//
// A session begins with everything that is: Hello, all latest observations, all
// conditions, then Settled. After that come changes, at once, and every interval a
// Digest of what was observed again and is unchanged, so that freshness costs a
// few bytes. No message is an event that must not be lost: a session that breaks
// is replaced by the next, which begins with everything that is. There are no
// cursors and no acknowledgements.
//
// # Clocks
//
// No absolute time of one machine is ever compared with one of another: their
// clocks differ by more than a fact may be old. An observation travels with its
// age, and every message from an agent with the agent's clock when it was handed
// to the connection. The server relates that clock to its own (Clocks) so that
//
//	asked, on the server's clock  ≤  when it really was asked for
//
// whatever the network did in between: a fact may look older than it is, by at
// most a round trip, never fresher (S1). In the same way a deadline given to an
// agent is never later than the server meant. Clocks here are machine.Clock's:
// they advance with the boot-time clock, through suspend, and never jump.
//
// # Schemas
//
// A peer says which schema it speaks. A server accepts agents from two behind its
// own (Oldest) on. Vocabulary travels as JSON inside of protobuf: both pass over
// fields that they do not know, so that either end may be newer, and a log entry
// keeps the bytes that it was made of. What a field means never changes; a new
// meaning is a new field.
//
// # Limits
//
// A message has at most MaxMessage bytes; larger ones are refused by the receiver:
// that ends the call, of a session on a connection of its own (DirectProtocol) that one,
// and nothing else. Senders keep batches below Chunk. Every call but
// the streams has a deadline, and a silent peer is noticed by the pings of the
// session, after that by the keepalive of the connection.
//
//go:generate buf generate
package wire
