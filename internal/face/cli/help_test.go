package cli

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// TestHelp: every command says what it does, shows how it is called, keeps to 80
// columns, and hands wrong words to nobody.
func TestHelp(t *testing.T) {
	t.Setenv("FETTLE_STATE", "/var/lib/fettle")
	root := (&app{}).root()
	seen := 0
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			visit(sub)
		}
		if c.Hidden {
			return
		}
		seen++
		t.Run(c.CommandPath(), func(t *testing.T) { help(t, c) })
	}
	visit(root)
	if seen < 25 {
		t.Errorf("only %d commands were found", seen)
	}
}

func help(t *testing.T, c *cobra.Command) {
	var out bytes.Buffer
	c.SetOut(&out)
	c.InitDefaultHelpFlag()
	if err := c.Help(); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if c.Short == "" {
		t.Error("it does not say what it does")
	}
	if !strings.Contains(c.Example, "fettle "+strings.TrimPrefix(c.CommandPath(), "fettle ")) && c.HasParent() {
		t.Errorf("no example shows how it is called: %q", c.Example)
	}
	if c.Args == nil && c.Runnable() && !strings.Contains(c.Use, "…") {
		t.Error("it does not say which arguments it takes")
	}
	// What is between backquotes in a flag's usage is taken for its argument.
	if strings.Contains(out.String(), "--dir fettle up") {
		t.Errorf("a flag is shown with a wrong argument:\n%s", out.String())
	}
}
