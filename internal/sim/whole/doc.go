// Package whole runs a whole fleet in one process: the real agents and the real
// servers, with their gRPC and TLS, in one bubble of testing/synctest, over a network
// that is made of memory. It breaks the fleet by a seed and holds what was done to the
// machines against what is true. It is tests and links into no program.
//
// Real are fleet/agent with its executor, journals and own log in files, its permits
// and the work that it does alone; fleet/server with its sessions, relays and terms;
// loop and mind with the shipped runbooks of systemd; adapter/systemd on machines in
// memory; pki, with certificates that begin in the bubble's time. Pretended are the
// network, the clocks, the machines, the election and the disk under store.Memory, and
// an adapter of a system that decides by votes. Package sim, beside this one, pretends
// more, tells more orders of events apart, and replays them exactly; see
// docs/design/0010-simulator.md for what each of the two proves.
//
// # Invariants
//
//   - Nothing leaves the bubble: no socket, no clock but the bubble's. A journal's file
//     is the exception; its syncs take no pretended time.
//   - A process that is killed is cut off from everything at once: its connections
//     break, its machine does not hear it, and the next one begins with what was on the
//     disk at that moment. Its goroutines run on, for nobody, until they end.
//   - Faults come by the seed alone: the same ones at the same pretended times.
//   - Every checker reads the truth: the machines, and what the store has kept.
package whole
