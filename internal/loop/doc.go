// Package loop is the way from Observation to verified Step: it feeds the mind
// (judge/incident) with inputs, one at a time, and carries out its decisions
// over two ports, Hands (the machines) and Store (what survives). Doctor,
// repair, the server and the tests all drive this one loop.
//
// It decides nothing. Its invariants: an intent is durable in the Store before
// the dispatch leaves (S6); every event of every story is in the Store's
// hash-chained log (S13); after a restart it goes on from the Store alone; Run
// returns when everything that it started has returned.
package loop
