// Package warrant is what an executor acts upon: three short texts, each signed
// (golang.org/x/mod/sumdb/note) with the key of a certificate of the fleet.
//
// An order is a server's. It says what is to be done with a dispatch, by its hash,
// and until when, on the only clock that both ends share: the executor's own, from
// the moment at which it made the nonce.
//
//	fettle order 1
//	fleet k5w...
//	say do
//	nonce 3c9e...
//	within 12000000000
//	body 9f86d081...
//
// An approval is a person's. It names a plan by its hash, the incident that it is
// for, and its end.
//
//	fettle approval 1
//	fleet k5w...
//	incident tap5fdsz
//	plan 60303ae2...
//	at 2026-11-22T20:15:00Z
//	until 2026-11-22T21:15:00Z
//	finish 2026-11-22T23:15:00Z
//
// A run is a person's too: a program, by its hash, that one host runs once, for as long
// after the executor made the nonce as an order may say.
//
//	fettle run 1
//	fleet k5w...
//	run 4qz7...
//	host host:2fme...
//	name web1
//	nonce 3c9e...
//	within 60000000000
//	body 2c26b46b...
//
// It decides nothing: what an executor does about them is fleet/executor's.
//
// # Invariants
//
//   - OpenOrder, OpenApproval and OpenRun return only what the key of a server, or of a
//     person who may approve, or run, of the fleet has signed.
//   - Lines that a newer version adds behind those here are covered by the signature
//     and passed over.
//   - They take any bytes.
package warrant
