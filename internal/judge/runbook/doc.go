// Package runbook reads runbooks: for one cause a ladder of rungs, from the
// cheapest and most reversible to the most drastic, each a list of steps,
// written by people in YAML and CEL. It reads the policy too, which says how
// far a rung may go by itself, and the files by which runbooks are tested.
//
// It is not a planner (internal/judge/plan makes a rung concrete) and it is no
// language for doing things: a step names an action that an adapter declares.
//
// # What is checked when a file is read
//
// Everything that can be known before the night in which it is needed: keys,
// conditions, actions, probes, facts, parameters and their types, references to
// the outputs of earlier steps, the presence of an expectation wherever an
// action has a visible effect, of a claim wherever votes or replicas are taken,
// and of a reason wherever there is no way back. All that is wrong is reported
// at once, with file:line:column, the line, and a hint.
//
// # Invariants
//
//   - What Parse returns names only what the catalogues declare.
//   - A step without undo says why; a step with one does not claim otherwise.
//   - Level never answers Automatic for a plan that loses something, that has a
//     high-risk step without undo, or that names no lab test (the policy may
//     always ask for less, never for more).
//   - Hash of a runbook, a set and a policy covers every byte that was read.
package runbook
