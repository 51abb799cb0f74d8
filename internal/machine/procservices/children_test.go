package procservices_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fettle/internal/machine"
	"fettle/internal/machine/machinetest"
	"fettle/internal/machine/procservices"
)

// What a main process leaves in its group does not outlive it.
func TestGroupDiesWithMainProcess(t *testing.T) {
	s := run(t)
	name := define(t, s, procservices.Definition{
		Name: "group", Argv: []string{"/bin/sh", "-c", "sleep 1000000 & echo child $!; wait"},
	})
	u := start(t, s, name)
	var pid int
	for deadline := time.Now().Add(time.Minute); pid == 0; <-time.After(5 * time.Millisecond) {
		lines, err := s.Log(t.Context(), name, 1)
		if err != nil || time.Now().After(deadline) {
			t.Fatal(lines, err)
		}
		if len(lines) == 1 {
			pid, _ = strconv.Atoi(strings.TrimPrefix(lines[0], "child "))
		}
	}
	if err := s.Kill(t.Context(), name, int(syscall.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	waitGone(t, pid)
	waitGone(t, u.MainPID)
}

// waitGone waits for the end of a process that is not our child.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there: %s", pid, stat)
		}
	}
}

// Run ends only when all children have, and nothing starts afterwards.
func TestRunStopsEverything(t *testing.T) {
	s := procservices.New(time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	a := define(t, s, procservices.Definition{Name: "a", Argv: []string{"/bin/sleep", "1000000"}})
	b := define(t, s, procservices.Definition{
		Name: "b", Argv: []string{self(t), machinetest.HelperArg, "stubborn"},
		Ready: procservices.Ready{Notify: true}, StopTimeout: 50 * time.Millisecond,
	})
	pids := []int{start(t, s, a).MainPID, start(t, s, b).MainPID}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d outlived Run: %v", pid, err)
		}
	}
	if _, err := s.Start(t.Context(), a); err == nil {
		t.Error("started something after Run had ended")
	}
}

const parentArg = "fettle-test-parent"

// beParent runs a service until it is killed, and says the child's number.
func beParent() {
	s := procservices.New(time.Now)
	go s.Run(context.Background())
	if err := s.Define(procservices.Definition{Name: "a.service", Argv: []string{"/bin/sleep", "1000000"}}); err != nil {
		panic(err)
	}
	if _, err := s.Start(context.Background(), "a.service"); err != nil {
		panic(err)
	}
	u, _ := s.Unit(context.Background(), "a.service")
	fmt.Println(u.MainPID)
	select {}
}

// Nothing is left when the whole program is killed by SIGKILL.
func TestChildrenDieWithTheParent(t *testing.T) {
	cmd := exec.Command(self(t), parentArg)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, convErr := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || convErr != nil {
		t.Fatalf("parent said %q: %v", line, err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the child does not run: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	waitGone(t, pid)
}

// A stop ends a start at whatever moment it comes: queued, about to fork, or forked.
func TestStopAtAnyMomentOfAStart(t *testing.T) {
	s := run(t)
	name := define(t, s, procservices.Definition{
		Name: "slow", Argv: []string{self(t), machinetest.HelperArg, "neverready"},
		Ready: procservices.Ready{Notify: true}, StopTimeout: 30 * time.Second,
	})
	for i := range 1500 {
		activating := make(chan struct{})
		told, untold := context.WithCancel(t.Context())
		var watch sync.WaitGroup
		watch.Go(func() {
			var once sync.Once
			_ = s.Watch(told, func(u machine.Unit) {
				if u.ActiveState == "activating" {
					once.Do(func() { close(activating) })
				}
			}, name)
		})
		started := make(chan error, 1)
		go func() {
			_, err := s.Start(t.Context(), name)
			started <- err
		}()
		<-activating
		for at := time.Now().Add(time.Duration(i%300) * time.Microsecond); time.Now().Before(at); {
			runtime.Gosched()
		}
		stop(t, s, name)
		if err := <-started; err != nil {
			t.Fatal(err)
		}
		untold()
		watch.Wait()
		if u, err := s.Unit(t.Context(), name); err != nil || u.ActiveState != "inactive" || u.Result != "success" {
			t.Fatalf("round %d: %s, result %q, %v; want inactive", i, u.ActiveState, u.Result, err)
		}
	}
}
