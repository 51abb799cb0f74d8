package execute

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"fettle/internal/act/journal"
	"fettle/internal/fettle"
)

// The crash test: a real process with a real journal acts on a real file, the
// external system, and kills itself with SIGKILL at every journal record, before
// and after the touch, inside the action, and between the system's answer and
// ours. The parent plays the server by the rule of S6. Whatever dies when: the
// effect is there exactly once, and the last answer is right.

func TestMain(m *testing.M) {
	if dir := os.Getenv("EXECUTE_CHILD"); dir != "" {
		if err := life(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// question is what the parent asks of a life.
type question struct {
	Op       string // do, recover, unfinished
	Dispatch fettle.Dispatch
}

// answer is what it gets, if the life lasts so long.
type answer struct {
	Outcome    fettle.Outcome
	Unfinished []Unfinished
}

// effects is the external system: a file with one line for everything that
// happened to it. It takes a request ("accepted") and does it ("done"); one that
// is slow may be asked in between.
type effects struct {
	path  string
	point func(string)
}

func (e effects) add(line string) error {
	f, err := os.OpenFile(e.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}

func (e effects) lines() ([]string, error) {
	b, err := os.ReadFile(e.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(b)), err
}

func (e effects) act(d fettle.Dispatch) (fettle.Result, error) {
	e.point("in act")
	if err := e.add("accepted:" + d.Key); err != nil {
		return fettle.Result{}, err
	}
	e.point("accepted")
	if err := e.add("done:" + d.Key); err != nil {
		return fettle.Result{}, err
	}
	e.point("effect")
	return fettle.Result{Outputs: fettle.Facts{"by": d.Key}}, nil
}

func (e effects) Preview(context.Context, fettle.Step) (fettle.Preview, error) {
	return fettle.Preview{}, nil
}

func (e effects) Apply(_ context.Context, d fettle.Dispatch) (fettle.Result, error) { return e.act(d) }
func (e effects) Undo(_ context.Context, d fettle.Dispatch) (fettle.Result, error)  { return e.act(d) }

func (e effects) Recover(_ context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	lines, err := e.lines()
	switch {
	case err != nil:
		return fettle.UnknownFate, fettle.Result{}, err
	case slices.Contains(lines, "done:"+d.Key):
		return fettle.Done, fettle.Result{Outputs: fettle.Facts{"by": d.Key}}, nil
	case slices.Contains(lines, "accepted:"+d.Key):
		return fettle.Running, fettle.Result{}, nil
	}
	return fettle.NeverWillBe, fettle.Result{}, nil
}

// life is one life of the agent: it says its incarnation, answers questions, and
// kills itself at the point that it was told.
func life(dir string) error {
	left, err := strconv.Atoi(os.Getenv("EXECUTE_CRASH"))
	if err != nil {
		return err
	}
	armed := false
	point := func(string) {
		if !armed {
			return
		}
		if left--; left == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal comes before this returns
		}
	}
	log, err := journal.Open(context.Background(), filepath.Join(dir, "journal"), journal.Options{Reserve: journal.MinReserve})
	if err != nil {
		return err
	}
	e, err := New(Options{
		Journal: log, Clock: &realClock{}, Host: host, Fleet: "f1",
		Actions:    map[string]fettle.Action{"test.do": effects{filepath.Join(dir, "effects"), point}},
		Catalogues: []fettle.Catalogue{catalogue},
		Allow:      func(string) bool { return true },
	})
	if err != nil {
		return err
	}
	e.point = point
	fmt.Println(e.Incarnation())
	in := json.NewDecoder(os.Stdin)
	for {
		var q question
		if err := in.Decode(&q); errors.Is(err, io.EOF) {
			return errors.Join(e.Close(context.Background()), log.Close())
		} else if err != nil {
			return err
		}
		armed = true
		var a answer
		switch q.Op {
		case "do":
			a.Outcome = e.Do(context.Background(), q.Dispatch)
		case "recover":
			a.Outcome = e.Recover(context.Background(), q.Dispatch)
		case "unfinished":
			a.Unfinished = e.Unfinished()
		}
		point("answer")
		b, err := json.Marshal(a)
		if err != nil {
			return err
		}
		fmt.Println(string(b))
	}
}

// agent is the parent's end of a life.
type agent struct {
	cmd         *exec.Cmd
	in          io.WriteCloser
	out         *bufio.Scanner
	incarnation string
}

func startLife(t *testing.T, dir string, crash int) *agent {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{cmd: exec.CommandContext(t.Context(), self)}
	a.cmd.Env = append(os.Environ(), "EXECUTE_CHILD="+dir, "EXECUTE_CRASH="+strconv.Itoa(crash),
		"GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0") // else each life lasts a second longer under -race
	a.cmd.Stderr = os.Stderr
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if a.in, err = a.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.out = bufio.NewScanner(out)
	if !a.out.Scan() {
		t.Fatal("the agent did not start")
	}
	a.incarnation = a.out.Text()
	return a
}

// ask returns false when the agent died before it answered.
func (a *agent) ask(t *testing.T, q question) (answer, bool) {
	t.Helper()
	if err := json.NewEncoder(a.in).Encode(q); err != nil {
		t.Fatal(err)
	}
	if !a.out.Scan() {
		var exit *exec.ExitError
		if err := a.cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the agent was not killed but ended: %v", err)
		}
		return answer{}, false
	}
	var out answer
	if err := json.Unmarshal(a.out.Bytes(), &out); err != nil {
		t.Fatal(err)
	}
	return out, true
}

func (a *agent) end(t *testing.T) {
	t.Helper()
	if err := a.in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

// server does one step by the rule of S6, over as many lives of the agent as it
// takes. crashes are the points at which the lives, one after another, die; it
// returns how many did.
type server struct {
	t       *testing.T
	dir     string
	crashes []int
	agent   *agent
	died    int
	lives   int
}

func (s *server) present() *agent {
	if s.agent == nil {
		crash := -1
		if s.lives < len(s.crashes) {
			crash = s.crashes[s.lives]
		}
		s.lives++
		s.agent = startLife(s.t, s.dir, crash)
	}
	return s.agent
}

func (s *server) ask(op string, d fettle.Dispatch) (fettle.Outcome, bool) {
	a, ok := s.present().ask(s.t, question{Op: op, Dispatch: d})
	if !ok {
		s.agent = nil
		s.died++
	}
	return a.Outcome, ok
}

func (s *server) step(name string, undo bool) fettle.Outcome {
	for try := 1; ; try++ {
		d := fettle.Dispatch{
			Schema: 1, Key: fmt.Sprintf("%s-%d", name, try), Incarnation: s.present().incarnation,
			Token:    fettle.Token{Fleet: "f1", Epoch: 1, Revision: 10},
			Deadline: time.Now().Add(time.Minute), Incident: "i1", Plan: "p1", Undo: undo,
			Step: fettle.Step{ID: "s1", Action: "test.do", Version: 2, Target: target, Host: host, Params: fettle.Facts{"how": "well"}},
		}
		o, ok := s.ask("do", d)
		for asked := 0; !ok || !final(o); asked++ {
			if asked > 10 {
				s.t.Fatalf("no final answer: %+v", o)
			}
			if ok && o.Fate == fettle.Running { // the external system goes on by itself
				sys := effects{path: filepath.Join(s.dir, "effects")}
				lines, err := sys.lines()
				if err != nil || !slices.Contains(lines, "accepted:"+d.Key) || slices.Contains(lines, "done:"+d.Key) {
					s.t.Fatalf("said to be running: %v (%v)", lines, err)
				}
				if err := sys.add("done:" + d.Key); err != nil {
					s.t.Fatal(err)
				}
			}
			o, ok = s.ask("recover", d)
		}
		if o.Fate == fettle.Done {
			return o
		}
	}
}

func TestKilledAtEveryPoint(t *testing.T) {
	for _, undo := range []bool{false, true} {
		t.Run(fmt.Sprintf("undo=%v", undo), func(t *testing.T) {
			firstLife := 0
			for first := 1; ; first++ {
				died := 0
				for second := 1; ; second++ {
					s := &server{t: t, dir: t.TempDir(), crashes: []int{first, second}}
					o := s.step("step", undo)
					if o.Class != "" || o.Error != "" {
						t.Fatalf("killed at %d and %d: %+v", first, second, o)
					}
					lines, err := effects{path: filepath.Join(s.dir, "effects")}.lines()
					by, _ := o.Result.Outputs.Str("by")
					if want := []string{"accepted:" + by, "done:" + by}; err != nil || by != o.Key || !slices.Equal(lines, want) {
						t.Fatalf("killed at %d and %d: effects %v, want %v (%v)", first, second, lines, want, err)
					}
					a, ok := s.present().ask(t, question{Op: "unfinished"})
					if ok {
						if len(a.Unfinished) != 0 {
							t.Fatalf("killed at %d and %d: unfinished %+v", first, second, a.Unfinished)
						}
						s.agent.end(t)
					}
					died = s.died
					if died < 2 { // the second life lived to the end: no more points
						break
					}
				}
				if died == 0 {
					break // the first one, too
				}
				firstLife++
			}
			if firstLife < 9 {
				t.Fatalf("only %d points were met: the hooks are not called", firstLife)
			}
			t.Logf("%d points in the first life", firstLife)
		})
	}
}
