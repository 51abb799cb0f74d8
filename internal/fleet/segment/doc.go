// Package segment keeps closed stretches of what the store has let go, each in a file
// of its own: entries of the log of decisions, and incidents that have ended. It knows
// files and their hashes; what stands in the lines, who may let go of what, and where
// the hashes are kept is package store's to say.
//
// A segment is a first line that says what it is, then one line for each thing that is
// kept, as it was kept. It is named by its numbers and by the SHA-256 of all its bytes,
// so the same lines make the same file on every server.
//
// # Invariants
//
//   - A file that has its name is whole: it was written beside its place, synced,
//     renamed, and its folder synced, before Put returned.
//   - Nothing is read out of a file before all of it was found to have its hash. What
//     is missing or altered is an error (Bad) that names the segment, never an empty one.
//   - A file that is not what its name says is set aside, never deleted and never
//     overwritten.
package segment
