// Package execute is the agent's side of a dispatch: it decides whether this
// agent may do a step now, does it once, and tells the truth about it afterwards.
//
// It is not a planner and no guard of the fleet: what a step takes from others is
// decided by the server before it is dispatched. It keeps no store but its
// journal, and it never guesses: what it does not know it asks the external
// system.
//
// # Invariants
//
//   - S6: the intent is durable in the journal before Apply or Undo is called.
//     A key is begun at most once, in one incarnation of the agent, for one
//     content; a second Do under it is answered from the journal or by Recover.
//   - S7: no dispatch with a token lower than the highest seen is obeyed, and the
//     highest seen is durable before a step under it begins. A new epoch needs an
//     administrator's signature (Options.NewEpoch); without that port it is
//     refused.
//   - S12: a dispatch that names a standing permit instead of a leader's token is done
//     only as that permit, which this executor judges itself, lets it: its fleet, host,
//     time by a clock that is not in doubt, grant, rate over all of the journal; and
//     whatever it grants, only what gives, on this host, reversibly. The log of a server
//     that is not obeyed says nothing about it.
//   - S13: the last head of the server's log that was shown is durable with each
//     intent. A server whose log does not go on from it is not obeyed: neither is
//     anything done, nor a key fenced, nor its token taken for the highest.
//   - A refusal touches nothing. Its Fate is NeverWillBe only where this agent
//     can promise it: the dispatch was for this incarnation, was never begun, and
//     its key will be refused for as long as this incarnation lives. All others
//     say UnknownFate, and Recover tells.
//   - S8: what can cut this machine off is done only behind a revert that was armed
//     and seen to be (Arms), an undo too.
//   - Freeze starts nothing; an Undo is exempt, since it gives back (S11).
//   - One step at a time on one target.
//   - A caller that goes away does not stop a step: it runs to its own timeout,
//     and its outcome is in the journal.
//   - A panic in an action is an outcome of class Broken and fate unknown.
//
// # Recover, and what our own record may say
//
// Recover fences the key durably, waits for a step of that key that runs in this
// process, then asks the action's Recover, which asks the external system. What
// that says, done, running or never will be, is the answer, also where our record
// says otherwise. Only where the system cannot tell does our own record count,
// and only for one conclusion: the journal holds no intent for the key, and the
// incarnation that the dispatch was for is recorded in this very journal. Since
// that incarnation would have made the intent durable before it touched anything,
// and the key is fenced now, the answer is never will be. For an incarnation that
// this journal does not know (a lost or replaced journal) it stays unknown.
//
// While an Apply of the key has not returned in this process, never will be is
// not said, whatever the system says.
package execute
