package wire

// ExecutorAway is what Hello.executor says while the executor of a host does not answer:
// the agent observes, and nothing can be dispatched to it.
const ExecutorAway = "away"
