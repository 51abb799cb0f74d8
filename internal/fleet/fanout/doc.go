// Package fanout runs one command on many hosts and says how it went on each: the
// engine of "fettle run", over a port (Runner) that reaches one host. Package
// sshrun is that port over SSH; servers have one through their agents.
//
// It decides nothing about whether a command may run: that is asked on the host
// (agents), or by its sshd. It keeps no output beyond its caller's wish, and it
// is no shell: a command is a program and its arguments.
//
// # Invariants
//
//   - A selector that matches nothing is an error, and so is every term of it that
//     matches nothing: a mistyped exclusion would run on the host that it meant.
//   - Every selected host has exactly one Result, and it comes after everything else
//     that is said of that host.
//   - A command is handed to a host at most once; nothing here tries again.
//   - What is not known is not called failure: a host that could not be reached
//     did not run the command; one that went silent, was lost or was cut off may
//     have run it, and may be running it still (Result.Began).
//   - A host that gives no sign of life is named within Options.Notice, and holds
//     up no other; it is given up after Options.Connect before it ever spoke, after
//     Options.Silence later.
//   - Memory is bounded by Options.Parallel, Options.Limit and the number of hosts,
//     not by what the command prints.
//
// # Exit rule
//
// See Summary.Exit: 0 all succeeded, 1 some failed, 2 none failed but of some it
// cannot be told.
package fanout
