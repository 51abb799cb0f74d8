package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

func TestUsage(t *testing.T) {
	for _, test := range []struct {
		args string
		code int
		says string
	}{
		{"--help", 0, "lab up -n 3"},
		{"up --help", 0, "--detach"},
		{"completion bash", 0, "complete"},
		{"nonsense", 3, "no command"},
		{"up --nonsense", 3, "--help"},
		{"up -n x", 3, "--help"},
		{"up -n 3 extra", 3, "usage"},
		{"poweroff", 3, "usage: lab poweroff HOST"},
		{"partition h1", 3, "usage"},
		{"exec h1", 3, "usage"},
		{"loss h1 many", 3, "0 to 100"},
		{"delay h1 5", 3, "100ms"},
		{"list -o yaml", 3, "text or json"},
		{"bmc h1", 1, "not supported yet: the BMC comes with the out-of-band issue"},
	} {
		t.Setenv("FETTLE_LAB_DIR", t.TempDir())
		var out bytes.Buffer
		code := execute(context.Background(), strings.Fields(test.args), strings.NewReader(""), &out, &out)
		if code != test.code || !strings.Contains(out.String(), test.says) {
			t.Errorf("lab %s: exit status %d, want %d with %q; it said:\n%s", test.args, code, test.code, test.says, out.String())
		}
	}
}

func TestListOfNothing(t *testing.T) {
	t.Setenv("FETTLE_LAB_DIR", t.TempDir())
	var out, errOut bytes.Buffer
	if code := execute(context.Background(), []string{"list", "-o", "json"}, nil, &out, &errOut); code != 0 || out.String() != "[]\n" {
		t.Errorf("exit status %d, %q, %q", code, out.String(), errOut.String())
	}
}

func TestNames(t *testing.T) {
	if got := strings.Join(names("h1,h2", "h3", ",", ""), " "); got != "h1 h2 h3" {
		t.Errorf("got %q", got)
	}
}
