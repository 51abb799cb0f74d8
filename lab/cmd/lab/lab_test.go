//go:build lab

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"fettle/lab"
)

// asProgram makes the test program behave as the lab command, which starts itself again to keep a lab.
const asProgram = "FETTLE_LAB_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// program runs the lab command and returns its exit status and standard output.
func program(t *testing.T, stdin string, args ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if errOut.Len() > 0 {
		t.Logf("lab %s: %s", strings.Join(args, " "), errOut.String())
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

func TestProgram(t *testing.T) {
	const name = "program-test"
	code, out := program(t, "", "--name", name, "up", "-n", "2", "--detach", "-o", "json")
	t.Cleanup(func() { program(t, "", "down", "--name", name) })
	var info lab.Info
	if err := json.Unmarshal([]byte(out), &info); code != 0 || err != nil || info.Name != name || len(info.Hosts) != 2 {
		t.Fatalf("up: exit status %d, %v:\n%s", code, err, out)
	}
	for _, step := range []struct {
		args  []string // without --name
		stdin string
		code  int
		says  string
	}{
		{[]string{"exec", "h2", "--", "sh", "-c", "hostname; cat; exit 127"}, "told", 127, "h2\ntold"},
		{[]string{"exec", "h1", "--", "ping", "-c", "1", "-W", "5", "h2"}, "", 0, "1 received"},
		{[]string{"partition", "h1", "h2", "--one-way"}, "", 0, ""},
		{[]string{"exec", "h1", "--", "ping", "-c", "1", "-W", "1", "h2"}, "", 1, "0 received"},
		{[]string{"list"}, "", 0, "cut h1 -> h2"},
		{[]string{"heal"}, "", 0, ""},
		{[]string{"loss", "h1", "100%"}, "", 0, ""},
		{[]string{"exec", "h1", "--", "ping", "-c", "1", "-W", "1", "h2"}, "", 1, "0 received"},
		{[]string{"loss", "h1", "0"}, "", 0, ""},
		{[]string{"delay", "h1", "20ms", "--jitter", "5ms", "--to", "h2"}, "", 0, ""},
		{[]string{"list", "-o", "json"}, "", 0, "delay h1 -\\u003e h2 20ms"},
		{[]string{"exec", "h1", "--", "ping", "-c", "1", "-W", "5", "h2"}, "", 0, "1 received"},
		{[]string{"isolate", "h2"}, "", 0, ""},
		{[]string{"heal"}, "", 0, ""},
		{[]string{"poweroff", "h2"}, "", 0, ""},
		{[]string{"exec", "h2", "--", "true"}, "", 1, ""},
		{[]string{"boot", "h2"}, "", 0, ""},
		{[]string{"boot", "h2"}, "", 1, ""},
		{[]string{"freeze", "h2"}, "", 0, ""},
		{[]string{"thaw", "h2"}, "", 0, ""},
		{[]string{"shutdown", "h2"}, "", 0, ""},
		{[]string{"boot", "h3"}, "", 1, ""},
		{[]string{"console", "h1"}, "", 0, "multi-user.target"},
		{[]string{"sweep"}, "", 0, ""},
		{[]string{"up", "-n", "1"}, "", 1, ""}, // the name is taken
	} {
		args := append([]string{step.args[0], "--name", name}, step.args[1:]...)
		if code, out := program(t, step.stdin, args...); code != step.code || !strings.Contains(out, step.says) {
			t.Errorf("lab %s: exit status %d, want %d with %q; it said:\n%s", strings.Join(args, " "), code, step.code, step.says, out)
		}
	}
	if code, _ := program(t, "", "down", "--name", name); code != 0 {
		t.Errorf("down: exit status %d", code)
	}
	if code, _ := program(t, "", "exec", "--name", name, "h1", "--", "true"); code != 4 {
		t.Errorf("exec in a lab that is down: exit status %d, want 4", code)
	}
}
