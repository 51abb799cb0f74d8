// Package condition turns observations into conditions: for every subject and
// every condition that the catalogues know for its kind, raised, clear or
// unknown, since when, and on whose word.
//
// It does not look for causes (diagnose does), knows no condition's code, and
// reads no clock: time is an argument. It holds what the rules need of the past
// (delays, hysteresis, flapping) and nothing else; the present is the World's.
//
// # From an observation to a state
//
// 1. Each observer (one host, by the condition's probe) gets a word: yes if the
// raise rule is true on what it saw; no if the clear rule is true, or, without
// one, if the raise rule is false; between the two rules its word stays what it
// was, and is not taken for having seen it clear (LastClear). It does not know when its observation failed, is older than Expiry, or
// lacks a fact that decides.
//
// 2. The words are combined. AnyObserver: yes if one says yes, no if all who
// know say no. AllObservers: yes if all who know say yes, no if one says no.
// MostHosts: what more than half of all hosts that ever looked say; those who do
// not know count among them, so that a few survivors do not speak for all. If
// nobody knows, the answer is unknown. It is also unknown, never clear, if all
// who know say no to AnyObserver but one who does not know said yes when it last
// knew: that it can no longer see the ill does not end it. One that has gone
// silent (its last observation is too old) counts so until all others have looked
// again since.
//
// 3. Yes must hold for Delay before the condition is raised and no for ClearHold
// before it is clear, both counted from when the deciding observation was asked
// for; not to know breaks the count. Unknown takes effect at once. A raised
// condition that was lost sight of is raised again without delay, since it is
// the same episode, and needs its ClearHold to become clear.
//
// # Invariants
//
//   - Never clear from no knowledge, and never raised from it: an observation
//     that failed moves a condition to unknown. Only that a subject was asked and
//     did not answer counts, as the number unreachable.
//   - The order in which observations of different observers or subjects were
//     put into the World before Touch does not matter.
//   - What Touch and Tick judge anew is what can have changed; judging everything
//     at every moment gives the same conditions.
package condition
