// Package agent is the part of the fleet on each machine: it runs that machine's
// adapters, tells the server what is, judges the conditions that one machine's
// facts suffice for, and does the steps that the server hands it.
//
// It decides on no repair: that is the server's, as long as there is one. Cut off from
// every server it runs the one loop on what it sees itself, within its standing permit. It is not the executor either
// (act/execute keeps the promises about keys, tokens and journals) nor the probe
// runner (act/probe); it holds them together and speaks for them.
//
// # Invariants
//
//   - It works through the server's absence: it goes on observing and judging, and
//     a step that has begun goes on. When the server is back it tells what is, not
//     what happened (package wire).
//   - It speaks for its own host only, over mutual TLS with a server of its own
//     fleet, or not at all.
//   - It obeys a server only whose log of decisions goes on from the last signed head
//     that it keeps (S13). It observes and tells for any server of its fleet.
//   - What a probe sees leaves at once: nothing here waits for more to send.
//   - It works alone (S12) only when it has had no session for a while, holds a permit
//     that the executor finds good, and something is ill; it begins nothing more when a
//     server is back, and keeps what it decided until a server has all of it in the log.
//   - It does no step itself: its executor does (package executor), in this process or
//     beside it, and believes what servers and people have signed, not what the agent
//     says. Without its executor the agent observes and tells.
//   - A freeze of this machine is a file (FreezeFile) of the executor's. Its presence
//     freezes, whatever is in it, and so does not being able to tell; it needs no server.
//   - A person's command is handed to the executor, and nothing of it is decided here. It
//     ends with the session that it came over.
//   - An adapter that cannot be opened keeps no other from working.
//   - Run returns when everything that it started has returned.
//
// # State folder
//
//	journal      keys, outcomes, the last head of the server's log (act/execute), where the
//	             executor is in this process
//	agent.pem    identity, where the caller keeps it here too
//	ring         the gossip ring that the server named last, with its keys: it is
//	             gossiped on while no server is there
//	servers      where the fleet's servers are reached, as they have told
//	freeze       there: this machine is frozen; likewise
//	fleet-frozen there: the fleet was, when a server was last heard; likewise
//	permit       the standing permit; permit.spare is its room on a full disk; likewise
//	maintenance  the windows of maintenance that the host is in; likewise
//	alone        its own log of what it decided without a server, until one has it;
//	             alone.refused-… is one that contradicted what had been told
//	raised       which conditions are raised, so that a restart clears none that
//	             nobody saw clear; raised.spare is its room on a full disk
//	found/       configurations that were found by looking, so that an adapter is
//	             still there after a restart while what it looks after is down
package agent
