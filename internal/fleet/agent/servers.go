package agent

import (
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/renameio/v2"
)

// serversName is the file in which an agent keeps where the servers of its fleet are
// reached, one address a line.
const serversName = "servers"

// servers are the addresses at which the fleet is reached. Any server will do: one
// that does not lead passes on what it hears.
type servers struct {
	file string

	mu   sync.Mutex
	list []string // never empty
	at   int      // of the one to call next
}

// recallServers are the addresses that were kept, and the one that the agent was
// given. It begins anywhere, so that agents that start at once spread.
func recallServers(dir, given string) *servers {
	s := &servers{file: filepath.Join(dir, serversName)}
	if data, err := os.ReadFile(s.file); err == nil {
		s.list = plausible(strings.Fields(string(data)))
	}
	if given != "" && !slices.Contains(s.list, given) {
		s.list = append(s.list, given)
	}
	if len(s.list) > 0 {
		s.at = rand.N(len(s.list))
	}
	return s
}

func plausible(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(a string) bool {
		_, port, err := net.SplitHostPort(a)
		return err != nil || port == ""
	})
}

// next returns the address to call, and whether all have had their turn since the
// first call.
func (s *servers) next() (address string, round bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return "", true
	}
	address = s.list[s.at%len(s.list)]
	s.at++
	return address, s.at%len(s.list) == 0
}

// stay makes the address that was called last the one to call next.
func (s *servers) stay() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = (s.at + len(s.list) - 1) % max(1, len(s.list))
}

// told takes in what a server says that all servers are, and keeps it. None: as it
// was.
func (s *servers) told(list []string) error {
	list = plausible(list)
	slices.Sort(list)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(list) == 0 || slices.Equal(list, s.list) {
		return nil
	}
	s.list = list
	return renameio.WriteFile(s.file, []byte(strings.Join(list, "\n")+"\n"), 0o600)
}
