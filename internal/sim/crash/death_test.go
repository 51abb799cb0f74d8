package crash

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// death says who dies where. The zero death is none.
type death struct {
	Who  string `json:"who,omitempty"` // server or agent: whose moment it is
	At   string `json:"at,omitempty"`  // one of its moments
	Whom whom   `json:"whom,omitempty"`
}

// whom says who dies at somebody's moment.
type whom int

const (
	itself     whom = iota // the one whose moment it is
	everybody              // and all others at the same time
	onlyOthers             // all others, while it goes on
)

// String returns it as a sentence begins.
func (d death) String() string {
	switch {
	case d.Who == "":
		return "undisturbed"
	case d.Whom == everybody:
		return "all killed when the " + d.Who + " was " + d.At
	case d.Whom == onlyOthers:
		return "all but the " + d.Who + " killed when it was " + d.At
	}
	return d.Who + " killed " + d.At
}

// fate is where a process stands on its way to its death. Its methods may be
// called concurrently, until one of them does not return.
type fate struct {
	dir   string // of the run
	who   string // whose moments these are
	death death

	mu     sync.Mutex
	counts map[string]int
	trace  *os.File
}

// moments and deaths are files in a run's folder: every moment that was met, and
// those at which somebody died.
const (
	momentsFile = "moments"
	deathsFile  = "deaths"
)

func newFate(dir, who string, d death) (*fate, error) {
	f, err := os.OpenFile(filepath.Join(dir, momentsFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &fate{dir: dir, who: who, death: d, counts: map[string]int{}, trace: f}, nil
}

// count numbers the happenings of a kind, from 1, over all lives of a process, but
// only as far as this one knows.
func (f *fate) count(kind string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[kind]++
	return f.counts[kind]
}

// meet is a moment. It has several names where a number and a meaning name it.
// It does not return when this process dies at it.
func (f *fate) meet(names ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintf(f.trace, "%s\t%s\n", f.who, strings.Join(names, "\t"))
	if f.death.Who == f.who && slices.Contains(names, f.death.At) {
		f.die(strings.Join(names, ", "))
		f.death = death{} // it comes once
	}
}

// die ends those whom the death says, by SIGKILL. It returns where this process is
// none of them.
func (f *fate) die(at string) {
	if err := os.WriteFile(filepath.Join(f.dir, deathsFile), []byte(at), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, "die:", err)
		os.Exit(1)
	}
	if f.death.Whom != itself {
		for _, pid := range others(f.dir) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may be dead already, and is then not waited for yet
		}
	}
	if f.death.Whom == onlyOthers {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal comes before this returns
}

// pidFile is where the parent keeps the number of a process while it runs.
func pidFile(dir, name string) string { return filepath.Join(dir, "pids", name) }

// others are the processes of a run besides this one.
func others(dir string) []int {
	var list []int
	names, _ := filepath.Glob(pidFile(dir, "*"))
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // it ended
		}
		if pid, err := strconv.Atoi(string(data)); err == nil && pid > 1 && pid != os.Getpid() {
			list = append(list, pid)
		}
	}
	return list
}

// died returns the moment at which somebody died in a run, "" when nobody did.
func died(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, deathsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(data), err
}

// moment is one that was met.
type moment struct {
	who   string
	names []string
}

// met returns the moments of a run, in order.
func met(dir string) ([]moment, error) {
	f, err := os.Open(filepath.Join(dir, momentsFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []moment
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		list = append(list, moment{who: fields[0], names: fields[1:]})
	}
	return list, lines.Err()
}

// toJSON writes a value for a child or a file.
func toJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("%T as JSON: %v", v, err)) // only plain data comes here
	}
	return data
}
