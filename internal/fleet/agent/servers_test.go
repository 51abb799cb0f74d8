package agent

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fettle/internal/machine/loopback"
)

// Agents spread over the servers, and only those move whose server comes or goes.
func TestServersAreSpread(t *testing.T) {
	three := []string{"10.0.0.1:7400", "10.0.0.2:7400", "10.0.0.3:7400"}
	first := func(id string, list []string) string {
		s := &servers{id: id, list: slices.Clone(list)}
		s.rank()
		address, _ := s.next()
		return address
	}
	const agents = 3000
	count := map[string]int{}
	for i := range agents {
		id := fmt.Sprint("host", i)
		with := first(id, three)
		count[with]++
		if without := first(id, three[:2]); with != three[2] && without != with {
			t.Errorf("agent %s went from %s to %s when %s went", id, with, without, three[2])
		}
	}
	for _, address := range three {
		if n := count[address]; n < agents/3*9/10 || n > agents/3*11/10 {
			t.Errorf("%s has %d of %d agents", address, n, agents)
		}
	}
}

// An agent that found the server that it prefers away is with another one, and goes
// home when that is back.
func TestGoesHome(t *testing.T) {
	s := newSite(t, openEtcd)
	s.up()
	// A second door to the same server; the agent is to prefer that one.
	door := newDoor(t, s.agent.Server)
	for i := 0; ; i++ {
		both := &servers{id: s.agent.Identity.Name.ID, list: []string{s.agent.Server, door.address}}
		if both.rank(); both.list[0] == door.address {
			break
		}
		door = newDoor(t, s.agent.Server) // another port, another rank
	}
	if err := os.MkdirAll(s.agent.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.agent.StateDir, serversName), []byte(door.address+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var text strings.Builder
	s.agent.Log = slog.New(slog.NewTextHandler(lockedWriter{&mu, &text}, nil))
	said := func(what, server string) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return strings.Contains(text.String(), what+server)
		}
	}
	start(t, s.agent, func(a *Agent) { a.homeAfter = 20 * time.Millisecond })
	const begun = `msg="a session with the server has begun" server=`
	wait(t, "with the one that is there", said(begun, s.agent.Server))
	door.open(t)
	wait(t, "on its way", said(`msg="this agent goes to the server that it prefers" from=`, s.agent.Server))
	wait(t, "at home", said(begun, door.address))
}

// door is an address that leads to another one, once it is open.
type door struct{ address, to string }

func newDoor(t *testing.T, to string) *door {
	t.Helper()
	return &door{loopback.Address(t), to}
}

func (d *door) open(t *testing.T) {
	t.Helper()
	l := loopback.Listen(t, d.address)
	t.Cleanup(func() { _ = l.Close() })
	go func() { // until the listener is closed
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", d.to)
			if err != nil {
				_ = in.Close()
				continue
			}
			go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
			go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
		}
	}()
}
