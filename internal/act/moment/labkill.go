//go:build labkill

package moment

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// dir holds an order for each part, a file of its name: "kill N WORDS" or "hold N WORDS".
// It is about the N-th moment of which the part says all of the words, between which are
// commas; N is counted down in it.
const dir = "/var/tmp/fettle-moment"

// looks is the time between two looks whether a part that is held may go on.
const looks = time.Millisecond

// Reached counts the order for this part down. At its moment it writes PART.hit, with
// the time in nanoseconds and what the part says, and then ends the process with
// SIGKILL, or blocks until that file is gone.
func Reached(part string, about func() string) {
	order := filepath.Join(dir, part)
	data, err := os.ReadFile(order)
	if err != nil {
		return
	}
	var what, words string
	var n int
	if _, err := fmt.Sscan(string(data), &what, &n, &words); err != nil {
		return
	}
	text := about()
	for word := range strings.SplitSeq(words, ",") {
		if !strings.Contains(text, word) {
			return
		}
	}
	if n > 1 {
		write(order, fmt.Sprintln(what, n-1, words))
		return
	}
	hit := order + ".hit"
	if os.Remove(order) != nil { // who starts again is not stopped again; and it was called off meanwhile
		return
	}
	write(hit, fmt.Sprintln(time.Now().UnixNano(), text))
	if what == "kill" {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	for {
		if _, err := os.Stat(hit); err != nil {
			return
		}
		time.Sleep(looks)
	}
}

// write replaces a file as a whole, so that nobody reads half of it.
func write(path, text string) {
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err == nil {
		_ = os.Rename(path+".new", path)
	}
}
