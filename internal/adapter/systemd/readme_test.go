package systemd_test

import (
	"flag"
	"os"
	"testing"

	"fettle/internal/adapter/adaptertest"
	"fettle/internal/adapter/systemd"
	"fettle/internal/machine/memmachine"
)

var update = flag.Bool("update", false, "rewrite README.md")

// TestREADME: the README says what the catalogue says.
func TestREADME(t *testing.T) {
	sample, err := os.ReadFile("testdata/sample.yaml")
	if err != nil {
		t.Fatal(err)
	}
	adaptertest.CheckREADME(t, systemd.Adapter{}, memmachine.New(memmachine.Options{}).Ports(), sample, *update)
}
