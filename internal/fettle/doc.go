// Package fettle is the vocabulary: the words in which every other room of
// Fettle thinks and talks. It has types, a few total functions on them, and the
// ports (small interfaces) that adapters implement. It imports the standard
// library only, does no input or output, starts nothing and keeps no state.
//
// # The flow
//
//	machine ─▶ Probe/Watcher ─▶ Observation ─▶ Condition ─▶ Diagnosis ─▶ Plan
//	   ▲                                                                   │
//	   └───── Action ◀─ journal (intent first) ◀─ Guard (before each Step) ┘
//	             └──▶ verify ─▶ resolved │ undo ─▶ next rung │ a person
//
// An Incident is the whole story, from the first observation to the verified
// end.
//
// # Facts
//
// A fact has a name and a Value. Values are bool, int64, string or []string,
// never floating point: a decision must be the same, bit for bit, on every
// machine and in every replay. Ratios are written in per mille, sizes in bytes,
// durations in milliseconds (the unit is in the fact's name: free_bytes,
// used_permille, lag_ms).
//
// # Unknown
//
// The zero value of every judgement in this package is "unknown", and unknown
// is never good and never bad. A probe that timed out did not see a fault; it
// saw nothing, and says so.
//
// # Time
//
// A time.Time in this package comes from a machine.Clock: wall-clock anchored
// once at process start and advanced by the boot-time clock, so that ages are
// right across suspend and wall-clock steps. Pure code gets time as an argument.
package fettle
