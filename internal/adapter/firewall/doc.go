// Package firewall compares the packet filter of one machine (nftables) with the
// ruleset that is persisted for its next boot, and can put the persisted one in
// force again.
//
// It sees that what is in force differs in what it lets through, drops or rejects,
// rule by rule, who changed it where the kernel says so, and is told of every change
// by the kernel (netlink). What the persisted ruleset would be it does not guess
// from the file's text: it has nft load the file into an empty network namespace
// and reads it back.
//
// Putting it in force can cut the machine off, so it is armed (S8): what was in
// force comes back unless the change is confirmed over a new connection. It always
// asks a person, since what differs may be what a person meant (S11).
//
// It never touches a table that neither the persisted file has nor, by a `flush
// ruleset` of its own, says must not be there; never one that is ignored by
// configuration; and never the persisted file.
//
// Tested with nftables 1.0.6 (Debian 12).
package firewall
