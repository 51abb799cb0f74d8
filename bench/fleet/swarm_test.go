//go:build compare

package fleet_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

// swarmSize is how many agents one process is.
const swarmSize = 5000

// swarm starts the agents, in processes of their own. They end with the test.
func (p *process) swarm(t *testing.T, n int) {
	t.Helper()
	p.faults = make([]io.Writer, n)
	for from := 0; from < n; from += swarmSize {
		to := min(n, from+swarmSize)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %d", asAgents, p.address, p.ids, from, to))
		cmd.Stderr = os.Stderr
		words, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for i := from; i < to; i++ {
			p.faults[i] = words
		}
		t.Cleanup(func() {
			_ = words.Close() // which ends it
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// swarm is such a process: agents until its input ends. A line of it is the number of
// an agent, one of whose services fails; a negative one, and that service is well again.
func swarm(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("want an address, a folder and two numbers, not %q", args)
	}
	from, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	to, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	// An agent has a machine of its own: what thousands in one process cost the collector
	// is nothing that the server should share its processors with.
	debug.SetGCPercent(300)
	agents := map[int]*mini{}
	for i := from; i < to; i++ {
		id, err := pki.LoadIdentity(filepath.Join(args[1], strconv.Itoa(i)), pki.RoleAgent)
		if err != nil {
			return err
		}
		agents[i] = &mini{id: id, label: labelOf(i), address: args[0]}
	}
	ends := &ends{count: map[string]int{}}
	if os.Getenv(logTo) != "" {
		wg.Go(func() { ends.print(ctx) })
	}
	for _, a := range agents { // any order
		wg.Go(func() { a.run(ctx, ends) })
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		n, err := strconv.Atoi(strings.TrimPrefix(lines.Text(), "-"))
		if err != nil {
			return err
		}
		if a := agents[n]; a != nil {
			if err := a.falls(!strings.HasPrefix(lines.Text(), "-")); err != nil {
				return err
			}
		}
	}
	return nil
}

// ends counts why sessions ended.
type ends struct {
	mu    sync.Mutex
	count map[string]int
}

func (e *ends) add(err error) {
	if err == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.count[numbers.ReplaceAllString(err.Error(), "N")]++
}

// numbers are what differs from agent to agent.
var numbers = regexp.MustCompile(`[0-9]+`)

// print prints what has changed, now and then, until ctx ends.
func (e *ends) print(ctx context.Context) {
	for last := ""; ; {
		select {
		case <-time.After(10 * time.Second):
		case <-ctx.Done():
			return
		}
		e.mu.Lock()
		now := fmt.Sprint(e.count)
		e.mu.Unlock()
		if now != last {
			fmt.Fprintln(os.Stderr, time.Now().Format(time.TimeOnly), "sessions ended:", now)
		}
		last = now
	}
}

// fault lets a service of one agent fail, and returns how long it took until the
// server had an incident of it. Then the service is well again.
func (p *process) fault(t *testing.T, i int) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	id, err := pki.LoadIdentity(filepath.Join(p.ids, strconv.Itoa(i)), pki.RoleAgent)
	if err != nil {
		t.Fatal(err)
	}
	api := p.admin(t)
	watch, err := api.Watch(ctx, &wire.WatchRequest{}) // which begins with what is there already
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := fmt.Fprintln(p.faults[i], i); err != nil {
		t.Fatal(err)
	}
	subject := string(fettle.NewSubject(fettle.KindUnit, id.Name.Host().Name(), illService))
	for {
		m, err := watch.Recv()
		if err != nil {
			t.Fatalf("no incident came of %s: %v", subject, err)
		}
		if strings.Contains(m.String(), subject) {
			break
		}
	}
	took := time.Since(began)
	if _, err := fmt.Fprintf(p.faults[i], "-%d\n", i); err != nil {
		t.Fatal(err)
	}
	return took
}
