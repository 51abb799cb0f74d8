// Package member is how the machines of a fleet see each other: which of them
// watch over which (Rings), who of them answers (Node), and what follows from what
// all the witnesses saw (Judge).
//
// It has two layers. Rings, Judge, Doubt and Windows are pure: no clock, no
// network, time is a parameter, the same input in any order gives the same answer.
// Node runs: gossip by hashicorp/memberlist (SWIM with Lifeguard), encrypted, with
// Serf's network coordinates.
//
// It is no fence and no proof of one: that a host is Dead by Judge says that nobody
// hears it, not that it has stopped writing to a shared disk (S4). It mends nothing
// and pages nobody. It is no message bus either: what nodes tell each other here is
// that they are there.
//
// # Rumour and witness
//
// Gossip makes everybody say what one said. Two hundred members that repeat one
// suspicion are one witness. So a Node does not take the ring's word for a death: it
// takes it as a hint, asks the member itself, by packet and by connection, and tells
// what it saw first-hand (Saw). Only that is a witness to Judge, and there it counts
// by failure domains, not by heads.
//
// # Invariants
//
//   - Dead, alive and cannot-tell are three answers. The zero value of every
//     judgement is cannot-tell, of every sighting: nothing was seen.
//   - One kind of witness is never enough for Dead, except a power supply that is
//     seen off. An answer that was heard later than a silence began beats it.
//   - An observer to which most of what it looks at seems gone is ill itself, and
//     nothing bad is believed of it; one finding says so.
//   - How long silence must last follows what was measured (round trip, scheduling
//     delay at both ends, loss), between a floor and a ceiling. An observer that
//     overslept starts over: its own sleep is nobody's silence.
//   - All gossip is encrypted, always. What a member says of itself (Label) is parsed
//     with limits and is a label, never a permission.
//   - Nothing blocks the gossip: events go to a bounded channel, and what did not fit
//     is counted and told with the next one. Members is the truth, events are news.
//   - Run returns when everything that this package started has returned. The few
//     goroutines that memberlist does not let anybody wait for have been told to stop
//     by then and end within a probe interval.
package member
