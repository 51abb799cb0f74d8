// Package journal is an append-only, hash-chained log in one file, with room
// kept for it ahead of use. The agent keeps its keys and outcomes in one (S6);
// the server's file store and the incident logs use it as a library (S13).
//
// It is not a database: it has no index by content, it deletes nothing, it
// never gets shorter, and a record's meaning is its writer's affair.
//
// # Invariants
//
//   - Append returns after fdatasync: what was acknowledged is there after
//     SIGKILL and after a power cut, as far as the disk keeps its promise.
//     Appends that meet share one fdatasync (group commit).
//   - AppendAll is all or nothing, also across a crash.
//   - An acknowledged record is never lost in silence. What stands after the
//     last acknowledged record and is not whole (a torn tail: a prefix of a
//     record, zeros, garbage) is cut off by Open, which says how many bytes.
//     Anything wrong before that is a *Damaged that names the offset, and the
//     file then opens read-only only.
//   - The records are the leaves of a Merkle tree (golang.org/x/mod/sumdb/tlog:
//     RFC 6962 hashes). Its head is written after every commit and checked by
//     Open; proofs and signed heads let others refuse a fork.
//   - There is one writer: a flock(2) on the file.
//   - Append needs no new blocks until the reserve is used up, so that a full
//     disk can still be mended. Room says how much is left, and grows again when
//     there is space. On file systems that write elsewhere instead of in place
//     (btrfs, ZFS, bcachefs, F2FS) no reserve can hold; Room says so.
//   - After a failed write or sync nothing more is accepted until the file is
//     opened again, since the kernel may have dropped what it could not write.
//
// # The file
//
// A header of 64 bytes (magic, format, a random identity, time, CRC), then
// frames without gaps, then zeros to the end of the room. All numbers are
// little-endian.
//
//	 0  4  "FjR1", so that frames are found again behind damage
//	 4  4  length of kind and payload
//	 8  4  CRC-32C of the frame without this field
//	12  8  durable: all of the file before this offset was synced when the frame was written
//	20  8  record number, from 0; of a head: number of records before it
//	28  2  how many records of the same AppendAll follow this one
//	30  1  1: a record, 2: a head
//	31  1  length of kind
//	32  2  schema version of the payload
//	34  2  zero
//	36  8  when it was written, nanoseconds since 1970, for people
//	44     kind, then payload: JSON of a record, root hash of a head
//
// The leaf of a record is the frame from byte 30 to its end. The field durable
// is what tells a torn tail from damage: when something is wrong at an offset, and
// a whole frame further on says that this offset had been durable, then it was
// damaged later; otherwise nobody was ever told that it was written.
package journal
