// Package diagnose finds the causes that best explain what is raised.
//
// It is a search over causal knowledge that is data: each catalogue says of its
// conditions which others they bring about, on which related subjects, how surely
// and within what time. There is no condition code in this package, and no rule
// of the form "if this then that": take an edge out of a catalogue, and the
// diagnosis changes. What is weighed, and against what, is in Weights; the reasons
// are at DefaultWeights, and the decision is written down in
// docs/design/0004-diagnosis.md.
//
// # The model
//
// A candidate cause is a condition that is raised, or one that is unknown and
// could have brought a raised one about. What is known to be clear is none. A
// candidate explains a raised condition directly if a chain of causal edges leads
// there through nothing but unknown conditions (file reach.go), and it explains
// all that what it explains explains. An explanation is a set of candidates that
// together explain everything raised; the diagnosis is the cheapest. Every raised
// condition can be its own cause, so there is always one, and two independent
// causes are always possible.
//
// # The way there
//
//   - graph.go, beliefs.go: subjects and conditions as small numbers, so that the
//     catalogues' paths are walked in nanoseconds.
//   - reach.go: who could have brought about whom. absent.go: what should have
//     followed and was seen to be absent.
//   - clump.go: raised conditions that explain each other; what is left to explain
//     of each clump are its elements.
//   - group.go: clumps that a supposed cause joins, if it can be part of any
//     explanation at all. knot.go, cover.go: what has to be decided together, and
//     the search for the cheapest choice.
//   - doubt.go: observers to whom most of what they look at seems dead. What rests
//     on nothing but their word counts as unknown, and they are the diagnosis.
//   - report.go, evidence.go: the diagnosis in words.
//
// # Invariants
//
//   - The groups follow from the world alone: not from the order in which it was
//     read or changed, not from the order of a map, not from the time. There are
//     no floats.
//   - Update on an old Diagnoser and Load on a new one come to the same groups.
//   - Where Diagnosis.Stopped is empty, no explanation costs less than the one that
//     is given, and of equals it is the one with fewer causes, then the one with
//     the first cause by key.
//   - A condition that rests on nothing but the word of ill observers is not among
//     the observed causes of any group.
//
// It is not a planner: whether and how a cause is repaired is decided elsewhere.
// It keeps no history: an onset is in the condition, and the story in the incident.
package diagnose
