package filesystem_test

import (
	"flag"
	"os"
	"testing"

	"fettle/internal/adapter/adaptertest"
	"fettle/internal/adapter/filesystem"
	"fettle/internal/machine/memmachine"
)

var update = flag.Bool("update", false, "rewrite README.md")

// TestREADME: the README says what the catalogue says.
func TestREADME(t *testing.T) {
	sample, err := os.ReadFile("testdata/sample.yaml")
	if err != nil {
		t.Fatal(err)
	}
	adaptertest.CheckREADME(t, filesystem.Adapter{}, memmachine.New(memmachine.Options{}).Ports(), sample, *update)
}
