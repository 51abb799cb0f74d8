package linuxmachine

import (
	"context"
	"os"
	"testing"

	"go.uber.org/goleak"

	"fettle/internal/machine/machinetest"
)

func TestMain(m *testing.M) {
	machinetest.Helper()
	if len(os.Args) == 3 && os.Args[1] == holdArg {
		holdDeleted(os.Args[2])
		return
	}
	goleak.VerifyTestMain(m)
}

// open opens this machine as host "test".
func open(t testing.TB) *Host {
	t.Helper()
	h, err := Open(context.Background(), Config{Host: "test", StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}
