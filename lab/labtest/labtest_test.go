//go:build lab

package labtest

import (
	"testing"

	"fettle/lab"
)

func TestStart(t *testing.T) {
	l := Start(t, lab.Config{Hosts: 1})
	if got, err := l.Host(1).Output(t.Context(), "hostname"); err != nil || got != "h1" {
		t.Errorf("hostname %q, %v", got, err)
	}
	show(t, l) // as for a failed test; it must not fail or hang by itself
	if err := l.Host(1).PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	show(t, l)
}
