// Package store keeps what must survive: incidents, intents, the freeze and the
// one log of decisions. It is loop.Store three ways: Memory for tests, File for
// one machine by itself, Etcd for a server. All three pass package storetest.
//
// It is no database of observations: what is, is observed anew after a restart.
//
// # Invariants
//
//   - Commit is all or nothing, and durable when it returns nil, through SIGKILL
//     and power cut (Memory: through another Load).
//   - Each Load mints a token that is higher than all before it; a Commit under
//     any other changes nothing (S7). There is one writer at a time.
//   - The log only grows. Each entry's hash covers its bytes and the hash before
//     it; Check verifies all of it. An entry's bytes are kept as they were
//     written, with fields that this version does not know.
//   - What could not be done says so: an error promises that nothing was kept,
//     but for one case: a Commit to etcd that got no answer in time may have been
//     kept. The next Commit finds out before it writes, and the chain stays whole.
//
// # Size
//
// A record is kept without what is in the log anyway once it grows beyond
// SlimBytes: first the verdicts of its older events, then the events in the middle
// of its story, with a note that says how many. The log has them all.
package store
