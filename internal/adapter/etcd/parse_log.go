package etcd

import "strings"

// sayings are what etcd says when its own data keeps it from starting, by a part
// of the line, in text (3.4) as in JSON (3.7), and what that means. Only the log
// of the service's last run is asked, and only while it does not run: what stands
// there is the present state, not a memory.
var sayings = []struct{ part, means string }{
	{"Was the raft log corrupted, truncated, or lost?", "its log is shorter than what it had acknowledged (cut off, or an old copy)"},
	{"walpb: crc mismatch", "its write-ahead log fails its checksum"},
	{"wal: crc mismatch", "its write-ahead log fails its checksum"},
	{"max entry size limit exceeded", "its write-ahead log has no record where one must be"},
	{"freepages: failed to get all reachable pages", "pages of its database are not what they must be"},
	{"assertion failed: Page expected to be", "pages of its database are not what they must be"},
	{"cannot open database at", "its database cannot be opened"},
	{"failed to open database", "its database cannot be opened"},
	{"unexpected fault address", "its database is shorter than it says"},
	{"failed to recover v3 backend from snapshot", "its database is missing, and its log does not go back to the beginning"},
}

// damageIn returns what the last run of a member said about its data, "" when
// nothing that is known.
func damageIn(lines []string) string {
	for _, line := range lines {
		for _, s := range sayings {
			if strings.Contains(line, s.part) {
				return s.means
			}
		}
	}
	return ""
}
