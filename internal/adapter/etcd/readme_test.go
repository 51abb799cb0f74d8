package etcd_test

import (
	"flag"
	"os"
	"testing"

	"fettle/internal/adapter/adaptertest"
	"fettle/internal/adapter/etcd"
	"fettle/internal/machine/memmachine"
)

var update = flag.Bool("update", false, "rewrite README.md")

// TestREADME: the README says what the catalogue says.
func TestREADME(t *testing.T) {
	sample, err := os.ReadFile("testdata/sample.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m := memmachine.New(memmachine.Options{})
	m.Put("/etc/default/etcd", []byte("ETCD_NAME=m1\n"), 0o644)
	adaptertest.CheckREADME(t, etcd.New(), m.Ports(), sample, *update)
}
