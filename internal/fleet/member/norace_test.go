//go:build !race

package member

// wholeRing is a ring at its limit.
const wholeRing = RingLimit
