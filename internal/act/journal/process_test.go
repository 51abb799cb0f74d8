package journal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	switch mode, path := os.Getenv("JOURNAL_CHILD"), os.Getenv("JOURNAL_PATH"); mode {
	case "":
		os.Exit(m.Run())
	case "append":
		os.Exit(report(appendForever(path)))
	case "limited":
		os.Exit(report(fillLimited(path)))
	default:
		os.Exit(report(childModes(mode, path)))
	}
}

func report(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func child(ctx context.Context, t *testing.T, mode, path string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(ctx, self)
	c.Env = append(os.Environ(), "JOURNAL_CHILD="+mode, "JOURNAL_PATH="+path)
	c.Stderr = os.Stderr
	return c
}

// appendForever appends from four goroutines and prints the number of each
// record once it is acknowledged.
func appendForever(path string) error {
	j, err := Open(context.Background(), path, Options{Reserve: MinReserve})
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := 0; ; i++ {
				seq, err := j.Append("test.note", testNote{N: w, Text: strings.Repeat("x", i%900)})
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				// One write(2) a line: what the parent read was acknowledged.
				_, _ = os.Stdout.WriteString(strconv.Itoa(int(seq)) + "\n")
			}
		})
	}
	all.Wait()
	return errors.New("stopped by itself")
}

// TestKilledProcessLosesNothing kills a process that appends with SIGKILL, again
// and again on one file. Every record that it acknowledged must be there, and
// what it had seen before must still be the beginning.
func TestKilledProcessLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	r := rand.New(rand.NewPCG(3, 4))
	seen, acked := Head{}, -1
	for round := range 25 {
		c := child(t.Context(), t, "append", path)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines, last := 0, r.IntN(200)
		for s := bufio.NewScanner(out); s.Scan(); lines++ {
			n, err := strconv.Atoi(s.Text())
			if err != nil {
				break // the last line may be cut off
			}
			acked = max(acked, n)
			if lines == last {
				if err := c.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		var exit *exec.ExitError
		if err := c.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("round %d: the child was not killed but ended: %v", round, err)
		}
		j, err := Open(t.Context(), path, Options{Reserve: MinReserve})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if j.Opened().Records <= int64(acked) {
			t.Fatalf("round %d: %d records, but number %d was acknowledged", round, j.Opened().Records, acked)
		}
		if err := j.CheckHead(seen); seen.Size > 0 && err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if seen, err = j.Head(); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if acked < 100 {
		t.Fatalf("only %d records were written: nothing was tested", acked)
	}
}

// fillLimited runs in a process whose files may not grow, as on a full disk: the
// kernel itself refuses.
func fillLimited(path string) error {
	j, err := Open(context.Background(), path, Options{Reserve: MinReserve})
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	limit := uint64(info.Size())
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: unix.RLIM_INFINITY}); err != nil {
		return err
	}
	n, err := fill(j)
	if err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}); err != nil {
		return err
	}
	return goOn(j, n)
}

// fill appends until the journal is full, and checks what it says meanwhile.
func fill(j *Journal) (int, error) {
	short := false
	for n := 0; ; n++ {
		_, err := j.Append("test.note", testNote{N: n, Text: strings.Repeat("x", 300)})
		short = short || j.Room().Short()
		switch {
		case err == nil:
			continue
		case !errors.Is(err, ErrFull):
			return n, fmt.Errorf("append %d: want ErrFull, got: %w", n, err)
		case n < MinReserve/500 || !short:
			return n, fmt.Errorf("full after %d records, reported short: %v", n, short)
		}
		return n, nil
	}
}

// goOn appends once more after space was made, and prints how many there are.
func goOn(j *Journal, n int) error {
	if _, err := j.Append("test.note", testNote{N: n}); err != nil {
		return fmt.Errorf("after space was made: %w", err)
	}
	if r := j.Refill(); r.Short() {
		return fmt.Errorf("the reserve was not refilled: %+v", r)
	}
	if err := j.Close(); err != nil {
		return err
	}
	fmt.Println(n + 1)
	return nil
}

func TestKernelRefusesSpace(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	path := filepath.Join(t.TempDir(), "j")
	out, err := child(ctx, t, "limited", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	checkFilled(t, path, out)
}

// checkFilled opens what a child filled and printed the number of.
func checkFilled(t *testing.T, path string, printed []byte) {
	t.Helper()
	want, err := strconv.Atoi(string(bytes.TrimSpace(printed)))
	if err != nil {
		t.Fatal(err)
	}
	j, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	checkCount(t, notes(t, j), want)
}
