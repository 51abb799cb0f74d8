// Package sim runs a fleet in one process, breaks it by a seed, and holds what
// Fettle does against what is true. It is for tests and links into no program.
//
// The judge is the real one, with the catalogues and runbooks that it is given; so
// are the loop, the agent's executor with its journal in a file, the agent's judge
// of host conditions and the store's chain. Pretended are the outside world (hosts,
// services, filesystems, etcd clusters: see world), the network, the clocks, the
// disk under the store, and what stands around the executor and the loop: sessions,
// probes, elections. See docs/design/0010-simulator.md for what that leaves unproven.
//
// # Invariants
//
//   - A seed is a run, event by event. One event is let happen at a time; what the
//     goroutines of the real code do upon it comes to rest before the next
//     (testing/synctest), and what they asked for meanwhile is put into one order,
//     whatever order they ran in. Result.Hash covers every event.
//   - The world knows nothing of what Fettle believes, and Fettle nothing of the
//     world but what probes tell.
//   - The pretended adapters do as they are told. They have no second thoughts, as
//     the real ones have: what keeps a step from doing harm is the safety kernel
//     alone.
//   - Every checker reads the truth: the world, and what was committed and sent. It
//     excuses a step only for what nobody could have known: what changed within the
//     time for which the step's own facts may be old.
package sim
