package wire

// CommandChunk is how much output of a command one message has at most: what waits
// for a slow reader, for each of many agents.
const CommandChunk = 16 << 10
