// Package store keeps what must survive: incidents, intents, the freeze and the
// one log of decisions. It is loop.Store three ways: Memory for tests, File for
// one machine by itself, Etcd for a server, embedded or in a cluster that is there
// already (Existing). All of them pass package storetest.
//
// It is no database of observations: what is, is observed anew after a restart.
//
// # Invariants
//
//   - Commit is all or nothing, and durable when it returns nil, through SIGKILL
//     and power cut (Memory: through another Load).
//
//   - Each Load mints a token that is higher than all before it; a Commit under
//     any other changes nothing (S7). There is one writer at a time.
//
//   - The log only grows. Each entry's hash covers its bytes and the hash before
//     it; Check verifies all of it. An entry's bytes are kept as they were
//     written, with fields that this version does not know.
//
//   - What could not be done says so: an error promises that nothing was kept,
//     but for one case: a Commit to etcd that got no answer in time may have been
//     kept. The next Commit finds out before it writes, and the chain stays whole.
//
//   - What leaves etcd for a file is on a majority of the servers before, durably, and
//     its hash in the chain. What cannot be read of it is never said to be whole.
//
//   - In an existing cluster no key but those below the prefix is read or written, and
//     no member is touched. What is larger than such a cluster takes at once is kept
//     from the transaction on that moves the head of the log (staged.go).
//
// # Size
//
// Etcd's old entries of the log and incidents that have ended go to files, by a Keeper;
// Log, HashAt, Check and Backup find them there. A part of etcd's quota is kept for what
// is urgent (room.go). docs/design/0015-bounded-store.md says why it is as it is.
//
// A record is kept without what is in the log anyway once it grows beyond
// SlimBytes: first the verdicts of its older events, then the events in the middle
// of its story, with a note that says how many. The log has them all.
package store
