//go:build !labkill

package moment

// Reached says that a part of Fettle stands at a moment. About tells what has just been
// done, for whoever chooses among moments. It does nothing.
func Reached(_ string, _ func() string) {}
