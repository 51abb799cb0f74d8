//go:build race

package member

// wholeRing is smaller under the race detector, which bears 8128 goroutines at once and
// takes ten times as long.
const wholeRing = 50
