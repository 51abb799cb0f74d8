// Package spine boots a fleet that Fettle looks after, for the tests that prove
// on real Debian hosts that it sees, understands and mends: a lab, the server
// and an agent (`fettle up`) on its first host, an agent (`fettle agent`) on each
// of the others, all of them the one static binary that is shipped.
//
// It is a harness, not a test: it breaks nothing and judges nothing by itself
// but what must be true of every repair. What a test reads, it reads where a
// person does, from the command line on the first host; what became of a host,
// it asks the host's own tools and not Fettle.
//
// Its invariants: it waits for what must come, with a bound, and never for a
// time; a test that failed shows what Fettle logged on every host and the story
// of every incident.
package spine
