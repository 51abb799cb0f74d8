// Package agent is the part of the fleet on each machine: it runs that machine's
// adapters, tells the server what is, judges the conditions that one machine's
// facts suffice for, and does the steps that the server hands it.
//
// It decides on no repair: that is the server's. It is not the executor either
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
//   - A freeze of this machine is a file (FreezeFile). Its presence freezes,
//     whatever is in it, and so does not being able to tell; it needs no server.
//   - A person's command runs only if this machine's own list says that this person
//     may run it and as whom (RunFile); a list that is not there, or of no use, lets
//     nobody. A command runs once, not while frozen, and ends with the session that
//     it came over.
//   - An adapter that cannot be opened keeps no other from working.
//   - Run returns when everything that it started has returned.
//
// # State folder
//
//	journal      keys, outcomes, the last head of the server's log (act/execute)
//	agent.pem    identity, where the caller keeps it here too
//	servers      where the fleet's servers are reached, as they have told
//	freeze       there: this machine is frozen
//	raised       which conditions are raised, so that a restart clears none that
//	             nobody saw clear; raised.spare is its room on a full disk
//	found/       configurations that were found by looking, so that an adapter is
//	             still there after a restart while what it looks after is down
package agent
