// Package plan makes a rung of a runbook concrete: which action on which target,
// by which host, with which parameters, and what must be observed after every
// step. It foretells the world step by step, and says afterwards where the world
// is not as foretold.
//
// It decides nothing: whether a step may be done is for the guards
// (internal/judge/guard), which rung is tried for the incident
// (internal/judge/incident), how far it may go by itself for the policy
// (runbook.Level). It touches nothing: a plan is data.
//
// # How a plan is made
//
// Variables are evaluated on the present world, once. Then, step by step, target,
// host, parameters, pins, looks and claims are evaluated on the world as the
// steps before are foretold to leave it. A fact that a step will change, to a
// value that only its doing can tell, is not known from then on: whatever needs
// it cannot be planned, and says so, instead of going by the old value.
//
// Subjects are never put off: a person approves what is acted upon. Only
// parameters can wait for an earlier step's output (Late).
//
// # Invariants
//
//   - Make is a function of its input: the same input gives the same plan, with
//     the same hash.
//   - Hash covers every field but itself.
//   - A step of a plan needs nothing but itself, the cause, and the outputs of
//     earlier steps: vars are replaced by their values.
//   - What is not known is not foretold. What is foretold and not observed since
//     is a difference too, marked as not seen.
package plan
