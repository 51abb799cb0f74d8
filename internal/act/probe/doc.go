// Package probe runs an agent's probes and watchers and passes on what they saw.
//
// It does not judge and knows no adapter: it decides when is looked, for how
// long, and what a look that failed is called.
//
// # Invariants
//
//   - Told beats looking: watchers start first and their observations pass at
//     once; polls are their safety net, and cover for a watcher that broke until
//     it is back.
//   - A look that does not end is cut off. What it looked at becomes an
//     observation with Reason TimedOut, never a fault; the goroutine that hangs is
//     the only one of its probe, and no other probe waits for it.
//   - Asked is set before asking. An observation that was asked for earlier than
//     the one that is held never replaces it.
//   - A defect of a probe (a panic, a fact that its spec does not declare, a value
//     of another type) becomes Reason Failed of its subjects and a fact of the
//     agent; it never reaches a rule as a value.
//   - What did not change is not sent again, only that it still holds: Emit gets
//     the changes at once and now and then one digest of what was confirmed. A
//     digest costs some bytes a subject, so that an idle agent is idle.
//   - Run returns when all that it started has returned, or names what hangs.
//
// # What Emit gets
//
// A Batch has Changed, complete observations that differ in content from the one
// before of the same subject and probe, and Alive, which says that the held one
// was confirmed at a later time; whoever receives it moves Asked of its copy. The
// state is level-triggered: after a new connection Present has all that is, and
// what is not in it is no longer seen.
package probe
