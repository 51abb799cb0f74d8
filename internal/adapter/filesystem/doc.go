// Package filesystem looks after the local filesystems of one machine: full by
// bytes, by inodes or by deleted files that somebody still holds open; read-only
// or shut down after an error, also where the mount options still say rw; and,
// as evidence, what fills it.
//
// It mends by letting go what is disposable by its kind and within the declared
// policy (package caches, the journal past its own limit, logs that were rotated
// already, compressed), each with a receipt, and by asking the holder of a
// deleted file to reopen it. It never deletes what it does not know, never kills
// a holder, and never remounts or repairs a damaged filesystem (that comes with
// the host's own issue).
//
// Tested on ext4 and tmpfs of kernel 6.18 with systemd 252.
package filesystem
