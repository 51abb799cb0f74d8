package machinetest

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
)

// HelperArg is the first argument that makes a test binary behave as the main
// process of a service; the second says which.
const HelperArg = "fettle-test-helper"

// Helper is called first in TestMain of a package that runs its own test binary
// as a service. When the process was started as one, it does not return.
//
//	steady      says READY=1, ignores SIGHUP, ends by SIGTERM
//	stubborn    the same, and ignores SIGTERM
//	neverready  never says READY=1
//	exit3       ends with status 3
//	exit0       likewise with status 0
func Helper() {
	if len(os.Args) < 3 || os.Args[1] != HelperArg {
		return
	}
	switch mode := os.Args[2]; mode {
	case "steady":
		signal.Ignore(syscall.SIGHUP)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
	case "neverready":
		forever()
	case "exit3", "exit0":
		os.Exit(map[string]int{"exit3": 3, "exit0": 0}[mode])
	default:
		fmt.Fprintf(os.Stderr, "no helper %q\n", mode)
		os.Exit(64)
	}
	fmt.Println(os.Args[2], "began")
	sayReady()
	forever()
}

// forever waits to be killed. A goroutine that listens for signals keeps the
// runtime from calling that a deadlock.
func forever() {
	wait := make(chan os.Signal, 1)
	signal.Notify(wait, syscall.SIGUSR1)
	for {
		<-wait
	}
}

// sayReady is sd_notify(3), where somebody listens.
func sayReady() {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	conn, err := net.Dial("unixgram", name)
	if err == nil {
		_, err = conn.Write([]byte("READY=1"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "notify:", err)
		os.Exit(65)
	}
}
