// Package fleet holds the lab's tests of how machines see each other: one gossip node
// (internal/fleet/member) on each of five real hosts, which are switched off, frozen,
// and robbed of their packets, and what the others make of that, with the times that it
// took. They stand behind the build tag lab; there is nothing else here.
//
// All hosts of a lab share one kernel and so one clock: times that different hosts wrote
// down can be compared.
//
// The number of trials is small by default, so that a run stays short;
// FETTLE_LAB_TRIALS=300 and FETTLE_LAB_MINUTES=10 make it as long as the bars are meant.
// The tests assert what is seen, not how fast: times are printed, with the settings.
package fleet
