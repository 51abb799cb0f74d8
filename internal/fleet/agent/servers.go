package agent

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
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
// that does not lead passes on what it hears. Each agent prefers one, by rendezvous
// hash, so that agents spread evenly, and none moves but those whose server comes or
// goes.
type servers struct {
	file string
	id   string // of this agent

	mu   sync.Mutex
	list []string // never empty; the preferred one first
	at   int      // of the one to call next
}

// recallServers are the addresses that were kept, and the one that the agent was
// given.
func recallServers(dir, given, id string) *servers {
	s := &servers{file: filepath.Join(dir, serversName), id: id}
	if data, err := os.ReadFile(s.file); err == nil {
		s.list = plausible(strings.Fields(string(data)))
	}
	if given != "" && !slices.Contains(s.list, given) {
		s.list = append(s.list, given)
	}
	s.rank()
	return s
}

// rank puts the servers into this agent's order: Thaler and Ravishankar, Using
// name-based mappings to increase hit rates (1998). mu is held, or nobody else is there.
func (s *servers) rank() {
	weight := func(address string) uint64 {
		sum := sha256.Sum256([]byte(s.id + "\x00" + address))
		return binary.BigEndian.Uint64(sum[:])
	}
	slices.SortFunc(s.list, func(a, b string) int { return cmp.Compare(weight(b), weight(a)) })
}

// home returns the preferred server where that is another one; "": it is this one.
func (s *servers) home(at string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 || s.list[0] == at || !slices.Contains(s.list, at) {
		return ""
	}
	return s.list[0]
}

// goHome makes the preferred server the one to call next.
func (s *servers) goHome() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = 0
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
	had := slices.Clone(s.list)
	slices.Sort(had)
	if len(list) == 0 || slices.Equal(list, had) {
		return nil
	}
	s.list = slices.Clone(list)
	s.rank()
	return renameio.WriteFile(s.file, []byte(strings.Join(list, "\n")+"\n"), 0o600)
}
