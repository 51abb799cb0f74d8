// Package expr is the one CEL environment: the rules of the catalogues, the
// preconditions, expectations and effects of steps, and the ${…} templates of
// runbooks are all compiled and evaluated here.
//
// It is not a language of its own: it is CEL (cel.dev), with fewer types and a
// few more functions. There are no fractions, no times and no bytes, because
// facts have none; there is no clock, no chance and no way out.
//
// # Unknown
//
// Whatever cannot be decided is unknown, never false: a fact that is absent, a
// division by zero, an expression that costs too much. The error says why. As
// in CEL, || and && absorb it where the other side decides alone: true || unknown
// is true, false && unknown is false; so do exists and all.
//
// # Invariants
//
//   - The same expression over the same input has the same answer: results of
//     related() are sorted, nothing depends on the order of a map.
//   - A fact or parameter that the catalogues do not declare, a comparison of
//     different types and a misspelt path are errors when it is compiled, with
//     line and column, never at three in the morning.
//   - Every evaluation is bounded: by the shape of the expression where it has
//     no loop, by a cost limit where it has one.
//
// An Env, and all that it compiled, may be used by several goroutines at once.
package expr
