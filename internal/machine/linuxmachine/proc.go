package linuxmachine

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// procStat is what is needed of /proc/PID/stat.
type procStat struct {
	pid        int
	command    string
	state      string
	startTicks uint64
}

// startTimeField is the place of starttime after the command, counted from 0:
// field 22 of proc_pid_stat(5).
const startTimeField = 19

// parseProcStat reads /proc/PID/stat. The command stands in parentheses and may
// itself have any byte in it, parentheses and blanks included.
func parseProcStat(data []byte) (procStat, error) {
	open, closed := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || closed < open {
		return procStat{}, fmt.Errorf("stat: no command in %q", data)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data[:open])))
	if err != nil || pid < 1 {
		return procStat{}, fmt.Errorf("stat: bad process number in %q", data)
	}
	rest := strings.Fields(string(data[closed+1:]))
	if len(rest) <= startTimeField || len(rest[0]) != 1 {
		return procStat{}, fmt.Errorf("stat: too few fields in %q", data)
	}
	ticks, err := strconv.ParseUint(rest[startTimeField], 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("stat: bad start time in %q", data)
	}
	return procStat{pid: pid, command: string(data[open+1 : closed]), state: rest[0], startTicks: ticks}, nil
}

// parseCgroup returns the cgroup in which systemd keeps a process, out of
// /proc/PID/cgroup (cgroups(7)): that of the name=systemd hierarchy where there
// is one that it uses, else that of cgroup2. A container whose systemd uses
// cgroup2 on a machine that has both sees everything at the root of the first.
func parseCgroup(data []byte) string {
	unified := ""
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(parts) != 3:
		case parts[1] == "name=systemd" && parts[2] != "/":
			return parts[2]
		case parts[0] == "0" && parts[1] == "":
			unified = parts[2]
		}
	}
	return unified
}

// unitOf names the system's unit that a cgroup belongs to, "" when it is none's:
// the first component below the slices, as systemd itself reads it. A user's own
// units are all part of user@UID.service.
func unitOf(cgroup string) string {
	for part := range strings.SplitSeq(cgroup, "/") {
		// systemd puts "_" before a name that looks like a file of cgroupfs.
		part = strings.TrimPrefix(part, "_")
		for _, suffix := range []string{".service", ".scope", ".socket", ".mount", ".swap"} {
			if name := strings.TrimSuffix(part, suffix); name != part && name != "" {
				return part
			}
		}
	}
	return ""
}

// parseArgs splits /proc/PID/cmdline. A process that rewrote its title may have
// no closing NUL, or many.
func parseArgs(data []byte) []string {
	data = bytes.TrimRight(data, "\x00")
	if len(data) == 0 {
		return nil
	}
	return strings.Split(string(data), "\x00")
}

// parseFdFlags returns the open flags out of /proc/PID/fdinfo/N, in octal there.
func parseFdFlags(data []byte) (flags int64, ok bool) {
	for line := range strings.Lines(string(data)) {
		if value, found := strings.CutPrefix(line, "flags:"); found {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 8, 64)
			return n, err == nil
		}
	}
	return 0, false
}
