// Package etcd looks after one member of an etcd cluster on this machine, and
// after the cluster as this machine sees it.
//
// # What it sees
//
// A member that does not answer; one whose data directory is gone, damaged or
// belongs to another identity; a cluster without a leader, or whose majority has
// lost its data; the space quota reached or near; members whose contents differ
// at one revision although all of them call themselves healthy; a slow disk under
// the write-ahead log; certificates that are about to end or have ended; members
// of different versions. What a cluster with users, or one that asks for
// certificates, does not tell it is unknown, with what would let it be seen.
//
// # What it can mend
//
// It starts a member with its own intact data; replaces a member whose data is
// lost, damaged or different under a new identity (leadership moved away,
// snapshot, removed, data set aside, added as a learner, configured, started,
// promoted, compared); frees space (snapshot, compact, defragment one member at a
// time and the leader last, disarm).
//
// # What it never does
//
// It deletes no data: what gives way is renamed, with a manifest, and can be put
// back. It never starts a member with an empty or damaged log under an identity
// that has voted, and never writes INITIAL_CLUSTER_STATE=existing for one. It
// adds nothing before what is dead has been removed. It does not lean on the
// server's own strict-reconfig-check, which takes a frozen member for a live one
// (seen with 3.7.3). It never mends a lost majority by itself.
//
// # How the pieces hang together
//
// Several members may run on one machine (the demo does that): each has its own
// configuration and instance, and those of one cluster opened by one Adapter
// value share what they know of it, so that every one of them answers for all.
// Calls go to exactly one member each, over one connection a member, are never
// retried behind one's back, and have a deadline. What a call that was cut off
// became is asked of the cluster itself: see fate.go for how, and for what cannot
// be known.
//
// Tested with etcd 3.4.23 (Debian 12) and 3.7.3; that versions differ with 3.6.16
// beside 3.7.3.
package etcd
