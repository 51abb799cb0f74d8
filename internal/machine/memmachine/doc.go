// Package memmachine is a whole Linux machine in memory behind the ports of
// package machine: for tests of everything that sees or touches a machine, hours
// of it in milliseconds inside a testing/synctest bubble.
//
// It starts no goroutine and reads no clock but time.Now, so that the same test
// with the same seed gives the same result. It has no users and permissions, no
// symbolic links and no memory of what a page cache would still hold elsewhere;
// faultmachine adds the errors and hangs of a real one.
//
// Invariants: what a port of package machine promises to be durable survives
// Fork; of everything else Fork loses, keeps or tears what its seed says, but
// never what no journalling filesystem would (names come back in the order in
// which they were given). Bytes are counted: a full filesystem answers ENOSPC, a
// read-only one EROFS, a shut-down one EIO, a hung one not at all.
package memmachine
