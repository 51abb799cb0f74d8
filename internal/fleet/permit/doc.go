// Package permit is how a server gives an agent a standing permit, what it may do
// alone while it reaches no server (S12): made from the policy for one host, and
// signed (golang.org/x/mod/sumdb/note) with the key of the server's certificate.
//
//	fettle permit 1
//	{"schema":1,"serial":"7QK…","fleet":"k5w…","host":"host:h1","from":"…","until":"…","grants":[…],"policy":{…}}
//
// The second line is a fettle.Permit. It decides nothing about a step: that is the
// executor's (act/execute), which asks what is kept here.
//
// # Invariants
//
//   - Open returns only what the key of a server of the fleet has signed, with a
//     certificate that was valid when the permit begins, as the permit itself says:
//     a permit outlives its signer's certificate, never its own end.
//   - A permit is for one host: another's does not help.
//   - Lines that a newer version adds behind those here are covered by the signature
//     and passed over, as are fields that are not known here.
//   - What is kept is verified anew whenever it is read.
package permit
