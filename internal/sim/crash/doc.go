// Package crash kills Fettle in the middle of its work and looks at what becomes
// of it. It has tests and nothing else.
//
// For every case of every shipped runbook's own tests that expects a plan, a
// fleet of real processes is started: a server (the loop, the mind with all that
// is shipped, a store in files) and an agent on each host (its journal in a file,
// the executor), over real sockets and certificates. Only the machines are
// pretended: one file that all processes read and append to, which outlives them
// (see world). Once the fleet is left alone. Then it is run again for every
// record that server and agent made durable, and for every moment before and
// after a step's effect: there the one whose moment it is, or everybody, or everybody
// else while it goes on, is ended with SIGKILL and started again on the same files.
//
// Its invariants, for each of these runs: the machines end as they did when
// nobody died, field by field; every step had its effect once, in the same order,
// whatever its keys; no key acted twice; the store's chain and the agents'
// journals are whole; the incident's story tells of each effect, under its key,
// once.
//
// Time runs faster than outside, for all processes alike: what the runbooks wait
// for are real seconds of a clock that is not.
package crash
