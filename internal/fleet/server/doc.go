// Package server is the part of the fleet that decides, as far as the network is
// concerned: it lets agents and people in, feeds what agents tell into the loop,
// and is the loop's Hands. The decisions themselves are the loop's and the
// judge's; this package takes none, holds no credentials of the fleet but its own
// identity and the fleet's authority, and touches no machine.
//
// # Invariants
//
//   - Every call is made over mutual TLS by somebody of this fleet whose role may
//     make it; the table of roles is complete, and a method that is not in it is
//     refused. Only Join needs a token instead.
//   - An agent speaks for its own host only: the host in an observation is that of
//     the certificate, and a condition that is not host-scope is not taken from it.
//   - There is one session for a host, the newest. Whatever waits for an answer of
//     one that ends gets an error that says that the step may have been done; what
//     was never sent says so (loop.ErrNoContact).
//   - Times that come from agents are placed on the server's clock, never fresher
//     than they were (see package wire), and in order: what an agent observed later
//     is never placed before what it observed earlier.
//   - That an agent is connected or not is itself an observation (fettle.agent),
//     and is judged like any other. What a lost agent had judged becomes unknown,
//     never clear.
//   - Whether a host lives is judged from several kinds of witness (witness.go), and
//     is an observation too (fettle.witness). Where nobody can tell, it has no fact
//     that a rule could read: never bad, never well. Nothing here takes it for a
//     fence.
//   - The gossip's keys go to agents of the fleet, and into no log, answer or
//     observation (S14). A key is used when all hosts have it, and removed when all
//     use another.
//   - Agents are shown where the log ends, signed, when a session begins, with every
//     dispatch and when it has moved; one that keeps a head is told what stands at
//     that place now, so that a restored or rewritten log shows (S13).
//   - A person's command (Run) is in the log before any host gets it, and each host
//     gets it once; whether it runs there is for the host's own list to say.
//   - Files of the log go to servers of the fleet only, which check them by their hash.
//   - No message, however large, wrong or hostile, ends the server.
package server
