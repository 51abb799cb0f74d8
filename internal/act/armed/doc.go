// Package armed takes a change back that may have cut its machine off, unless it
// is confirmed in time over a connection that began after it (S8).
//
// It is the mechanism and knows no change: what is put back is data
// (fettle.PutBack), and who makes the change (act/execute) asks for an arm before
// it touches anything. Nothing here listens to a freeze: a revert that is armed
// stays armed (S11).
//
// # How
//
// Every armed change has a folder, which only root reads:
//
//	DIR/ID/record     what to put back, until when, of which boot and process
//	DIR/ID/touching   from here on the change may have been made
//	DIR/ID/ended      the action returned, how, and when
//	DIR/ID/decision   confirmed, reverting or cancelled; the first one holds
//	DIR/ID/done       it was put back
//
// and a systemd unit of its own, fettle-revert@ID.service, which runs `fettle
// revert --armed ID`: outside of the agent's control group, started and seen
// active before the touch, wanted by every later boot until it is over. It waits
// for a decision. At the deadline, or at once in another boot, it decides itself,
// puts back and goes on trying until that succeeds.
//
// # Invariants
//
//   - The unit is active, with the record read, before `touching` is there, and
//     `touching` is durable before the touch.
//   - A decision is a file that is made by a rename which never replaces: of a
//     confirmation and a revert that meet, one wins, durably.
//   - Only a change that ended well, in this boot, is confirmed, and only by a
//     connection that began after its end.
//   - A revert that was decided is repeated after whatever ended it. Where the
//     process that touches still lives and has not said that it ended, the revert
//     waits for it and is done once more.
//   - Times are CLOCK_BOOTTIME, as /proc/uptime has it (proc_uptime(5)), with the
//     boot's identity: two processes and a suspend between them agree on it.
package armed
