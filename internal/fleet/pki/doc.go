// Package pki is who is who in a fleet: a small certificate authority on
// crypto/x509, the identities that it signs, and the one-time tokens with which
// a machine joins.
//
// A fleet has one authority (ECDSA P-256, X.509), made by Init together with the
// fleet's identity; every server holds it (Export, Import). While it is changed there are
// two, and its own Word says which are believed and which issues. Who is in the fleet is in
// a Register, on a Shelf that all servers read. Everybody else has a certificate
// with one URI name, in the form of SPIFFE (github.com/spiffe/spiffe, SPIFFE-ID.md):
//
//	spiffe://<fleet>/<role>/<id>
//
// where the id of an agent is the identity of its host (host:<id>), minted when
// it joins. Connections are mutual TLS 1.3; who calls is checked on every call,
// not only when the connection is made, since connections outlive certificates.
//
// It is not a public authority: no revocation lists, no intermediates, no names
// of the DNS that mean anything. A host or a server is sent away by taking it out of
// the register (Forget, ForgetServer); its certificate is then of no use.
//
// # Invariants
//
//   - A private key never leaves the file that it was made into, which only its
//     owner may read, but for the authority's, which goes to further servers. Every
//     file is written whole and is durable, or is not there.
//   - A token works once, within its time, for one role, and only its hash is kept.
//     It carries the hash of the authority's public key, so the machine that joins
//     knows whom it talks to before it says anything.
//   - A word is taken only if an authority that is believed, and that the word leaves, has
//     signed it, and it is newer than the last one. Who has a certificate never drops the
//     authority that issued it.
//   - An expired certificate, one of another fleet, or one with a role that is
//     not known, is refused, with a sentence about what to do.
//
// Times here are those of the wall clock: certificates are read by others.
package pki
