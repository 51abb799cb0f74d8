// Package loghead is how a server says where its log of decisions ends, so that it
// can be held to it: a short text, signed (golang.org/x/mod/sumdb/note) with the
// key of the server's certificate.
//
//	fettle log head 1
//	fleet k5w...
//	epoch 1
//	entries 1042
//	hash 9f86d081...
//	at 977 hash 60303ae2...
//
// The last line is for an agent that keeps a head: what stands at that place in the
// log now, or "none". It decides nothing: what an agent does about a log that is
// not the one it has seen is act/execute's.
//
// # Invariants
//
//   - Open returns only what a key that it was given has signed.
//   - Lines that a newer version adds behind those here are covered by the signature
//     and passed over.
//   - It is no proof that the entries between two heads follow from each other: a
//     hash chain has none that is short. It is a signed statement, which a server
//     that lies in has given to be used against it.
package loghead
